package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/circuit"
	"peel/client/path"
	"peel/directory"
	"peel/directory/cache"
)

const directoryTimeout = 15 * time.Second // to open a stream to an authority

// relays is a consensus in use.
type relays struct {
	index *path.Index
	port  uint16 // what spare circuits and lookups are for: one that exits allow
	shut  bool   // no exit allows any
}

// newRelays makes a consensus ready for use. It fails if no path could ever be chosen from it.
func newRelays(d *directory.Consensus, rules path.Rules) (*relays, error) {
	x, err := rules.Index(d)
	if err != nil {
		return nil, err
	}
	ports := []uint16{443, 80}
	for i := range d.Entries {
		for _, rule := range d.Entries[i].Policy {
			if rule.Accept && len(ports) < 8 {
				ports = append(ports, max(1, rule.Lo))
			}
		}
	}
	for _, p := range ports {
		if _, err := x.Choose(path.Usage{Port: p}, chance); !errors.Is(err, path.ErrNoExit) {
			return &relays{index: x, port: p}, nil
		}
	}
	return &relays{index: x, port: ports[0], shut: true}, nil
}

// Consensus is the directory in use, nil before there is one. It may have expired since (spec/client.md, section 2).
func (c *Client) Consensus() *directory.Consensus {
	if r := c.pool.relays.Load(); r != nil {
		return r.index.Consensus()
	}
	return nil
}

// followDirectory keeps the consensus fresh until ctx ends.
func (c *core) followDirectory(ctx context.Context) {
	c.boot.reach(stageStart)
	c.cache.Follow(ctx, cache.Sources{Authority: c.dialDirectory, Relay: c.dialRelay, Alone: c.alone, Client: true}, c.use, c.tellStale)
}

// alone says whether there is no way to any relay: no list is of use, or the one in use lets the client make no circuit that would prove
// its start to be over, for which dialRelay waits.
func (c *core) alone() bool {
	r := c.pool.relays.Load()
	return r == nil || r.shut && c.boot.progress().Percent < stageDone.Percent
}

// tellStale notes why there is no newer relay list, and says once, until there is one, if that is for the time, and the one here is of no
// use either: one that was asked may have been cut off.
func (c *core) tellStale(err error) {
	var t *directory.TimeError
	_, _, none := c.cache.Usable(c.cfg.Now())
	tell := errors.As(err, &t) && none != nil && !c.stale.Swap(true)
	if tell && t.Err == directory.ErrFuture && c.cache.Consensus() != nil { // it held when it came: our clock was set back
		c.clock.Forget()
	}
	err = c.clock.Explain(err)
	c.boot.failed(err)
	if tell {
		c.log.Warn("no relay list that holds now", "why", err)
	}
}

// use takes a consensus that verified.
func (c *core) use(d *directory.Consensus) {
	c.ruling.Lock()
	defer c.ruling.Unlock()
	r, err := newRelays(d, c.rules)
	if err != nil {
		c.boot.failed(err)
		c.log.Warn("the relay list is of no use", "why", err)
		return
	}
	c.boot.reach(c.checked(d)) // before a circuit can be begun
	c.pool.updateGuards(r.index)
	c.pool.relays.Store(r)
	c.stale.Store(false)
	c.pool.kick()
}

// checked is the stage of the start that a consensus is. Where nobody reads a log, its text says that it has expired.
func (c *core) checked(d *directory.Consensus) Progress {
	stage := stageChecked
	if c.cfg.silent {
		if note, err := d.SignedHeader.Usable(c.cfg.Network, c.cfg.Now()); err == nil && note != "" {
			stage.Text += "; " + note
		}
	}
	return stage
}

// Change puts other rules for paths in the place of those of the configuration, or, with an error, leaves all as it was. Streams that
// run are left alone, new ones go on circuits made by the new rules. The same rules change nothing. It may be called at any time.
func (c *Client) Change(rules path.Rules) error {
	c.ruling.Lock()
	defer c.ruling.Unlock()
	if reflect.DeepEqual(rules, c.rules) {
		return nil
	}
	if now := c.pool.relays.Load(); now != nil {
		next, err := newRelays(now.index.Consensus(), rules)
		if err != nil {
			return fmt.Errorf("client: with these rules: %w", err)
		}
		c.pool.updateGuards(next.index)
		c.pool.relays.Store(next)
	}
	c.rules = rules
	c.pool.retireAll()
	c.pool.kick()
	return nil
}

// dialDirectory opens a directory stream to an authority, over a circuit of one hop: to each in turn.
func (c *core) dialDirectory(ctx context.Context) (net.Conn, error) {
	c.boot.reach(stageDirectory)
	ctx, cancel := context.WithTimeout(ctx, directoryTimeout)
	defer cancel()
	c.mu.Lock()
	a := c.cfg.Network.Authorities[c.turn%len(c.cfg.Network.Authorities)]
	c.turn++
	c.mu.Unlock()
	hop := circuit.Hop{ID: a.ID, LinkKey: a.LinkKey, OnionKey: a.LinkKey, Addrs: a.Addrs}
	var s net.Conn
	err := c.on(ctx, link.Peer{ID: a.ID, Key: a.LinkKey, Addrs: a.Addrs}, func(conn *link.Conn) (err error) {
		s, err = circuit.DialDirectory(ctx, conn, circuit.Config{Network: c.network, Log: c.log}, hop)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("client: authority %s: %w", a.Nickname, err)
	}
	c.boot.reach(stageConsensus)
	return s, nil
}

// fetch is the token of a circuit that one directory is fetched over; no two are equal.
type fetch struct{ _ byte }

// dialRelay opens a directory stream to a relay at the end of a circuit of three hops, made for it alone: so the relay
// need be no exit, does not learn who asks, and what it says of the network it must say to anybody.
func (c *core) dialRelay(ctx context.Context, not []cell.NodeID) (net.Conn, cell.NodeID, error) {
	ctx, cancel := context.WithTimeout(ctx, directoryTimeout)
	defer cancel()
	h, err := c.pool.get(ctx, request{usage: path.Usage{Directory: true}, token: new(fetch), not: not, era: c.pool.nowEra()})
	if err != nil {
		return nil, cell.NodeID{}, err
	}
	id := h.path[len(h.path)-1].ID
	s, err := h.circuit.DialDir(ctx)
	c.pool.release(h)
	if err != nil {
		c.pool.discard(h)
		return nil, id, fmt.Errorf("client: directory of a relay: %w", err)
	}
	return &fetching{Conn: s, pool: c.pool, held: h, since: time.Now()}, id, nil
}

// fetching is a directory stream; its circuit is used for nothing after it.
type fetching struct {
	net.Conn
	pool  *pool
	held  *held
	since time.Time   // when it was open
	came  atomic.Bool // some of the answer
	over  atomic.Bool
}

func (f *fetching) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if n > 0 {
		f.came.Store(true)
	}
	return n, err
}

func (f *fetching) Close() error {
	if !f.over.Swap(true) {
		f.pool.fetched(f.held, f.came.Load(), time.Since(f.since))
		f.pool.discard(f.held)
	}
	return f.Conn.Close()
}

// probeRequest is a request to a directory that costs it little.
const probeRequest = "HEAD /peel/consensus HTTP/1.1\r\nHost: directory\r\nConnection: close\r\n\r\n"

// probe sends a request to the directory of a circuit's last relay and reads how the answer begins: the proof that the
// circuit carries bytes both ways.
func probe(ctx context.Context, ci *circuit.Circuit) error {
	s, err := ci.DialDir(ctx)
	if err != nil {
		return fmt.Errorf("client: probe: %w", err)
	}
	defer s.Close()
	stop := contain.OnDone(ctx, nil, func() { s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(s, probeRequest); err != nil {
		return fmt.Errorf("client: probe: %w", err)
	}
	begin := make([]byte, len("HTTP/1."))
	if _, err := io.ReadFull(s, begin); err != nil {
		return fmt.Errorf("client: probe: %w", err)
	}
	if string(begin) != "HTTP/1." {
		return errors.New("client: probe: the last relay's directory does not speak HTTP")
	}
	return nil
}
