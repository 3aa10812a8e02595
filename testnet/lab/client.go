package lab

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell/link"
	"peel/circuit"
	"peel/directory"
)

// villainClient is a client that does what no honest one does, beside the loads of the client of its name.
type villainClient struct {
	lab            *Lab
	name, script   string
	addr           netip.Addr
	least          int // of its requests are to be refused
	deeds, refused atomic.Uint64
}

const (
	deedEvery = 500 * time.Millisecond
	mostOpen  = 2000 // circuits of a flood
	buildTime = 10 * time.Second
)

// run misbehaves until ctx ends.
func (v *villainClient) run(ctx context.Context) {
	pool := link.NewPool(link.PoolConfig{Link: link.Config{Network: v.lab.network.ID()}, Dial: v.lab.dialer(v.addr)})
	defer pool.Close()
	rng := rand.New(rand.NewPCG(v.lab.plan.Seed, uint64(v.addr.As4()[1])))
	var open []*circuit.Circuit
	var wg sync.WaitGroup
	for sleepUntil(ctx, time.Now().Add(deedEvery)) {
		cons := v.consensus()
		if cons == nil {
			continue
		}
		switch v.script {
		case "circles":
			hops := circle(cons, rng)
			if c := v.build(ctx, pool, hops); c != nil {
				c.Close()
			}
		case "flood":
			var mu sync.Mutex
			to := hop(&cons.Entries[rng.IntN(len(cons.Entries))])
			for range 100 {
				wg.Go(func() {
					if c := v.build(ctx, pool, []circuit.Hop{to}); c != nil {
						mu.Lock()
						open = append(open, c)
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			if len(open) > mostOpen {
				for _, c := range open {
					c.Close()
				}
				open = nil
			}
		}
	}
	wg.Wait()
	for _, c := range open {
		c.Close()
	}
}

func (v *villainClient) consensus() *directory.Consensus {
	for _, c := range v.lab.clients {
		if cons := c.Consensus(); cons != nil && len(cons.Entries) > 2 {
			return cons
		}
	}
	return nil
}

// circle is a way of nine hops that goes round between two or three relays.
func circle(cons *directory.Consensus, rng *rand.Rand) []circuit.Hop {
	n := 2 + rng.IntN(2)
	perm := rng.Perm(len(cons.Entries))
	hops := make([]circuit.Hop, circuit.MaxHops)
	for i := range hops {
		hops[i] = hop(&cons.Entries[perm[i%n]])
	}
	return hops
}

func hop(e *directory.Entry) circuit.Hop {
	return circuit.Hop{ID: e.ID, LinkKey: e.LinkKey, OnionKey: e.OnionKey, Addrs: e.Addrs}
}

// build makes a circuit and counts what becomes of it; nil: it was refused.
func (v *villainClient) build(ctx context.Context, pool *link.Pool, hops []circuit.Hop) *circuit.Circuit {
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	v.deeds.Add(1)
	lc, err := pool.Get(ctx, link.Peer{ID: hops[0].ID, Key: hops[0].LinkKey, Addrs: hops[0].Addrs})
	if err == nil {
		var c *circuit.Circuit
		if c, err = circuit.Build(ctx, lc, circuit.Config{Network: v.lab.network.ID()}, hops); err == nil {
			return c
		}
	}
	if ctx.Err() == nil {
		v.refused.Add(1)
	}
	return nil
}
