package lab

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"peel/cell"
	"peel/cell/link"
	"peel/directory"
	"peel/directory/authority"
	"peel/relay"
	"peel/testnet/plan"
	"peel/testnet/story"
	"peel/testnet/villain"
)

// node is an authority or a relay of the plan.
type node struct {
	lab         *Lab
	name, role  string
	exit        bool
	addr        netip.Addr
	port        uint16
	id          cell.NodeID
	keys        relay.Keys
	signing     ed25519.PrivateKey
	certificate directory.Certificate
	family      []cell.NodeID
	script      string // what it does from its start on
	mind        *villain.Mind
	host        host

	program *program // nil: it is in this process

	mu   sync.Mutex
	live *life  // nil: not running
	past counts // of lives that are over
	born int    // how often it was started

	shown [2]*directory.Consensus // that look saw last, of each face; guarded by the lab's looking, as is
	seen  int                     // which of its lives that was
}

// life is a node from one start to its end.
type life struct {
	relays      []*relay.Relay     // two, where an authority has two faces
	authorities []*relay.Authority // or these
	cancel      context.CancelFunc
	killed      atomic.Bool // its ground was cut
	done        chan struct{}
}

// counts are what a node counted.
type counts struct {
	breaches, panics, faults, cells uint64 // faults are of links, by the other end
	deeds                           uint64 // of a villain that is a process
	again                           uint64 // of a client that is a process
}

func (l *life) stats() []*relay.Stats {
	var all []*relay.Stats
	for _, r := range l.relays {
		all = append(all, r.Stats())
	}
	for _, a := range l.authorities {
		all = append(all, a.Stats())
	}
	return all
}

// links counts the links that ended by the other end's fault.
func (l *life) links() (faults uint64) {
	var all []link.Stats
	for _, r := range l.relays {
		all = append(all, r.LinkStats())
	}
	for _, a := range l.authorities {
		all = append(all, a.LinkStats())
	}
	for _, s := range all {
		for r := link.ReasonRecord; r <= link.ReasonFlood; r++ {
			faults += s.Errors[r]
		}
	}
	return faults
}

// counted is what the node counted in all its lives.
func (n *node) counted() counts {
	if n.program != nil {
		_, all := n.program.known()
		return all
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.past
	if n.live != nil {
		c.add(n.live)
	}
	return c
}

func (c *counts) add(l *life) {
	for _, s := range l.stats() {
		c.breaches += s.Breaches.Load()
		c.panics += s.Panics.Load()
		c.cells += s.Cells.Load()
	}
	c.faults += l.links()
}

// consensus is the newest that the node has, each of its faces; none, where it does not run. life is which of its lives that is, where the
// next may begin with an older one.
func (n *node) consensus() (all []*directory.Consensus, life int) {
	if n.program != nil {
		c, life := n.program.list()
		if c != nil {
			all = append(all, c)
		}
		return all, life
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.live == nil {
		return nil, n.born
	}
	for _, r := range n.live.relays {
		if c := r.Consensus(); c != nil {
			all = append(all, c)
		}
	}
	for _, a := range n.live.authorities {
		if c := a.Consensus(); c != nil {
			all = append(all, c)
		}
	}
	return all, n.born
}

// status is what an authority knows; nil: it does not run.
func (n *node) status() *authority.Status {
	if n.program != nil {
		seen, _ := n.program.known()
		return seen.status
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.live == nil || len(n.live.authorities) == 0 {
		return nil
	}
	s := n.live.authorities[0].Status()
	return &s
}

// start starts the node, which must not run.
func (n *node) start() error {
	if n.lab.cfg.Processes != nil {
		return n.startProgram()
	}
	listener, err := n.lab.ground.Listen(netip.AddrPortFrom(n.addr, n.port))
	if err != nil {
		return fmt.Errorf("lab: %s: %w", n.name, err)
	}
	ls := []net.Listener{listener}
	twins := n.role == roleAuthority && n.script == equivocate
	if twins {
		ls = n.lab.split(listener)
	}
	live := &life{done: make(chan struct{})}
	var runs []func(context.Context) error
	for i, l := range ls {
		run, err := n.make(live, l, i)
		if err != nil {
			listener.Close()
			return fmt.Errorf("lab: %s: %w", n.name, err)
		}
		runs = append(runs, run)
	}
	ctx, cancel := context.WithCancel(context.Background())
	live.cancel = cancel
	n.mu.Lock()
	n.live = live
	n.born++
	n.mu.Unlock()
	n.lab.running.Go(func() {
		defer close(live.done)
		var wg sync.WaitGroup
		for _, run := range runs {
			wg.Go(func() {
				if err := run(ctx); err != nil && ctx.Err() == nil && !live.killed.Load() {
					n.lab.endedByItself("%s: %v", n.name, err)
				}
			})
		}
		wg.Wait()
		listener.Close()
	})
	n.lab.story.State(n.name, story.Up)
	return nil
}

// make makes the relay or the authority; face is 1 for an authority's second face.
func (n *node) make(live *life, l net.Listener, face int) (func(context.Context) error, error) {
	cfg := relay.Config{
		Network: n.lab.network, Keys: n.keys, Listeners: []net.Listener{l}, Dial: n.lab.dialer(n.addr), Log: n.lab.log(n.name),
		Now: n.host.now, Write: n.host.write, Chance: n.lab.luck(n.name, n.born),
		Villain: &relay.Villain{Cells: n.mind.Cells, Directory: n.mind.Directory, Observed: n.mind.Claim},
	}
	name := n.name
	if face == 1 { // which is another authority, and would overwrite what the first keeps
		name += "-" + equivocate
	}
	dir, err := n.lab.folder(name)
	if err != nil {
		return nil, err
	}
	if n.role == roleAuthority {
		ac := authority.Config{
			Certificate: n.certificate, SigningKey: n.signing, Identity: n.keys.Identity, Dir: dir, PrivateAddrs: true, Params: n.params(face),
			Secret: n.secrets(),
		}
		cfg.Keys, cfg.Measure = relay.Keys{Link: n.keys.Link}, n.lab.plan.Measure
		a, err := relay.NewAuthority(cfg, ac)
		if err != nil {
			return nil, err
		}
		live.authorities = append(live.authorities, a)
		return a.Run, nil
	}
	if dir != "" {
		if cfg.Keys, err = n.keptKeys(dir); err != nil {
			return nil, err
		}
		cfg.KeyDir = dir
	}
	cfg.Nickname, cfg.Family, cfg.Dir, cfg.Bandwidth = n.name, n.family, dir, villain.Offer(n.mind.Script(), uint64(n.lab.bandwidth(n.name)))
	if n.exit {
		if cfg.Exit, err = directory.ParsePolicy(n.lab.exitPolicy()); err != nil {
			return nil, err
		}
		cfg.Connect, cfg.Resolver = n.lab.dialer(n.addr), noNames{}
	}
	r, err := relay.New(cfg)
	if err != nil {
		return nil, err
	}
	live.relays = append(live.relays, r)
	return r.Run, nil
}

// params are what authorities vote for.
func (l *Lab) params() directory.Params {
	p := directory.Params{}
	if l.plan.Relays.Count > 250 { // machines share the /16 networks
		p[directory.ParamDistinctSubnets.Name] = 0
	}
	return p
}

// params are what an authority votes for, or one of its faces. Where one has two, or the network is divided, each wants something else, so that
// other votes make another list.
func (n *node) params(face int) directory.Params {
	p := n.lab.params()
	if !slices.ContainsFunc(n.lab.plan.Villains, func(v plan.Villain) bool { return v.Script == equivocate }) &&
		!slices.ContainsFunc(n.lab.plan.Events, func(e plan.Event) bool { return e.Do == plan.Part }) {
		return p
	}
	perAddr := directory.ParamRelaysPerAddr
	p[perAddr.Name] = perAddr.Default + int32(slices.Index(n.lab.nodes, n))
	if face == 1 {
		p[perAddr.Name] = perAddr.Max
	}
	return p
}

// equivocate is the script of an authority with two faces, each of which is an authority of its own.
const equivocate = "equivocate"

// secrets are an authority's for the shared random value.
func (n *node) secrets() func() [32]byte {
	luck := n.lab.luck(n.name+"'s secrets", n.born)
	return func() (b [32]byte) {
		for i := range 4 {
			binary.BigEndian.PutUint64(b[8*i:], luck.Uint64())
		}
		return b
	}
}

// keptKeys are the keys of a relay's folder; at its first start they are put there.
func (n *node) keptKeys(dir string) (relay.Keys, error) {
	if n.born == 0 {
		return n.keys, n.keys.Save(dir)
	}
	k, err := relay.LoadKeys(dir)
	if err == nil && k.ID() != n.id {
		n.lab.broken("a node stays who it is", "%s became %v", n.name, k.ID())
	}
	return k, err
}

// stop ends the node and waits until it is gone; at once: it says no word to anybody before.
func (n *node) stop(atOnce bool) {
	if n.program != nil {
		n.stopProgram(atOnce)
		return
	}
	n.mu.Lock()
	live := n.live
	n.mu.Unlock()
	if live == nil {
		return
	}
	if atOnce {
		live.killed.Store(true) // the listener fails for good by it
		n.lab.ground.Cut(n.addr)
	}
	live.cancel()
	<-live.done
	n.mu.Lock()
	n.past.add(live)
	n.live = nil
	n.mu.Unlock()
	n.lab.story.State(n.name, story.Down)
	n.lab.story.Unlink(n.name)
}

// part is one of two that share a listener.
type part struct {
	net.Listener
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (p *part) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *part) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// split deals the connections of a listener out to two, by the machine that they come from, until it is closed.
func (l *Lab) split(whole net.Listener) []net.Listener {
	two := make([]net.Listener, 2)
	parts := make([]*part, 2)
	for i := range parts {
		parts[i] = &part{Listener: whole, conns: make(chan net.Conn), closed: make(chan struct{})}
		two[i] = parts[i]
	}
	l.running.Go(func() {
		for {
			c, err := whole.Accept()
			if err != nil {
				return
			}
			from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().As4()
			p := parts[from[1]&1]
			select {
			case p.conns <- c:
			case <-p.closed:
				c.Close()
			}
		}
	})
	return two
}
