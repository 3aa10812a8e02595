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
)

// PoolConfig is what a pool is told. Link and Dial are needed.
type PoolConfig struct {
	Link    Config
	Dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	Handler Handler       // of the circuits that peers open; nil: they may open none
	Idle    time.Duration // a link without circuits is closed after this; 0: never
}

// dialTimeout bounds the connection and handshake to one node, all of its addresses together.
const dialTimeout = 15 * time.Second

// Pool keeps the links of a node: at most one that it dialled to each peer at a time, and all that it accepted. It runs Serve
// of each and waits for them in Close.
type Pool struct {
	cfg    PoolConfig
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[*Conn]struct{}
	peers  map[cell.NodeID]*pooled
}

// pooled is the link to one peer, or the attempt to make one.
type pooled struct {
	ready chan struct{} // closed when conn or err is set
	conn  *Conn
	err   error
}

// ErrPoolClosed is what Get says after Close.
var ErrPoolClosed = errors.New("link: the pool is closed")

// NewPool makes a pool. It starts nothing.
func NewPool(cfg PoolConfig) *Pool {
	p := &Pool{cfg: cfg, conns: make(map[*Conn]struct{}), peers: make(map[cell.NodeID]*pooled)}
	p.cfg.Link.Idle = cfg.Idle
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Get returns the link to a peer, dialling it if there is none; calls at the same time share one attempt.
func (p *Pool) Get(ctx context.Context, peer Peer) (*Conn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, ErrPoolClosed
	}
	e := p.peers[peer.ID]
	if e != nil && e.conn != nil && !e.conn.hold() {
		e = nil
	}
	if e == nil {
		e = &pooled{ready: make(chan struct{})}
		p.peers[peer.ID] = e
		p.wg.Go(func() { p.dial(e, peer) })
	}
	p.mu.Unlock()
	select {
	case <-e.ready:
		return e.conn, e.err
	case <-ctx.Done():
		return nil, fmt.Errorf("link: waiting for a link to %v: %w", peer.ID, ctx.Err())
	}
}

// dial makes a link and serves it.
func (p *Pool) dial(e *pooled, peer Peer) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	conn, err := p.try(ctx, peer)
	cancel()
	p.mu.Lock()
	if err == nil && p.closed {
		conn.Close()
		err = ErrPoolClosed
	}
	if err != nil {
		e.err = err
		if p.peers[peer.ID] == e {
			delete(p.peers, peer.ID)
		}
		p.mu.Unlock()
		close(e.ready)
		return
	}
	e.conn = conn
	p.conns[conn] = struct{}{}
	p.mu.Unlock()
	close(e.ready)
	p.serve(conn)
}

// try dials the peer's addresses in turn.
func (p *Pool) try(ctx context.Context, peer Peer) (*Conn, error) {
	var errs []error
	for _, a := range peer.Addrs {
		nc, err := p.cfg.Dial(ctx, "tcp", a.String())
		if err == nil {
			var conn *Conn
			if conn, err = Dial(ctx, nc, &p.cfg.Link, peer); err == nil {
				return conn, nil
			}
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("link: no address of %v is known", peer.ID)
	}
	return nil, fmt.Errorf("link: cannot reach %v: %w", peer.ID, errors.Join(errs...))
}

// Add serves a link that was accepted, and uses it for Get if it says who the peer is and there is no other. After Close it
// closes the link.
func (p *Pool) Add(conn *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		conn.Close()
		return
	}
	p.conns[conn] = struct{}{}
	if id, ok := conn.PeerID(); ok && p.peers[id] == nil {
		e := &pooled{ready: make(chan struct{}), conn: conn}
		close(e.ready)
		p.peers[id] = e
	}
	p.wg.Go(func() { p.serve(conn) })
}

// serve works a link to its end and forgets it.
func (p *Pool) serve(conn *Conn) {
	err := conn.Serve(p.cfg.Handler)
	if p.cfg.Link.Log != nil {
		p.cfg.Link.Log.Debug("link over", "why", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	if id, ok := conn.PeerID(); ok && p.peers[id] != nil && p.peers[id].conn == conn {
		delete(p.peers, id)
	}
}

// Links is how many links there are.
func (p *Pool) Links() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Close ends every link and every attempt to make one, and waits for them.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	conns := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	p.cancel()
	for _, c := range conns {
		c.Close()
	}
	p.wg.Wait()
}

// hold keeps a link that is about to be used from being closed as idle; false: it is over.
func (c *Conn) hold() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.empty = time.Now()
	return c.err == nil
}
