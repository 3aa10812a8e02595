package lab

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"time"

	"peel/testnet/memnet"
	"peel/testnet/plan"
)

// Ground is what a network stands on: machines, each with an address, and what lies between them. Refuse and Place are called by New, and
// begin nothing; then Begin, the other methods, from any goroutine and at any time, and End, once, by Run, or by New if it
// fails after Place.
type Ground interface {
	// Traits say what it is.
	Traits() Traits
	// Refuse says what of a plan cannot be had here, and what to do.
	Refuse(p *plan.Plan) error
	// Place is the address of machine i, and the port on which what runs there is to listen. Machines should be in different /16 networks, as
	// long as there are such, and all in one /8.
	Place(i int, role string) (netip.AddrPort, error)
	// Begin makes the machines, in the order of Place. The error says what to do. End is called after it, even if it fails.
	Begin(ctx context.Context, machines []Machine) error
	// Listen listens, in this process, as the machine with the address.
	Listen(at netip.AddrPort) (net.Listener, error)
	// Dial dials, from this process, as the machine from: also its own address.
	Dial(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error)

	// SetWays says what lies between machines from now on, also for connections that there are.
	SetWays(way func(from, to netip.Addr) memnet.Way) error
	// SetRate limits what a machine sends in all to so many bytes a second; 0: without limit.
	SetRate(a netip.Addr, rate int) error
	// Part divides the network: machines that are in different parts do not hear each other, those in none hear all. nil: it is whole.
	Part(parts map[netip.Addr]int) error
	// Freeze keeps a machine from being heard and from hearing, without a word to anybody, until it is thawed. Of a node that is a process,
	// the process is stopped instead.
	Freeze(a netip.Addr, frozen bool) error
	// Cut breaks all connections of a machine and closes its listeners in this process: what others notice when it crashes.
	Cut(a netip.Addr)
	// End takes all away that Begin and what followed has made, and waits for it. Whoever used it has ended before.
	End() error
}

// Outside is a ground on which authorities, relays and clients are processes of their own, if Config.Processes is given.
type Outside interface {
	Ground
	// Start starts a process on the machine with the address. The thread that calls it is the one that starts the process.
	Start(on netip.Addr, cmd *exec.Cmd) error
}

// Machine is one machine of a ground.
type Machine struct {
	Name  string
	Role  string // authority, relay, client or service
	Place string // on the map
	Addr  netip.AddrPort
}

// Traits are what a ground is.
type Traits struct {
	Name     string        // in a few words: "in memory, in virtual time"
	Settling time.Duration // from the start of the nodes to the first voting, by when all relays should have said who they are
	Shared   bool          // the machines dial from one address, as far as others can tell
	Real     bool          // time is real, and does not wait: the timetable begins when the first client is ready
}

// memory is the ground in memory, for virtual time.
type memory struct{ *memnet.Net }

// settlingVirtual is from the start of the nodes to the first voting in virtual time: all relays are in the first consensus.
const settlingVirtual = 20 * time.Second

const (
	linkPort    = 9001
	servicePort = 80
)

func (memory) Traits() Traits {
	return Traits{Name: "in memory, in virtual time", Settling: settlingVirtual}
}
func (memory) Refuse(*plan.Plan) error                { return nil }
func (memory) Begin(context.Context, []Machine) error { return nil }

// Place gives each a /16 of its own, as long as there are such.
func (memory) Place(i int, role string) (netip.AddrPort, error) {
	port := uint16(linkPort)
	if role == roleService {
		port = servicePort
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i), byte(i >> 8), 1}), port), nil
}

func (m memory) Dial(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
	return m.Dialer(from)(ctx, network, addr)
}

func (m memory) SetWays(way func(from, to netip.Addr) memnet.Way) error {
	m.Net.SetWays(way)
	return nil
}

func (m memory) SetRate(a netip.Addr, rate int) error {
	m.Net.SetRate(a, rate)
	return nil
}

func (m memory) Part(parts map[netip.Addr]int) error {
	m.Net.Part(parts)
	return nil
}

func (m memory) Freeze(a netip.Addr, frozen bool) error {
	m.Net.Freeze(a, frozen)
	return nil
}

func (m memory) End() error {
	m.Close()
	return nil
}
