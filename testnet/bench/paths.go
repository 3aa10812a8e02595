package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/circuit"
	"peel/client/path"
	"peel/directory"
	"peel/directory/cache"
)

// paths builds circuits in this process, along paths of its own choice.
type paths struct {
	cfg   circuit.Config
	links *link.Pool
	usage path.Usage
	index *path.Index
}

func newPaths(n *directory.Network, target netip.AddrPort) *paths {
	return &paths{
		cfg:   circuit.Config{Network: n.ID()},
		links: link.NewPool(link.PoolConfig{Link: link.Config{Network: n.ID()}}),
		usage: path.Usage{Addr: target.Addr(), Port: target.Port()},
	}
}

// often is how often the directory is asked while relays are missing from it.
const often = 250 * time.Millisecond

// learn fetches the directory until it lists as many relays as there are.
func (p *paths) learn(ctx context.Context, n *directory.Network, relays int) error {
	c, err := cache.New(cache.Config{Network: n})
	if err != nil {
		return err
	}
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		_, err = c.Fetch(ctx, func(ctx context.Context) (net.Conn, error) { return p.dialDirectory(ctx, n) })
		if err == nil {
			if have := len(c.Consensus().Entries); have >= relays {
				p.index, err = path.NewIndex(c.Consensus())
				return err
			} else {
				err = fmt.Errorf("the directory lists %d relays of %d", have, relays)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

func (p *paths) dialDirectory(ctx context.Context, n *directory.Network) (net.Conn, error) {
	a := n.Authorities[0]
	conn, err := p.links.Get(ctx, link.Peer{ID: a.ID, Key: a.LinkKey, Addrs: a.Addrs})
	if err != nil {
		return nil, err
	}
	return circuit.DialDirectory(ctx, conn, p.cfg, circuit.Hop{ID: a.ID, LinkKey: a.LinkKey, OnionKey: a.LinkKey, Addrs: a.Addrs})
}

// choose draws a path of three relays to the web server.
func (p *paths) choose() (path.Path, error) { return p.index.Choose(p.usage, rand.Uint64N) }

// build makes a circuit along the relays given.
func (p *paths) build(ctx context.Context, way path.Path) (*circuit.Circuit, error) {
	hops := make([]circuit.Hop, len(way))
	for i, e := range way {
		hops[i] = circuit.Hop{ID: e.ID, LinkKey: e.LinkKey, OnionKey: e.OnionKey, Addrs: e.Addrs}
	}
	conn, err := p.links.Get(ctx, link.Peer{ID: hops[0].ID, Key: hops[0].LinkKey, Addrs: hops[0].Addrs})
	if err != nil {
		return nil, err
	}
	return circuit.Build(ctx, conn, p.cfg, hops)
}

// over dials the web server over a circuit.
func (p *paths) over(c *circuit.Circuit) dial {
	return func(ctx context.Context) (net.Conn, error) {
		s, err := c.Dial(ctx, cell.Begin{Host: p.usage.Addr.String(), Port: p.usage.Port})
		if err != nil {
			return nil, err // not a nil stream in an interface
		}
		return s, nil
	}
}

// fresh dials the web server over a circuit that is built for it and ends with it.
func (p *paths) fresh(ctx context.Context) (net.Conn, error) {
	way, err := p.choose()
	if err != nil {
		return nil, err
	}
	c, err := p.build(ctx, way)
	if err != nil {
		return nil, err
	}
	s, err := p.over(c)(ctx)
	if err != nil {
		c.Close()
		return nil, err
	}
	return &ending{s, c}, nil
}

// ending is a connection that takes its circuit with it.
type ending struct {
	net.Conn
	circuit *circuit.Circuit
}

func (e *ending) Close() error {
	err := e.Conn.Close()
	e.circuit.Close()
	return err
}

// fewFailed is how many circuits may fail where few are built: a relay of a machine that is busy may give one up.
const fewFailed = 3

// buildMany builds circuits and ends them, several at a time, for as long as told or until there were so many. It says
// how many a second it built and how many failed.
func (p *paths) buildMany(ctx context.Context, span time.Duration, most int) (perSecond float64, failed int, err error) {
	var (
		mu    sync.Mutex
		begun int
		built int
		fault error
		wg    contain.Group
	)
	begin := time.Now()
	more := func() bool {
		mu.Lock()
		defer mu.Unlock()
		begun++
		return begun <= most && time.Since(begin) < span && ctx.Err() == nil
	}
	for range max(4, 2*runtime.NumCPU()) {
		wg.Go(func(p *contain.Panic) {
			mu.Lock()
			defer mu.Unlock()
			failed++
			fault = p
		}, func() {
			for more() {
				err := p.buildOne(ctx)
				mu.Lock()
				if err == nil {
					built++
				} else {
					failed++
					fault = err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	switch {
	case ctx.Err() != nil:
		return 0, failed, context.Cause(ctx)
	case built == 0 || failed > max(fewFailed, built/10):
		return 0, failed, fmt.Errorf("%d of %d circuits could not be built: %w", failed, failed+built, fault)
	}
	return float64(built) / took.Seconds(), failed, nil
}

// warm builds a circuit, so that links come up. On a machine that is busy a relay may give one up: another is tried, three in all.
func (p *paths) warm(ctx context.Context) (err error) {
	for range 3 {
		if err = p.buildOne(ctx); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (p *paths) buildOne(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	way, err := p.choose()
	if err != nil {
		return err
	}
	c, err := p.build(ctx, way)
	if err != nil {
		return err
	}
	return c.Close()
}
