package link

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"peel/cell"
	"peel/cell/contain"
)

const (
	attemptTimeout = 10 * time.Second // to connect to one address, handshake included
	defaultIdle    = 3 * time.Minute
)

// PoolConfig is what a Pool is made of. Its zero value dials by TCP as a client of network zero.
type PoolConfig struct {
	Link    Config
	Dial    func(ctx context.Context, network, addr string) (net.Conn, error) // nil: a net.Dialer's
	Handler Handler                                                           // takes the circuits that peers open; nil: they may open none
	Idle    time.Duration                                                     // a link without circuits is closed after this; 0: 3 minutes

	// Dialed is told of each link that was dialled, before anybody uses it; it must not block. nil: nobody is.
	Dialed func(Peer, *Conn)
	// Ended is told of each link that has ended, after its circuits; nil: nobody is.
	Ended func(*Conn)
}

// A Pool keeps the links of a node: one to each peer it dials, and those it accepted. It runs Serve of each, and closes
// those that carry nothing. Its methods may be called by any goroutine.
type Pool struct {
	cfg    PoolConfig
	ctx    context.Context // ends at Close
	cancel context.CancelFunc
	wg     contain.Group

	mu    sync.Mutex
	conns map[*Conn]struct{} // all that are served
	nodes map[cell.NodeID]*attempt
	ended Stats // of links that are gone
}

// An attempt is the link that Get returns for a node with this link key, there or being dialled.
type attempt struct {
	key  cell.Key
	done chan struct{} // closed when conn or err is set
	conn *Conn
	err  error
}

// NewPool makes a pool. It starts nothing.
func NewPool(cfg PoolConfig) *Pool {
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	cfg.Link = cfg.Link.withDefaults()
	p := &Pool{cfg: cfg, conns: make(map[*Conn]struct{}), nodes: make(map[cell.NodeID]*attempt)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Get returns a link to peer: one that is there, dialled or accepted, or a new one, for which it tries the peer's
// addresses in order. One under another link key than the peer's is left to the circuits on it: who holds an old key need not be the
// peer. Calls for one peer at the same time share one attempt, which goes on when a caller's ctx ends.
// The link stays at least Idle, unless it breaks: a circuit opened on it at once finds it open or is told ErrClosed.
func (p *Pool) Get(ctx context.Context, peer Peer) (*Conn, error) {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	a := p.nodes[peer.ID]
	if a == nil || a.key != peer.Key || a.conn != nil && !a.conn.touch() {
		a = &attempt{key: peer.Key, done: make(chan struct{})}
		p.nodes[peer.ID] = a
		p.wg.Go(p.bug, func() { p.dial(a, peer) })
	}
	p.mu.Unlock()
	select {
	case <-a.done:
		return a.conn, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("link: no link to %v yet: %w", peer.ID, context.Cause(ctx))
	}
}

func (p *Pool) bug(b *contain.Panic) { p.cfg.Link.panicked(b) }

// errNeither names the setting as client.Config and relay.Config have it as well.
var errNeither = errors.New("link: Config.Dial returned neither a connection nor an error: mend that function")

// touch puts off the end of an idle link; false: it has ended.
func (c *Conn) touch() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unused = time.Now()
	return c.err == nil
}

// dial makes the attempt, and then serves the link.
func (p *Pool) dial(a *attempt, peer Peer) {
	var c *Conn
	var err error
	if bug := contain.Do(func() { c, err = p.try(peer) }); bug != nil {
		p.bug(bug)
		c, err = nil, fault(ReasonBug, "%w", bug)
	}
	p.mu.Lock()
	if err == nil && p.ctx.Err() != nil {
		c.Close()
		err = ErrClosed
	}
	if err != nil {
		if p.nodes[peer.ID] == a {
			delete(p.nodes, peer.ID)
		}
		a.err = err
		p.mu.Unlock()
		close(a.done)
		return
	}
	p.keep(c)
	a.conn = c
	p.mu.Unlock()
	if p.cfg.Dialed != nil {
		if bug := contain.Do(func() { p.cfg.Dialed(peer, c) }); bug != nil {
			c.bug(bug)
			c.Close()
		}
	}
	close(a.done)
	p.serve(c)
}

// try dials one address after the other.
func (p *Pool) try(peer Peer) (*Conn, error) {
	var errs []error
	for _, addr := range peer.Addrs {
		c, err := p.tryAddr(peer, addr.String())
		if err == nil {
			return c, nil
		}
		errs = append(errs, fmt.Errorf("%v: %w", addr, err))
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("link: no address of %v is known", peer.ID)
	}
	return nil, fmt.Errorf("link: cannot reach %v: %w", peer.ID, errors.Join(errs...))
}

func (p *Pool) tryAddr(peer Peer, addr string) (*Conn, error) {
	ctx, cancel := context.WithTimeout(p.ctx, attemptTimeout)
	defer cancel()
	nc, err := p.cfg.Dial(ctx, "tcp", addr)
	if err == nil && nc == nil {
		err = errNeither
	}
	if err != nil {
		return nil, err
	}
	c, err := Dial(ctx, nc, &p.cfg.Link, peer)
	if err != nil {
		p.mu.Lock()
		p.ended.Errors[ReasonHandshake]++
		p.mu.Unlock()
	}
	return c, err
}

// Add serves c, a link that was accepted, until it ends. If the peer has a name and there is no link to it, Get returns
// this one. After Close it closes c.
func (p *Pool) Add(c *Conn) {
	p.mu.Lock()
	if p.ctx.Err() != nil {
		p.mu.Unlock()
		c.Close()
		return
	}
	defer p.mu.Unlock()
	p.keep(c)
	if id, ok := c.PeerID(); ok && p.nodes[id] == nil {
		a := &attempt{key: c.peerKey, done: make(chan struct{}), conn: c}
		close(a.done)
		p.nodes[id] = a
	}
	p.wg.Go(p.bug, func() { p.serve(c) })
}

// keep lists a link that is about to be served. The caller holds mu.
func (p *Pool) keep(c *Conn) {
	c.closeIdle(p.cfg.Idle)
	p.conns[c] = struct{}{}
}

// closeIdle lets the link end when it has carried no circuit for so long.
func (c *Conn) closeIdle(after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idleAfter = after
}

// serve runs a link to its end and forgets it.
func (p *Pool) serve(c *Conn) {
	c.Serve(p.cfg.Handler) // why it ended is in its log and counted
	if p.cfg.Ended != nil {
		p.cfg.Ended(c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	if id, ok := c.PeerID(); ok && p.nodes[id] != nil && p.nodes[id].conn == c {
		delete(p.nodes, id)
	}
	p.ended.Add(c.Stats())
}

// Links is how many links are served now.
func (p *Pool) Links() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Kinds are how many links there are of each kind.
type Kinds struct {
	Dialed  int // by us
	Nodes   int // dialled by a peer that has a name
	Clients int // dialled by one that has none
}

// Kinds counts the links that are served now.
func (p *Pool) Kinds() (k Kinds) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		switch {
		case c.dialer:
			k.Dialed++
		case c.named:
			k.Nodes++
		default:
			k.Clients++
		}
	}
	return k
}

// Stats is what went over all links of the pool, those that are gone included. Links that failed to be accepted are not
// its business.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.ended
	for c := range p.conns {
		s.Add(c.Stats())
	}
	return s
}

// Budget says how the pool's budget is used; zero if it has none.
func (p *Pool) Budget() BudgetStats { return p.cfg.Link.Budget.Stats() }

// Close ends all links and attempts, and returns when their goroutines are gone.
func (p *Pool) Close() {
	p.mu.Lock()
	p.cancel()
	conns := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	p.wg.Wait()
}
