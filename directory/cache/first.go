package cache

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"peel/cell/contain"
)

// When a node that waits for an authority asks another one as well. (spec/directory.md, section 9)
const (
	askNext   = time.Second
	askSlow   = 1 << 10 // bytes, that one sends in this time, at least, who is not taken for silent
	askAtOnce = 6       // authorities, at most
	askInAll  = 12      // before Follow waits
)

// fetchFirst asks an authority; who is in a hurry and hears hardly anything from it for a while asks others meanwhile, and is content with the
// first good answer; in the place of one that fails while others are silent it asks the next.
func (c *Cache) fetchFirst(ctx context.Context, from Sources, hurry bool) (bool, error) {
	if !hurry {
		return c.Fetch(ctx, from.Authority)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	var heard atomic.Int64 // when another askSlow bytes had come from any of them, since then
	dial := func(ctx context.Context) (net.Conn, error) {
		nc, err := from.Authority(ctx)
		if err != nil {
			return nil, err
		}
		return &hearing{Conn: nc, began: began, heard: &heard}, nil
	}
	type result struct {
		changed bool
		err     error
	}
	done := make(chan result, askAtOnce)
	ask := func() {
		changed, err := c.Fetch(ctx, dial)
		done <- result{changed, err}
	}
	next := time.NewTimer(askNext)
	defer next.Stop()
	running, asked := 0, 0
	another := func() {
		if running < askAtOnce && asked < askInAll {
			running++
			asked++
			contain.Go(func(p *contain.Panic) { done <- result{err: p} }, ask)
			next.Reset(askNext)
		}
	}
	another()
	var first result
	for {
		select {
		case r := <-done:
			running--
			if r.err == nil || first.err == nil {
				first = r
			}
			if r.err == nil || running == 0 {
				cancel()
				for range running { // one of these may have put in place what r found there already
					first.changed = (<-done).changed || first.changed
				}
				return first.changed, first.err
			}
			another()
		case <-next.C:
			if quiet := time.Since(began) - time.Duration(heard.Load()); quiet < askNext { // it comes, if slowly
				next.Reset(askNext - quiet)
				continue
			}
			another()
		}
	}
}

// hearing notes when something comes that is worth waiting for.
type hearing struct {
	net.Conn
	began time.Time
	heard *atomic.Int64
	some  int // bytes that came since that was noted
}

func (h *hearing) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if h.some += n; h.some >= askSlow {
		h.heard.Store(int64(time.Since(h.began)))
		h.some = 0
	}
	return n, err
}
