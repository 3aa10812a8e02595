package testnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"peel/cell/contain"
	"peel/client"
	"peel/directory"
	"peel/directory/authority"
	"peel/relay"
	"peel/testnet/villain"
)

// authority makes the node of one authority.
func (n *Net) authority(a *Authority, l net.Listener, g *gate) (member, error) {
	cfg := relay.Config{
		Network: n.network, Keys: relay.Keys{Link: a.Link}, Listeners: []net.Listener{l},
		Dial: n.dialFrom(a.Addr.Addr()), Tap: n.cfg.Watch.tap(a.Nickname, g), Log: n.cfg.Log(a.Nickname),
	}
	dir, err := n.folder(a.Nickname)
	if err != nil {
		return nil, err
	}
	cfg.Measure, cfg.Villain = n.cfg.Measure, n.villain(a.Nickname)
	return relay.NewAuthority(cfg, authority.Config{
		Certificate: a.Certificate, SigningKey: a.Signing, Dir: dir, PrivateAddrs: true, Params: n.layout.Params(),
	})
}

// relay makes the node of one relay.
func (n *Net) relay(r *Relay, l net.Listener, g *gate) (member, error) {
	cfg := relay.Config{
		Network: n.network, Keys: r.Keys, Listeners: []net.Listener{l}, Nickname: r.Nickname,
		Dial: n.dialFrom(r.Addr.Addr()), Tap: n.cfg.Watch.tap(r.Nickname, g), Heard: n.cfg.Watch.heard(r.Nickname),
		Log: n.cfg.Log(r.Nickname),
	}
	dir, err := n.folder(r.Nickname)
	if err != nil {
		return nil, err
	}
	cfg.Dir, cfg.Villain = dir, n.villain(r.Nickname)
	cfg.Bandwidth = villain.Offer(n.script(r.Nickname), cfg.Bandwidth)
	if r.Exit {
		p, err := directory.ParsePolicy(ExitPolicy)
		if err != nil {
			return nil, fmt.Errorf("testnet: %w", err)
		}
		cfg.Exit, cfg.Resolver, cfg.OneHop = p, n.cfg.Resolver, n.cfg.OneHop
	}
	return relay.New(cfg)
}

// folder makes a node's folder below Dir; "": nothing is kept.
func (n *Net) folder(name string) (string, error) {
	if n.cfg.Dir == "" {
		return "", nil
	}
	dir := filepath.Join(n.cfg.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("testnet: %w", err)
	}
	return dir, nil
}

// member is a relay.Relay or a relay.Authority.
type member interface {
	Run(context.Context) error
	Stats() *relay.Stats
}

// node is a place for a relay or an authority, which may be killed and made anew.
type node struct {
	name string
	addr netip.AddrPort
	make func(net.Listener, *gate) (member, error)
	gate gate

	mu   sync.Mutex
	now  member             // the newest
	stop context.CancelFunc // nil: it was never started
	done chan struct{}      // closed when it has ended

	ending bool // it was told to end
}

func newNode(name string, addr netip.AddrPort, l net.Listener, make func(net.Listener, *gate) (member, error)) (*node, error) {
	nd := &node{name: name, addr: addr, make: make}
	var err error
	nd.now, err = make(l, &nd.gate)
	return nd, err
}

// member is the newest.
func (nd *node) member() member {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	return nd.now
}

// running says whether the node was started and has not ended.
func (nd *node) running() bool {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	return nd.runs()
}

// runs is running for who holds mu.
func (nd *node) runs() bool {
	if nd.stop == nil {
		return false
	}
	select {
	case <-nd.done:
		return false
	default:
		return true
	}
}

// start runs the node until ctx ends or it is killed.
func (nd *node) start(ctx context.Context, failed func(error)) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	ctx, nd.stop = context.WithCancel(ctx)
	done := make(chan struct{})
	nd.done, nd.ending = done, false
	m := nd.now
	contain.Go(func(p *contain.Panic) { failed(fmt.Errorf("testnet: %s: %w", nd.name, p)) }, func() {
		defer close(done)
		if err := m.Run(ctx); err != nil && ctx.Err() == nil {
			failed(fmt.Errorf("testnet: %s: %w", nd.name, err))
		}
	})
}

// kill ends the node and waits until it is gone.
func (nd *node) kill() {
	if done := nd.end(); done != nil {
		<-done
	}
}

// end has the node end, and cannot be frozen any more; it has ended when done is closed, nil: it was never started.
func (nd *node) end() (done <-chan struct{}) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	nd.ending = true
	nd.gate.open()
	if nd.stop != nil {
		nd.stop()
	}
	return nd.done
}

// freeze shuts the gate of a node that runs.
func (nd *node) freeze() error {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	if nd.ending || !nd.runs() {
		return fmt.Errorf("testnet: %s is down: only what runs can be frozen", nd.name)
	}
	nd.gate.close()
	return nil
}

// restart makes a node that has ended anew, with the keys, address and folder it had, and runs it.
func (nd *node) restart(ctx context.Context, failed func(error)) error {
	nd.mu.Lock()
	if nd.runs() {
		nd.mu.Unlock()
		return fmt.Errorf("testnet: %s runs already", nd.name)
	}
	l, err := net.Listen("tcp", nd.addr.String())
	if err != nil {
		nd.mu.Unlock()
		return fmt.Errorf("testnet: %s: %w", nd.name, err)
	}
	m, err := nd.make(l, &nd.gate)
	if err != nil {
		l.Close()
		nd.mu.Unlock()
		return err
	}
	nd.now = m
	nd.mu.Unlock()
	nd.start(ctx, failed)
	return nil
}

// gate holds up all cells of a node while it is shut.
type gate struct{ shut atomic.Pointer[chan struct{}] }

// pass waits while the gate is shut.
func (g *gate) pass() {
	for c := g.shut.Load(); c != nil; c = g.shut.Load() {
		<-*c
	}
}

// close shuts the gate.
func (g *gate) close() {
	c := make(chan struct{})
	g.shut.CompareAndSwap(nil, &c)
}

func (g *gate) open() {
	if c := g.shut.Swap(nil); c != nil {
		close(*c)
	}
}

// Run runs the network until ctx ends or a node fails, and returns when the last goroutine of it is gone. A network runs once: a second call
// is an error, and harms nothing.
func (n *Net) Run(outer context.Context) error {
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)
	// The nodes end when the story has: how they are taken down is no part of it.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	failed := func(err error) { cancel(err) }
	nodes := n.nodes()
	n.mu.Lock()
	if n.ctx != nil {
		n.mu.Unlock()
		return errors.New("testnet: Run was called before: make another network")
	}
	n.ctx, n.failed = running, failed
	for _, nd := range nodes {
		nd.start(running, failed)
	}
	n.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.client.Run(running); err != nil && running.Err() == nil {
			failed(fmt.Errorf("testnet: client: %w", err))
		}
	})
	var befalling sync.WaitGroup
	befalling.Go(func() { n.befall(ctx) })
	befalling.Go(func() { n.agree(ctx) })
	n.follow(ctx)
	befalling.Wait()
	n.mu.Lock() // whoever starts a node anew has done so, or sees that it is too late
	defer n.mu.Unlock()
	stop()
	for _, nd := range nodes {
		nd.end() // all at once
	}
	for _, nd := range nodes {
		nd.kill()
	}
	wg.Wait()
	if n.internet != nil {
		n.internet.Close()
		n.internet.Wait()
	}
	if outer.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// nodes are all but the client.
func (n *Net) nodes() []*node { return slices.Concat(n.authorities, n.relays) }

// Client is the network's client.
func (n *Net) Client() *client.Client { return n.client }

// Layout is what the network is made of.
func (n *Net) Layout() *Layout { return n.layout }

// node is the relay or authority with a nickname.
func (n *Net) node(nickname string) (*node, error) {
	for _, nd := range n.nodes() {
		if nd.name == nickname {
			return nd, nil
		}
	}
	return nil, fmt.Errorf("testnet: no relay or authority is called %q", nickname)
}

// Kill ends the relay or authority with the nickname given at once, as if its process had been killed: its connections break, and
// it says no word on them before. One that is down already is left so.
func (n *Net) Kill(nickname string) error {
	nd, err := n.node(nickname)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.runs() {
		return fmt.Errorf("testnet: %s cannot be killed: the network does not run", nickname)
	}
	nd.kill()
	return nil
}

// runs says whether nodes may be started. The caller holds mu.
func (n *Net) runs() bool { return n.ctx != nil && n.ctx.Err() == nil }

// Freeze stops the links of a relay or authority, as if its process had been stopped: its connections stay, and nothing moves on
// them until it is restored or killed.
func (n *Net) Freeze(nickname string) error {
	nd, err := n.node(nickname)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return nd.freeze()
}

// Restore has a node that was killed or frozen work again. One that was killed begins anew, with the keys and the folder that it had.
func (n *Net) Restore(nickname string) error {
	nd, err := n.node(nickname)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	nd.gate.open()
	switch {
	case nd.running():
		return nil
	case n.cfg.Dir == "" && slices.Contains(n.authorities, nd):
		return fmt.Errorf("testnet: %s cannot be started: an authority without a folder has forgotten how it voted, and would vote twice", nickname)
	case !n.runs():
		return fmt.Errorf("testnet: %s cannot be started: the network does not run", nickname)
	}
	return nd.restart(n.ctx, n.failed)
}
