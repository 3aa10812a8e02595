// Package client is the network as an application sees it: DialContext reaches any TCP service through three relays.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/circuit"
	"peel/circuit/stream"
	"peel/client/path"
	"peel/directory"
	"peel/directory/cache"
)

// Config is what a client is told. Network is needed; the rest has defaults.
type Config struct {
	Network *directory.Network
	Dir     string // folder for the consensus, so that the next start is quicker; "": nothing is written
	Spare   int    // circuits kept ready; 0: 3

	Dial     func(ctx context.Context, network, addr string) (net.Conn, error) // to the first relay; nil: net.Dialer
	Progress func(Progress)                                                    // how the start goes on; called from Run's goroutines, must not block
	Tap      func(in bool, cells []cell.Cell)                                  // for tests and instruments (link.Config)
	Log      *slog.Logger                                                      // nil: silent
}

// Client is made by New and works while Run runs. Its methods may be called at any time from any goroutine.
type Client struct {
	*core
	token any // streams of different tokens never share a circuit
}

// core is what the isolated views of a client share.
type core struct {
	cfg     Config
	network cell.NetworkID
	log     *slog.Logger
	cache   *cache.Cache
	pool    *pool
	boot    bootstrap

	mu    sync.Mutex
	links *link.Pool // nil until Run
}

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Client, error) {
	if cfg.Network == nil {
		return nil, errors.New("client: no network given: a client needs the network file")
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Spare == 0 {
		cfg.Spare = 3
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &core{cfg: cfg, network: cfg.Network.ID(), log: cfg.Log}
	var err error
	if c.cache, err = cache.New(cache.Config{Network: cfg.Network, Dir: cfg.Dir}); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c.boot.init(cfg.Progress)
	c.pool = newPool(c)
	return &Client{core: c}, nil
}

// Isolated returns a view of the client whose streams share no circuit with those of any other token. Tokens are
// compared with ==; views of equal tokens are alike.
func (c *Client) Isolated(token any) *Client { return &Client{core: c.core, token: token} }

// Run keeps a consensus and a few circuits ready until ctx ends; it returns when the last goroutine of the client is gone.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	links := link.NewPool(link.PoolConfig{
		Link: link.Config{Network: c.network, Tap: c.cfg.Tap, Log: c.log}, Dial: c.cfg.Dial, Idle: idleLink,
	})
	c.mu.Lock()
	if c.links != nil {
		c.mu.Unlock()
		return errors.New("client: Run called twice")
	}
	c.links = links
	c.mu.Unlock()

	var wg sync.WaitGroup
	wg.Go(func() { c.followDirectory(ctx) })
	wg.Go(func() { c.pool.run(ctx) })
	<-ctx.Done()
	links.Close()
	wg.Wait()
	return nil
}

const (
	idleLink     = 3 * time.Minute
	dialAttempts = 3 // circuits tried for one stream
)

// ErrNotRunning is what DialContext says when Run has not been called.
var ErrNotRunning = errors.New("client: not running: call Run first")

// DialContext connects to addr, "host:port", through the network. A host that is a name is resolved at the far end only.
// network must be "tcp", "tcp4" or "tcp6". It waits for the client to be ready. Errors of the far end are *stream.EndError.
func (c *Client) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	flags, err := networkFlags(network)
	if err != nil {
		return nil, err
	}
	host, port, err := splitTarget(addr)
	if err != nil {
		return nil, err
	}
	usage := path.Usage{Port: port}
	if a, err := netip.ParseAddr(host); err == nil {
		usage.Addr = a.Unmap()
		host = usage.Addr.String()
	}
	var last error
	for range dialAttempts {
		h, err := c.pool.get(ctx, usage, c.token)
		if err != nil {
			return nil, errors.Join(err, last)
		}
		s, err := h.circuit.Dial(ctx, cell.Begin{Host: host, Port: port, Flags: flags})
		if err == nil {
			return &Conn{s, h.path}, nil
		}
		if ctx.Err() != nil || !again(err) {
			return nil, fmt.Errorf("client: %w", err)
		}
		last = err
		c.pool.discard(h)
	}
	return nil, fmt.Errorf("client: %d circuits failed: %w", dialAttempts, last)
}

// Conn is a connection through the network.
type Conn struct {
	*stream.Stream
	Path path.Path // the relays it goes through, the first one first
}

// PathOf is the way that a connection from DialContext takes; nil: it is from elsewhere.
func PathOf(c net.Conn) path.Path {
	if c, ok := c.(*Conn); ok {
		return c.Path
	}
	return nil
}

// again says whether another circuit may do better: no byte of the application has been sent yet.
func again(err error) bool {
	var end *stream.EndError
	if !errors.As(err, &end) {
		return true // the circuit failed, not the stream
	}
	switch end.Reason {
	case cell.EndBusy, cell.EndInternal, cell.EndMisc:
		return true
	}
	return false
}

func networkFlags(network string) (cell.BeginFlags, error) {
	switch network {
	case "tcp":
		return 0, nil
	case "tcp4":
		return cell.NoIPv6, nil
	case "tcp6":
		return cell.NoIPv4, nil
	}
	return 0, fmt.Errorf("client: network %q: only tcp, tcp4 and tcp6 go through the network", network)
}

func splitTarget(addr string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("client: target: %w", err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("client: target port %q: must be a number from 1 to 65535", p)
	}
	if host == "" || len(host) > 255 || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", 0, errors.New("client: target host: must be 1 to 255 printable ASCII characters without spaces")
	}
	return host, uint16(n), nil
}

// CircuitInfo describes one open circuit.
type CircuitInfo struct {
	Path    path.Path
	Streams int
	Age     time.Duration
	Used    bool // a stream has been put on it
}

// Circuits lists the circuits that are open now.
func (c *Client) Circuits() []CircuitInfo { return c.pool.list() }

// Consensus is the directory in use, nil before there is one.
func (c *Client) Consensus() *directory.Consensus {
	if x := c.pool.index.Load(); x != nil {
		return x.Consensus()
	}
	return nil
}

// build makes a circuit along p.
func (c *core) build(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
	c.mu.Lock()
	links := c.links
	c.mu.Unlock()
	if links == nil {
		return nil, ErrNotRunning
	}
	hops := make([]circuit.Hop, len(p))
	for i, e := range p {
		hops[i] = circuit.Hop{ID: e.ID, LinkKey: e.LinkKey, OnionKey: e.OnionKey, Addrs: e.Addrs}
	}
	conn, err := links.Get(ctx, link.Peer{ID: hops[0].ID, Key: hops[0].LinkKey, Addrs: hops[0].Addrs})
	if err != nil {
		return nil, &circuit.BuildError{Hop: 0, Err: err}
	}
	return circuit.Build(ctx, conn, circuit.Config{Network: c.network, Log: c.log}, hops)
}
