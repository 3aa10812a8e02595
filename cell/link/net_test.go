package link_test

import (
	"encoding/binary"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// slow says that long versions of tests are wanted.
var slow = os.Getenv("PEEL_SLOW") != ""

// mbit is a rate of so many Mbit/s, in bytes a second.
func mbit(n float64) int { return int(n * 1e6 / 8) }

// cellRate is how many cells a second go over a line of so many Mbit/s.
func cellRate(n float64) float64 { return n * 1e6 / 8 / cell.Size }

// A network is nodes in memory that circuits go through. Each node's Receivers do what a relay's do, but for the layers.
type network struct {
	t *testing.T

	mu    sync.Mutex
	paths []*path
	wires []*wire
}

// A wire joins two nodes: a, nearer to the client, and b. Rates are in Mbit/s; 0: without limit.
type wire struct {
	near, far   *link.Conn
	pipe, other *linktest.Conn // the near end, the far end
	credits     [2]int         // CREDIT cells that went: up, down
	cells       [2]int         // cells that went
}

func (n *network) node(name string) *link.Config { return linktest.Config(n.t, name) }

// join makes a wire: up is the rate from a to b. Taps that the ends have see it, too.
func (n *network) join(a, b *link.Config, delay time.Duration, up, down float64) *wire {
	n.t.Helper()
	w := new(wire)
	w.pipe, w.other = linktest.Pipe(linktest.Options{Delay: delay, Window: 1 << 28})
	tap := func(dir int, also func(bool, []cell.Cell)) func(bool, []cell.Cell) {
		return func(in bool, cells []cell.Cell) {
			if also != nil {
				also(in, cells)
			}
			if in {
				return
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			w.cells[dir] += len(cells)
			for i := range cells {
				if cells[i].Command() == cell.CmdCredit {
					w.credits[dir]++
				}
			}
		}
	}
	ca, cb := *a, *b
	ca.Tap, cb.Tap = tap(0, a.Tap), tap(1, b.Tap)
	h := linktest.Handlers{B: n}
	w.near, w.far = linktest.Join(n.t, w.pipe, w.other, &ca, &cb, h)
	w.pipe.SetRate(mbit(up))
	w.other.SetRate(mbit(down))
	n.wires = append(n.wires, w)
	return w
}

// A path is a circuit through the network.
type path struct {
	net   *network
	wires []*wire
	id    int

	mu        sync.Mutex
	near, far []*link.Circ // at each end of each wire
	opened    chan struct{}
	closed    bool

	client, exit *terminal
}

// open opens a circuit over wires, from the client on, and returns when cells can go.
func (n *network) open(wires ...*wire) *path {
	n.t.Helper()
	p := &path{net: n, wires: wires, near: make([]*link.Circ, len(wires)), far: make([]*link.Circ, len(wires)), opened: make(chan struct{})}
	p.client, p.exit = &terminal{}, &terminal{}
	n.mu.Lock()
	p.id = len(n.paths)
	n.paths = append(n.paths, p)
	n.mu.Unlock()
	p.dial(0)
	<-p.opened
	return p
}

// dial opens the circuit on the i-th wire.
func (p *path) dial(i int) {
	m := aCreate
	binary.BigEndian.PutUint32(m.Key[:], uint32(p.id))
	m.Key[4] = byte(i)
	p.mu.Lock()
	defer p.mu.Unlock()
	c, err := p.wires[i].near.Open(joint{p, i, true}, m)
	if err != nil {
		p.net.t.Error(err)
		return
	}
	p.near[i] = c
	if i == 0 {
		p.client.use(c)
	}
}

// Create takes the circuit at the far end of a wire.
func (n *network) Create(c *link.Circ, m cell.Create) {
	n.mu.Lock()
	p := n.paths[binary.BigEndian.Uint32(m.Key[:])]
	n.mu.Unlock()
	i := int(m.Key[4])
	p.mu.Lock()
	p.far[i] = c
	p.mu.Unlock()
	c.Attach(joint{p, i, false})
	if i == len(p.wires)-1 {
		p.exit.use(c)
		c.Reply(aReply)
		return
	}
	p.dial(i + 1)
}

// A joint is one end of one wire on a path.
type joint struct {
	*path
	i    int
	near bool
}

// beyond is the circuit on the other side of the node; nil: it ends here, at the terminal.
func (j joint) beyond() (in, out *link.Circ, end *terminal) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.near && j.i == 0:
		return j.path.near[0], nil, j.client
	case j.near:
		return j.path.near[j.i], j.far[j.i-1], nil
	case j.i == len(j.wires)-1:
		return j.far[j.i], nil, j.exit
	default:
		return j.far[j.i], j.path.near[j.i+1], nil
	}
}

func (j joint) Created(reply []byte) {
	if j.i == 0 {
		close(j.opened)
		return
	}
	j.mu.Lock()
	c := j.far[j.i-1]
	j.mu.Unlock()
	c.Reply(reply)
}

func (j joint) Receive(cells []cell.Cell) {
	in, out, end := j.beyond()
	if end != nil {
		end.receive(in, cells)
	} else {
		out.Forward(in, cells)
	}
}

func (j joint) Room() {
	if _, _, end := j.beyond(); end != nil {
		end.pump()
	}
}

func (j joint) Closed(cell.DestroyReason) {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	if _, out, _ := j.beyond(); out != nil {
		out.Close(cell.DestroyNone)
	}
}

func (p *path) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// A terminal is where cells of a path begin and end.
type terminal struct {
	mu     sync.Mutex
	circ   *link.Circ
	toSend int // cells
	sent   int
	batch  [32]cell.Cell

	stuck  bool // takes nothing
	untook int
	got    int
	bins   []int // cells that came, by tenths of a second since epoch
	epoch  time.Time
	since  time.Time // measure delays of what comes from now on; zero: do not
	delays []time.Duration
	gap    time.Duration // longest between two cells since then
	latest time.Time
	bad    bool // cells came in another order
}

func (e *terminal) use(c *link.Circ) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.circ, e.epoch = c, time.Now()
}

const forever = 1 << 30

// send sends n cells more, from now on.
func (e *terminal) send(n int) {
	e.mu.Lock()
	e.toSend += n
	e.mu.Unlock()
	e.pump()
}

func (e *terminal) pump() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		n := min(e.circ.Room(), e.toSend-e.sent, len(e.batch))
		if n <= 0 {
			return
		}
		now := uint64(time.Now().UnixNano())
		for i := range n {
			e.batch[i].SetCommand(cell.CmdRelay)
			body := e.batch[i].Body()
			binary.BigEndian.PutUint64(body, now)
			binary.BigEndian.PutUint64(body[8:], uint64(e.sent+i))
		}
		if e.circ.Send(e.batch[:n]) != nil {
			return
		}
		e.sent += n
	}
}

func (e *terminal) receive(c *link.Circ, cells []cell.Cell) {
	now := time.Now()
	e.mu.Lock()
	for i := range cells {
		body := cells[i].Body()
		if binary.BigEndian.Uint64(body[8:]) != uint64(e.got) {
			e.bad = true
		}
		e.got++
		if !e.since.IsZero() && !now.Before(e.since) {
			e.delays = append(e.delays, time.Duration(now.UnixNano()-int64(binary.BigEndian.Uint64(body))))
		}
	}
	if !e.since.IsZero() && !e.latest.IsZero() {
		e.gap = max(e.gap, now.Sub(e.latest))
	}
	e.latest = now
	bin := int(now.Sub(e.epoch) / (time.Second / 10))
	for len(e.bins) <= bin {
		e.bins = append(e.bins, 0)
	}
	e.bins[bin] += len(cells)
	stuck := e.stuck
	if stuck {
		e.untook += len(cells)
	}
	e.mu.Unlock()
	if !stuck {
		c.Taken(len(cells))
	}
}

// count is how many cells have come.
func (e *terminal) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got
}

// measure notes delays from now on, and forgets those before.
func (e *terminal) measure() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.since, e.delays, e.gap = time.Now(), nil, 0
	e.latest = e.since
}

// restart counts bins from now on.
func (e *terminal) restart() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.epoch, e.bins = time.Now(), nil
}

// over measures for a while: cells a second, and what delays are beyond idle.
func (e *terminal) over(span, idle time.Duration) (rate float64, p50, p95 time.Duration) {
	e.measure()
	was := e.count()
	settle(span)
	rate = float64(e.count()-was) / span.Seconds()
	e.mu.Lock()
	defer e.mu.Unlock()
	p50, p95 = quantiles(e.delays, idle)
	return
}

func quantiles(delays []time.Duration, idle time.Duration) (p50, p95 time.Duration) {
	if len(delays) == 0 {
		return 0, 0
	}
	d := slices.Clone(delays)
	slices.Sort(d)
	ms := func(x time.Duration) time.Duration { return (x - idle).Round(time.Millisecond) }
	return ms(d[len(d)/2]), ms(d[len(d)*95/100])
}

// reached is when, since restart, a stretch of 300 ms first saw this many cells a second; 0: never.
func (e *terminal) reached(rate float64) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := 2; i < len(e.bins); i++ {
		if float64(e.bins[i]+e.bins[i-1]+e.bins[i-2]) >= 0.3*rate {
			return time.Duration(i-1) * time.Second / 10
		}
	}
	return 0
}

// jain is Jain's index of fairness, and the least share by the mean.
func jain(xs []float64) (index, least float64) {
	var sum, squares float64
	least = xs[0]
	for _, x := range xs {
		sum += x
		squares += x * x
		least = min(least, x)
	}
	return sum * sum / squares / float64(len(xs)), least / (sum / float64(len(xs)))
}
