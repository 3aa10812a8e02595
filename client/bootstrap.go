package client

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"peel/cell/link"
	"peel/circuit"
	"peel/client/path"
	"peel/directory"
)

// Progress says how far a client's start has come. Text is for a person; it names no relay and no address.
type Progress struct {
	Percent int
	Stage   string // one word: start, directory, consensus, circuit, probe, done
	Text    string
}

func (p Progress) String() string {
	return fmt.Sprintf("Bootstrapped %d %% (%s): %s", p.Percent, p.Stage, p.Text)
}

// The stages of a start, in order.
var (
	stageStart     = Progress{0, "start", "starting"}
	stageDirectory = Progress{10, "directory", "reaching a directory authority"}
	stageConsensus = Progress{25, "consensus", "loading the relay list"}
	stageChecked   = Progress{50, "checked", "relay list signed by enough authorities"}
	stageCircuit   = Progress{60, "circuit", "building a circuit of three relays"}
	stageProbe     = Progress{85, "probe", "sending the first bytes through it"}
	stageDone      = Progress{100, "done", "a circuit carries data"}
)

// bootstrap keeps the furthest stage reached; stages only go forward.
type bootstrap struct {
	mu     sync.Mutex
	now    Progress
	tell   func(Progress)
	done   chan struct{}
	reason error // why the last step failed, for people who wait
}

func (b *bootstrap) init(tell func(Progress)) {
	b.tell, b.done, b.now = tell, make(chan struct{}), Progress{Percent: -1}
}

func (b *bootstrap) reach(p Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.Percent <= b.now.Percent {
		return
	}
	b.now = p
	if b.tell != nil {
		b.tell(p)
	}
	if p.Percent == 100 {
		close(b.done)
	}
}

func (b *bootstrap) failed(err error) {
	b.mu.Lock()
	b.reason = err
	b.mu.Unlock()
}

// Bootstrap says how far the start has come and, while it is not done, what failed last.
func (c *Client) Bootstrap() (Progress, error) {
	c.boot.mu.Lock()
	defer c.boot.mu.Unlock()
	if c.boot.now.Percent == 100 {
		return c.boot.now, nil
	}
	return c.boot.now, c.boot.reason
}

// Ready waits until a circuit has carried bytes. Its error says what the start is waiting for.
func (c *Client) Ready(ctx context.Context) error {
	select {
	case <-c.boot.done:
		return nil
	case <-ctx.Done():
		p, err := c.Bootstrap()
		if err == nil {
			err = ctx.Err()
		}
		return fmt.Errorf("client: not ready, %v: %w", p, err)
	}
}

// followDirectory keeps the consensus fresh until ctx ends.
func (c *core) followDirectory(ctx context.Context) {
	c.boot.reach(stageStart)
	c.cache.Follow(ctx, c.dialDirectory, func(d *directory.Consensus) {
		x, err := path.NewIndex(d)
		if err != nil {
			c.boot.failed(err)
			c.log.Warn("the relay list is of no use", "why", err)
			return
		}
		c.boot.reach(stageChecked)
		c.pool.index.Store(x)
		c.pool.kick()
	}, c.boot.failed)
}

const directoryTimeout = 15 * time.Second

// dialDirectory opens a directory stream to an authority, over a circuit of one hop.
func (c *core) dialDirectory(ctx context.Context) (net.Conn, error) {
	c.boot.reach(stageDirectory)
	ctx, cancel := context.WithTimeout(ctx, directoryTimeout)
	defer cancel()
	as := c.cfg.Network.Authorities
	a := as[rand.N(len(as))]
	c.mu.Lock()
	links := c.links
	c.mu.Unlock()
	conn, err := links.Get(ctx, link.Peer{ID: a.ID, Key: a.LinkKey, Addrs: a.Addrs})
	if err != nil {
		return nil, fmt.Errorf("client: authority %s: %w", a.Nickname, err)
	}
	hop := circuit.Hop{ID: a.ID, LinkKey: a.LinkKey, OnionKey: a.LinkKey, Addrs: a.Addrs}
	s, err := circuit.DialDirectory(ctx, conn, circuit.Config{Network: c.network, Log: c.log}, hop)
	if err != nil {
		return nil, fmt.Errorf("client: authority %s: %w", a.Nickname, err)
	}
	c.boot.reach(stageConsensus)
	return s, nil
}

// probe sends a request to the directory of a circuit's last relay and reads the answer's first line: the proof that
// the circuit carries bytes both ways.
func probe(ctx context.Context, ci *circuit.Circuit) error {
	s, err := ci.DialDir(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://directory/peel/consensus", nil)
	if err != nil {
		return err
	}
	if err := r.Write(s); err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, len("HTTP/1.1")))
	return err
}
