// Package netns is an internet for processes: machines that are network namespaces of Linux, and between them, in this program, lines with
// delay, jitter, loss and rate. It needs no tc netem, which many kernels do not have.
package netns

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"peel/testnet/memnet"
)

// Net carries packets between machines. Machines are added before Run; all other methods may be called from any goroutine, at any time.
type Net struct {
	seed     uint64
	begun    time.Time
	machines []*machine
	byAddr   map[[4]byte]*machine
	buffers  sync.Pool

	mu     sync.Mutex
	way    func(from, to netip.Addr) memnet.Way
	apart  map[netip.Addr]int // parts of a divided network; nil: it is whole
	frozen map[netip.Addr]bool
}

// Counts are of packets.
type Counts struct {
	Carried uint64 // arrived
	Lost    uint64 // by the weather
	Full    uint64 // dropped by a full queue
	Unheard uint64 // of or for a machine that is frozen, or from another part of the network
	Broken  uint64 // in place of which a reset went on
	Other   uint64 // for no machine there is, or none of IPv4
}

func (c *Counts) add(o Counts) {
	c.Carried += o.Carried
	c.Lost += o.Lost
	c.Full += o.Full
	c.Unheard += o.Unheard
	c.Broken += o.Broken
	c.Other += o.Other
}

func (c *Counts) count(f fate) {
	switch f {
	case lost:
		c.Lost++
	case full:
		c.Full++
	case unheard:
		c.Unheard++
	case broken:
		c.Broken++
	case notCarried:
		c.Other++
	}
}

// New makes an internet without machines and without delays. What is drawn at random follows from seed and from what the machines send.
func New(seed uint64) *Net {
	return &Net{
		seed: seed, begun: time.Now(), byAddr: make(map[[4]byte]*machine), buffers: sync.Pool{New: func() any { return new(buffer) }},
		way: func(_, _ netip.Addr) memnet.Way { return memnet.Way{} }, frozen: make(map[netip.Addr]bool),
	}
}

// machine is one end of lines to all others.
type machine struct {
	net   *Net
	addr  netip.Addr
	wire  io.ReadWriteCloser
	inbox *inbox
	deaf  atomic.Bool // frozen

	mu     sync.Mutex // of what it sends
	card   pacer
	lines  map[[4]byte]*line
	counts Counts

	carried, refused atomic.Uint64 // of what comes for it
}

// Add adds the machine at an address. Each Read of its wire is a packet that it sends, each Write one that comes for it. The wire is closed by
// Run.
func (n *Net) Add(a netip.Addr, wire io.ReadWriteCloser) error {
	if !a.Is4() || n.byAddr[a.As4()] != nil {
		return fmt.Errorf("netns: %v is no address of IPv4, or is there already", a)
	}
	m := &machine{net: n, addr: a, wire: wire, inbox: newInbox(), lines: make(map[[4]byte]*line)}
	n.machines = append(n.machines, m)
	n.byAddr[a.As4()] = m
	return nil
}

// Run carries packets until ctx ends, or a wire fails, which is an error. When it returns all its goroutines are gone and all wires closed.
func (n *Net) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, m := range n.machines {
		wg.Go(func() {
			if err := m.read(); ctx.Err() == nil {
				cancel(fmt.Errorf("netns: what %v sends: %w", m.addr, err))
			}
		})
		wg.Go(func() { m.write(ctx) })
	}
	<-ctx.Done()
	for _, m := range n.machines {
		m.wire.Close()
	}
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// read takes what the machine sends, until its wire is closed.
func (m *machine) read() error {
	for {
		b := m.net.buffers.Get().(*buffer)
		k, err := m.wire.Read(b.b[:])
		if err != nil {
			return err
		}
		b.n = k
		if !m.send(b) {
			m.net.buffers.Put(b)
		}
	}
}

// send sends a packet on its way; false: it goes nowhere.
func (m *machine) send(b *buffer) bool {
	now := time.Since(m.net.begun)
	h, ok := parse(b.b[:b.n])
	to := m.net.byAddr[h.to]
	m.mu.Lock()
	defer m.mu.Unlock()
	if !ok || to == nil || to == m {
		m.counts.count(notCarried)
		return false
	}
	l := m.line(to)
	at, ok := now, true
	if !l.unheard { // or its card would be busy with what no one hears
		at, ok = m.card.take(now, h.size)
	}
	if !ok {
		m.counts.count(full)
		return false
	}
	due, f := l.carry(at, &h)
	if f == broken {
		b.n = reset(b.b[:b.n])
	}
	if (f == arrives || f == broken) && !to.inbox.put(due, b) {
		f = full
	}
	m.counts.count(f)
	return f == arrives || f == broken
}

// line is the one to another machine. The caller holds mu.
func (m *machine) line(to *machine) *line {
	l := m.lines[to.addr.As4()]
	if l == nil {
		h := fnv.New64a()
		fmt.Fprint(h, m.addr, to.addr)
		l = &line{rng: rand.New(rand.NewPCG(m.net.seed, h.Sum64()))}
		m.lines[to.addr.As4()] = l
		m.net.describe(l, m.addr, to.addr)
	}
	return l
}

// describe tells a line what it is like.
func (n *Net) describe(l *line, from, to netip.Addr) {
	n.mu.Lock()
	way, mute := n.way(from, to), n.mute(from, to)
	n.mu.Unlock()
	l.setWay(way)
	l.unheard = mute
}

// mute says whether nothing gets from one machine to another. The caller holds mu.
func (n *Net) mute(from, to netip.Addr) bool {
	a, in := n.apart[from]
	b, too := n.apart[to]
	return n.frozen[from] || n.frozen[to] || in && too && a != b
}

// batch is how many packets are written without a look at the clock.
const batch = 32

// write hands the machine what comes for it, when it is due.
func (m *machine) write(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	due := make([]*buffer, 0, batch)
	for {
		var next time.Duration
		due, next = m.inbox.take(time.Since(m.net.begun), due[:0])
		for _, b := range due {
			m.deliver(b)
		}
		var later <-chan time.Time
		if next > 0 {
			timer.Reset(next)
			later = timer.C
		}
		if len(due) > 0 || next == 0 { // there may be more
			if ctx.Err() != nil {
				return
			}
			continue
		}
		select {
		case <-m.inbox.wake:
		case <-later:
		case <-ctx.Done():
			return
		}
	}
}

func (m *machine) deliver(b *buffer) {
	defer m.net.buffers.Put(b)
	if m.deaf.Load() {
		m.refused.Add(1)
		return
	}
	if _, err := m.wire.Write(b.b[:b.n]); err != nil { // as of a machine whose wire is down, or that is short of memory
		m.refused.Add(1)
		return
	}
	m.carried.Add(1)
}

// SetWays says what lies between machines from now on. The rate of a way is of all that one machine sends to another.
func (n *Net) SetWays(way func(from, to netip.Addr) memnet.Way) {
	n.change(func() { n.way = way })
}

// Freeze keeps a machine from being heard and from hearing, without a word to anybody, until it is thawed.
func (n *Net) Freeze(a netip.Addr, frozen bool) {
	n.change(func() { n.frozen[a] = frozen })
	if m := n.machine(a); m != nil {
		m.deaf.Store(frozen)
	}
}

// Part divides the network: machines that are in different parts no longer hear each other; those in none hear all. nil makes it whole again.
func (n *Net) Part(parts map[netip.Addr]int) {
	n.change(func() { n.apart = parts })
}

// change changes what lines are like, and tells them.
func (n *Net) change(do func()) {
	n.mu.Lock()
	do()
	n.mu.Unlock()
	for _, m := range n.machines {
		m.mu.Lock()
		for to, l := range m.lines {
			n.describe(l, m.addr, netip.AddrFrom4(to))
		}
		m.mu.Unlock()
	}
}

// SetRate limits what a machine sends in all to so many bytes a second; 0: without limit.
func (n *Net) SetRate(a netip.Addr, rate int) {
	if m := n.machine(a); m != nil {
		m.mu.Lock()
		m.card.setRate(rate)
		m.mu.Unlock()
	}
}

func (n *Net) machine(a netip.Addr) *machine {
	if !a.Is4() {
		return nil
	}
	return n.byAddr[a.As4()]
}

// Counts counts the packets of all machines up to now. Those that are under way are in none of the counts.
func (n *Net) Counts() Counts {
	var all Counts
	for _, m := range n.machines {
		m.mu.Lock()
		c := m.counts
		m.mu.Unlock()
		c.Carried, c.Unheard = m.carried.Load(), c.Unheard+m.refused.Load()
		all.add(c)
	}
	return all
}
