package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"time"

	"peel/testnet/memnet"
	"peel/testnet/plan"
)

// apart is the ground of processes on 127.0.0.0/8, in real time: what lies between them is this machine's loopback, as it is.
type apart struct {
	ports
	machines int
}

// Apart makes a ground for nodes that are processes of their own (Config.Processes), in real time, over loopback.
func Apart(p *plan.Plan) Outside {
	return &apart{machines: p.Authorities + p.Relays.Count + p.Clients}
}

// Traits gives each process a while to start.
func (g *apart) Traits() Traits {
	return Traits{Name: "as processes, over loopback", Settling: timeToStart(g.machines), Real: true, Shared: true}
}

// timeToStart is what so many processes may need.
func timeToStart(n int) time.Duration { return 2*time.Second + time.Duration(n)*100*time.Millisecond }

// errLoopbackAsItIs is why what befalls lines is refused.
var errLoopbackAsItIs = errors.New("processes are joined by the machine's loopback as it is: use --ground namespaces (as root), loopback or virtual")

func (g *apart) Refuse(p *plan.Plan) error {
	refuse := func(format string, a ...any) error {
		return fmt.Errorf("lab: "+format+": %w", append(a, errLoopbackAsItIs)...)
	}
	if runtime.GOOS != "linux" {
		return errors.New("lab: networks of processes need Linux: use --ground virtual")
	}
	if p.Weather != plan.Calm {
		return fmt.Errorf("lab: weather %q: %w; or have none: --weather calm", p.Weather, errLoopbackAsItIs)
	}
	for _, e := range p.Events {
		switch e.Do {
		case plan.Change, plan.Part, plan.Limit:
			return refuse("event %q", e.Do)
		case plan.Freeze:
			for _, n := range e.Targets() {
				if role, _ := p.RoleOf(n); role == roleService {
					return refuse("event %q of the service %s", e.Do, n)
				}
			}
		}
	}
	return nil
}

func (g *apart) Begin(context.Context, []Machine) error { return nil }

func (g *apart) Dial(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	return d.DialContext(ctx, network, addr)
}

// Start gives the process its port.
func (g *apart) Start(on netip.Addr, cmd *exec.Cmd) error {
	g.release(on)
	return cmd.Start()
}

func (g *apart) SetWays(func(from, to netip.Addr) memnet.Way) error { return nil } // calm: Refuse has seen to it
func (g *apart) SetRate(netip.Addr, int) error                      { return nil } // relays keep to their bandwidth by themselves
func (g *apart) Part(map[netip.Addr]int) error                      { return errLoopbackAsItIs }
func (g *apart) Freeze(netip.Addr, bool) error                      { return errLoopbackAsItIs }
func (g *apart) Cut(netip.Addr)                                     {}

func (g *apart) End() error {
	g.release(netip.Addr{})
	return nil
}
