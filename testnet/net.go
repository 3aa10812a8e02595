package testnet

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"peel/cell"
	"peel/client"
)

// Config says what network to run in this process. Its zero value is 5 authorities, 12 relays of which 4 are exits,
// and a client.
type Config struct {
	Size
	Period   time.Duration                                      // from one consensus to the next, whole seconds; 0: 4 s
	Voting   time.Duration                                      // how much of it goes into making the next; 0: 1.2 s
	Dir      string                                             // keys and documents are kept here; "": nowhere
	Progress func(client.Progress)                              // of the client's start
	Tap      func(node string) func(in bool, cells []cell.Cell) // wiretaps, by nickname ("client" for the client); nil: none
	Log      func(node string) *slog.Logger                     // by nickname; nil: silent
}

const (
	defaultPeriod = 4 * time.Second // on a busy machine the first consensus may fail, and the second follows soon
	defaultVoting = 1200 * time.Millisecond
	settling      = 300 * time.Millisecond // from the start of the nodes to the first voting, at least
)

// Net is a network in this process: made by New, alive while Run runs.
type Net struct {
	cfg         Config
	layout      *Layout
	client      *client.Client
	relays      []*node
	authorities []*node
	listeners   []net.Listener
}

// New makes the nodes and opens their listeners, so that every address is known. It starts nothing.
func New(cfg Config) (*Net, error) {
	if cfg.Size == (Size{}) {
		cfg.Size = Size{Authorities: 5, Relays: 12, Exits: 4}
	}
	if cfg.Period == 0 {
		cfg.Period = defaultPeriod
	}
	if cfg.Voting == 0 {
		cfg.Voting = defaultVoting
	}
	if cfg.Log == nil {
		cfg.Log = func(string) *slog.Logger { return slog.New(slog.DiscardHandler) }
	}
	if cfg.Tap == nil {
		cfg.Tap = func(string) func(bool, []cell.Cell) { return nil }
	}
	n := &Net{cfg: cfg}
	if err := n.make(); err != nil {
		for _, l := range n.listeners {
			l.Close()
		}
		return nil, err
	}
	return n, nil
}

// listen opens the listener of node i: on its own address, or, where there is only 127.0.0.1, on a port of its own.
func (n *Net) listen(whole bool) Place {
	return func(i int) (netip.AddrPort, error) {
		host := "127.0.0.1"
		if whole {
			a, _ := Loopback(0)(i)
			host = a.Addr().String()
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("testnet: %w", err)
		}
		n.listeners = append(n.listeners, l)
		return l.Addr().(*net.TCPAddr).AddrPort(), nil
	}
}

func (n *Net) make() error {
	now := time.Now()
	start := now.Add(settling + n.cfg.Voting + time.Second).Truncate(time.Second)
	whole := HasLoopbackNet()
	var err error
	n.layout, err = Plan("local", n.cfg.Size, n.listen(whole), start, n.cfg.Period, n.cfg.Voting, now)
	if err != nil {
		return err
	}
	for i := range n.layout.Authorities {
		nd, err := n.authority(&n.layout.Authorities[i], n.listeners[i])
		if err != nil {
			return err
		}
		n.authorities = append(n.authorities, nd)
	}
	for i := range n.layout.Relays {
		nd, err := n.relay(&n.layout.Relays[i], n.listeners[len(n.authorities)+i])
		if err != nil {
			return err
		}
		n.relays = append(n.relays, nd)
	}
	n.client, err = client.New(client.Config{
		Network: n.layout.Network, Progress: n.cfg.Progress, Tap: n.cfg.Tap("client"), Log: n.cfg.Log("client"),
	})
	return err
}
