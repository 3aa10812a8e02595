package testnet

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"peel/cell"
	"peel/client"
	"peel/directory"
	"peel/directory/cache"
	"peel/relay/exit"
	"peel/testnet/memnet"
	"peel/testnet/plan"
	"peel/testnet/story"
	"peel/testnet/villain"
)

// Config says what network to run in this process. Its zero value is 5 authorities, 12 relays of which 4 are exits,
// and a client.
type Config struct {
	Size
	Period   time.Duration                  // from one consensus to the next, whole seconds; 0: 5 s. Longer where this machine is too slow for it (Anew)
	Voting   time.Duration                  // how much of it goes into making the next; 0: 1.2 s. Likewise
	Anew     func(directory.Schedule)       // is told when authorities could not agree in time, and all began anew with a slower schedule; it must not call Kill, Restore or Freeze. nil: nobody is
	Measure  bool                           // authorities measure relays, which takes much of a machine
	OneHop   bool                           // an exit may be the only relay of a circuit, so as to measure one
	Dir      string                         // keys and documents are kept here; "": nowhere
	Resolver exit.Resolver                  // of names that exits are asked for; nil: the system's
	Progress func(client.Progress)          // of the client's start
	Watch    Watch                          // what tests and instruments see; zero: nothing
	Plan     *plan.Plan                     // weather, events (Check says which) and villains; nil: nothing happens
	Late     bool                           // there is no weather until SetWeather asks for some: plain sockets till then, after which all connections are made anew; authorities have none between them
	Befell   func(time.Duration, string)    // is told, in a few words, what an event of the plan did to a node, and how long it was then since the client was ready. nil: nobody is
	Story    *story.Story                   // is told what happens while Run runs; nil: nobody is
	Log      func(node string) *slog.Logger // by nickname; nil: silent
}

const (
	defaultPeriod = 5 * time.Second // where it is too short for the machine, it grows (anew.go)
	defaultVoting = 1200 * time.Millisecond
	settling      = 300 * time.Millisecond // from the start of the nodes to the first voting, at least
)

// Watch is told what goes on in a network. Its functions are called by the goroutines of the nodes: they must not block, and
// must copy what they keep. Any may be nil. Nodes are named by nickname, the client "client".
type Watch struct {
	Cells   func(node string, in bool, cells []cell.Cell)      // cells on the links of a node, in clear
	Message func(node string, from netip.Addr, m cell.Message) // messages for a relay, and the address that the circuit came from
}

// tap is the wiretap of one node's links, and what holds them while it is frozen; g may be nil.
func (w *Watch) tap(node string, g *gate) func(bool, []cell.Cell) {
	switch {
	case w.Cells == nil && g == nil:
		return nil
	case w.Cells == nil:
		return func(bool, []cell.Cell) { g.pass() }
	}
	return func(in bool, cells []cell.Cell) {
		if g != nil {
			g.pass()
		}
		w.Cells(node, in, cells)
	}
}

// heard is what is told of one relay's messages.
func (w *Watch) heard(node string) func(net.Addr, cell.Message) {
	if w.Message == nil {
		return nil
	}
	return func(from net.Addr, m cell.Message) {
		w.Message(node, from.(*net.TCPAddr).AddrPort().Addr().Unmap(), m)
	}
}

// Net is a network in this process: made by New, alive while Run runs.
type Net struct {
	cfg         Config
	layout      *Layout
	client      *client.Client
	relays      []*node
	authorities []*node
	listeners   []net.Listener
	internet    *memnet.Net              // of weather; nil: there is none
	plain       plain                    // connections that no weather meets, where it may come late
	minds       map[string]*villain.Mind // of villains, by nickname
	whole       bool                     // each node has an address of its own
	agreed      chan struct{}            // closed when no node begins anew any more

	mu      sync.Mutex         // held while nodes are started anew
	network *directory.Network // that nodes are made with: its schedule may be another than the layout's
	ctx     context.Context    // Run's; nil: it has not been called
	failed  func(error)
}

// New makes the nodes and opens their listeners, so that every address is known. It starts nothing.
func New(cfg Config) (*Net, error) {
	if cfg.Size == (Size{}) {
		cfg.Size = Size{Authorities: 5, Relays: 12, Exits: 4}
	}
	if p := cfg.Plan; p != nil && p.Weather != plan.Calm && cfg.Period == 0 && cfg.Voting == 0 {
		cfg.Period, cfg.Voting = time.Duration(p.Period), time.Duration(p.Voting)
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
	n := &Net{cfg: cfg, agreed: make(chan struct{})}
	if err := n.plan(); err != nil {
		return nil, err
	}
	if err := n.make(); err != nil {
		n.unmake()
		return nil, err
	}
	return n, nil
}

// unmake has the nodes that were made give back what they took.
func (n *Net) unmake() {
	ctx, over := context.WithCancel(context.Background())
	over()
	for _, nd := range slices.Concat(n.authorities, n.relays) {
		nd.now.Run(ctx) // it is over at once
	}
	for _, l := range n.listeners {
		l.Close()
	}
}

// Ports are below those that systems give to connections, so that none has a node's while that is made anew.
const (
	firstPort = 10_000
	mostPorts = 20_000
	portTries = 50
)

// listen opens the listener of node i: on its own address, or, where there is only 127.0.0.1, on a port of its own.
func (n *Net) listen(i int) (netip.AddrPort, error) {
	a, err := Loopback(0)(i)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for range portTries {
		var l net.Listener
		l, err = net.Listen("tcp", netip.AddrPortFrom(a.Addr(), uint16(firstPort+rand.IntN(mostPorts))).String())
		if err == nil {
			n.listeners = append(n.listeners, l)
			return l.Addr().(*net.TCPAddr).AddrPort(), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("testnet: %w", err)
}

// ClientAddr is where the client of a network dials from, on machines that have the whole of 127.0.0.0/8.
var ClientAddr = netip.AddrFrom4([4]byte{127, 10, 0, 1})

// dialFrom dials from an address of its own, as a node on a machine of its own would.
func (n *Net) dialFrom(a netip.Addr) func(context.Context, string, string) (net.Conn, error) {
	var d net.Dialer
	if n.whole {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
	}
	if n.internet == nil {
		return d.DialContext
	}
	over := n.internet.Over(a, d.DialContext)
	if !n.cfg.Late {
		return over
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if !n.plain.over() {
			c, err := d.DialContext(ctx, network, addr)
			if err != nil || n.plain.add(c) {
				return c, err
			}
			c.Close() // the weather came meanwhile
		}
		return over(ctx, network, addr)
	}
}

func (n *Net) make() error {
	now := time.Now()
	settling := settling
	if n.cfg.Plan != nil {
		settling = max(settling, n.cfg.Plan.Settling())
	}
	start := now.Add(settling + n.cfg.Voting + time.Second).Truncate(time.Second)
	n.whole = HasLoopbackNet()
	var err error
	n.layout, err = Plan("local", n.cfg.Size, n.listen, start, n.cfg.Period, n.cfg.Voting, now)
	if err != nil {
		return err
	}
	n.network = n.layout.Network
	if err := n.layout.save(n.cfg.Dir); err != nil {
		return err
	}
	for i := range n.layout.Authorities {
		a := &n.layout.Authorities[i]
		nd, err := newNode(a.Nickname, a.Addr, n.listeners[i], func(l net.Listener, g *gate) (member, error) { return n.authority(a, l, g) })
		if err != nil {
			return err
		}
		n.authorities = append(n.authorities, nd)
	}
	for i := range n.layout.Relays {
		r := &n.layout.Relays[i]
		nd, err := newNode(r.Nickname, r.Addr, n.listeners[len(n.authorities)+i], func(l net.Listener, g *gate) (member, error) { return n.relay(r, l, g) })
		if err != nil {
			return err
		}
		n.relays = append(n.relays, nd)
	}
	if n.cfg.Dir != "" {
		cache.Sweep(n.cfg.Dir) // nobody else is there: the nodes have their folders
	}
	n.client, err = client.New(client.Config{
		Network: n.layout.Network, Progress: n.cfg.Progress, Tap: n.cfg.Watch.tap("client", nil), Log: n.cfg.Log("client"), Dial: n.dialFrom(ClientAddr),
		Events: n.events(),
	})
	n.introduce()
	n.tellPlan()
	return err
}
