package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/circuit"
	"peel/circuit/stream"
)

// A flooding is what a process beside a relay does to it. The program "flooder" takes one as its argument, says "ready" when it is at
// it, and at a line, or the end, of its input what came of it.
type flooding struct {
	Network cell.NetworkID
	ID      cell.NodeID
	Link    cell.Key
	Onion   cell.Key
	At      string // the relay's address

	What string
	From int           // so many addresses of loopback
	Rate int           // so many a second; 0: one more for each that is answered, 64 under way
	Burn float64       // of burn, the part of a core that it takes
	For  time.Duration // of honest, how long it is measured
}

// What a flooding does.
const (
	floodCreates = "CREATE" // circuits, closed as soon as they are there
	floodLinks   = "links"  // handshakes, with a message that is repeated
	floodBegins  = "BEGIN"  // streams to a port where nobody listens, over circuits that were there before
	onlyBurn     = "burn"   // nothing, in as much of the processor's time as a flood took
	onlyHonest   = "honest" // a download without end; circuits on links that are there; and clients that come anew
)

// flooded is what came of a flooding.
type flooded struct {
	Seconds                        float64
	Tried, Sent, Answered, Refused int64
	Bytes                          int64    // of the download
	Circuits, Clients              inTime   // of honest: circuits; links with a circuit with a stream with a byte
	Faults                         []string // some reasons why not
}

// inTime is how many tried, came within 2 s, came at all within a minute, and how long they took in ms.
type inTime struct {
	Tried, Soon, Came int
	Median, Most      float64
}

func flooder() {
	var f flooding
	if err := json.Unmarshal([]byte(os.Args[1]), &f); err != nil {
		fmt.Fprintln(os.Stderr, "flooder:", err)
		os.Exit(2)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		cancel()
	}()
	do := map[string]func(context.Context) (*flooded, error){
		floodCreates: f.creates, floodLinks: f.links, floodBegins: f.begins, onlyBurn: f.burn, onlyHonest: f.honest,
	}[f.What]
	out, err := do(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "flooder:", err)
		os.Exit(1)
	}
	text, _ := json.Marshal(out)
	fmt.Println("came:", string(text))
}

func (f *flooding) burn(ctx context.Context) (*flooded, error) {
	fmt.Println("ready")
	const turn = 5 * time.Millisecond
	for ctx.Err() == nil {
		began := time.Now()
		for time.Since(began) < time.Duration(f.Burn*float64(turn)) {
		}
		time.Sleep(turn - time.Since(began))
	}
	return new(flooded), nil
}

func (f *flooding) hops() []circuit.Hop {
	return []circuit.Hop{{ID: f.ID, LinkKey: f.Link, OnionKey: f.Onion, Addrs: []netip.AddrPort{netip.MustParseAddrPort(f.At)}}}
}

// dial connects from the nth address.
func (f *flooding) dial(ctx context.Context, n int) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1+byte(n>>16), byte(n>>8), byte(n))}, Timeout: 5 * time.Second}
	return d.DialContext(ctx, "tcp", f.At)
}

// link makes one over nc, which ends with the program or with end.
func (f *flooding) link(ctx context.Context, nc net.Conn, tap func(bool, []cell.Cell)) (lc *link.Conn, end func(), err error) {
	lc, err = link.Dial(ctx, nc, &link.Config{Network: f.Network, Tap: tap}, link.Peer{ID: f.ID, Key: f.Link})
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() { defer close(done); lc.Serve(nil) }()
	return lc, func() { lc.Close(); <-done }, nil
}

func (f *flooding) linkFrom(ctx context.Context, n int) (*link.Conn, func(), error) {
	nc, err := f.dial(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	return f.link(ctx, nc, nil)
}

func (f *flooding) build(ctx context.Context, lc *link.Conn) (*circuit.Circuit, error) {
	return circuit.Build(ctx, lc, circuit.Config{Network: f.Network}, f.hops())
}

// shots count what came of a flood.
type shots struct {
	tried, sent, answered, refused atomic.Int64
	more                           chan struct{} // one was answered: for another
}

func newShots() *shots { return &shots{more: make(chan struct{}, 1<<10)} }

func (s *shots) over(n *atomic.Int64) {
	n.Add(1)
	select {
	case s.more <- struct{}{}:
	default: // nobody waits
	}
}

// run calls shoot as often as is asked for, until the context ends. What could not be done in time is not made up for.
func (s *shots) run(ctx context.Context, rate int, shoot func(i int)) *flooded {
	fmt.Println("ready")
	began, i := time.Now(), 0
	one := func() {
		s.tried.Add(1)
		shoot(i)
		i++
	}
	if rate == 0 {
		for range 64 {
			one()
		}
		for ctx.Err() == nil {
			select {
			case <-s.more:
				one()
			case <-ctx.Done():
			}
		}
	}
	owed := 0.0
	for last := time.Now(); ctx.Err() == nil; {
		time.Sleep(time.Millisecond)
		now := time.Now()
		owed += now.Sub(last).Seconds() * float64(rate)
		last = now
		for burst := rate / 50; owed >= 1; owed-- {
			if burst--; burst < 0 {
				s.tried.Add(int64(owed)) // there was no time for these
				owed = 0
				break
			}
			one()
		}
	}
	return &flooded{
		Seconds: time.Since(began).Seconds(), Tried: s.tried.Load(), Sent: s.sent.Load(), Answered: s.answered.Load(), Refused: s.refused.Load(),
	}
}

// A shot is a circuit of a flood.
type shot struct {
	all  *shots
	circ atomic.Pointer[link.Circ]
	came atomic.Bool
}

func (s *shot) Created([]byte) {
	s.came.Store(true)
	s.all.over(&s.all.answered)
	s.end()
}

// end closes the circuit, if it is known and has its answer.
func (s *shot) end() {
	if c := s.circ.Load(); c != nil && s.came.Load() {
		c.Close(cell.DestroyNone)
	}
}

func (*shot) Receive([]cell.Cell) {}
func (*shot) Room()               {}

func (s *shot) Closed(cell.DestroyReason) {
	if !s.came.Load() {
		s.all.over(&s.all.refused)
	}
}

// request is a CREATE that the relay answers, however often it comes: a flooder makes it once.
func (f *flooding) request(ctx context.Context) (m cell.Create, err error) {
	nc, err := f.dial(ctx, 1<<17)
	if err != nil {
		return m, err
	}
	sent := make(chan cell.Create, 1)
	lc, end, err := f.link(ctx, nc, func(in bool, cells []cell.Cell) {
		for i := range cells {
			if in || cells[i].Command() != cell.CmdCreate {
				continue
			}
			if m, err := cell.ParseCreate(cells[i].Body()); err == nil {
				m.Request = slices.Clone(m.Request)
				sent <- m
			}
		}
	})
	if err != nil {
		return m, err
	}
	defer end()
	if _, err := f.build(ctx, lc); err != nil {
		return m, err
	}
	return <-sent, nil
}

// creates floods with CREATE. A link that ends is made anew.
func (f *flooding) creates(ctx context.Context) (*flooded, error) {
	m, err := f.request(ctx)
	if err != nil {
		return nil, err
	}
	links, again := make([]atomic.Pointer[link.Conn], f.From), make([]atomic.Bool, f.From)
	dial := func(i int) error {
		lc, _, err := f.linkFrom(ctx, i)
		if err == nil {
			links[i].Store(lc)
		}
		return err
	}
	for i := range links {
		if err := dial(i); err != nil {
			return nil, err
		}
	}
	all := newShots()
	return all.run(ctx, f.Rate, func(i int) {
		i %= f.From
		lc := links[i].Load()
		s := &shot{all: all}
		c, err := lc.Open(s, m)
		if err == nil {
			all.sent.Add(1)
			s.circ.Store(c)
			s.end()
		} else if lc.Err() != nil && again[i].CompareAndSwap(false, true) {
			go func() {
				defer again[i].Store(false)
				if dial(i) != nil {
					time.Sleep(100 * time.Millisecond)
				}
			}()
		}
	}), nil
}

// recorder keeps what is written first.
type recorder struct {
	net.Conn
	first []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.first == nil {
		r.first = slices.Clone(b)
	}
	return r.Conn.Write(b)
}

// links floods with the first message of a link's handshake. A thousand are under way; of more the oldest are given up.
func (f *flooding) links(ctx context.Context) (*flooded, error) {
	nc, err := f.dial(ctx, 1<<17)
	if err != nil {
		return nil, err
	}
	r := &recorder{Conn: nc}
	_, end, err := f.link(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	end()
	all := newShots()
	const many = 1000
	places, under := make(chan struct{}, 64), make(chan net.Conn, many)
	return all.run(ctx, f.Rate, func(i int) {
		select {
		case places <- struct{}{}:
		default:
			return // as many as are being dialled
		}
		go func() {
			nc, err := f.dial(ctx, i%f.From)
			<-places
			if err != nil {
				all.over(&all.refused)
				return
			}
			nc.(*net.TCPConn).SetLinger(0)
			for sent := false; !sent; {
				select {
				case under <- nc:
					sent = true
				default:
					select {
					case old := <-under:
						old.Close()
					default:
					}
				}
			}
			nc.Write(r.first)
			all.sent.Add(1)
			if _, err := nc.Read(make([]byte, 1)); err != nil {
				all.over(&all.refused)
			} else {
				all.over(&all.answered)
			}
			nc.Close()
		}()
	}), nil
}

// begins floods with BEGIN, on two hundred circuits.
func (f *flooding) begins(ctx context.Context) (*flooded, error) {
	const many = 200
	var circuits []*circuit.Circuit
	for i := range f.From {
		lc, _, err := f.linkFrom(ctx, i)
		if err != nil {
			return nil, err
		}
		for range many / f.From {
			c, err := f.build(ctx, lc)
			if err != nil {
				return nil, err
			}
			circuits = append(circuits, c)
		}
	}
	all := newShots()
	places := make(chan struct{}, 8192)
	return all.run(ctx, f.Rate, func(i int) {
		select {
		case places <- struct{}{}:
		default:
			return
		}
		go func() {
			all.sent.Add(1)
			_, err := circuits[i%len(circuits)].Dial(ctx, cell.Begin{Host: "127.0.0.1", Port: 1})
			<-places
			if errors.Is(err, &stream.EndError{Reason: cell.EndBusy}) {
				all.over(&all.refused)
			} else {
				all.over(&all.answered)
			}
		}()
	}), nil
}

// honest is the last to come, and waits until it is told to measure.
func (f *flooding) honest(told context.Context) (*flooded, error) {
	const soon, atAll = 2 * time.Second, time.Minute
	ctx := context.Background()
	host, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := host.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				chunk := make([]byte, 64<<10)
				for {
					if _, err := c.Write(chunk); err != nil {
						return
					}
				}
			}()
		}
	}()
	at := host.Addr().(*net.TCPAddr).AddrPort()
	begin := cell.Begin{Host: at.Addr().String(), Port: at.Port()}

	links := make([]*link.Conn, 21) // the first for the download
	for i := range links {
		if links[i], _, err = f.linkFrom(ctx, 1<<16+i); err != nil {
			return nil, err
		}
	}
	c, err := f.build(ctx, links[0])
	if err != nil {
		return nil, err
	}
	s, err := c.Dial(ctx, begin)
	if err != nil {
		return nil, err
	}
	var bytes atomic.Int64
	broken := make(chan error, 1)
	go func() {
		buf := make([]byte, 256<<10)
		for {
			n, err := s.Read(buf)
			bytes.Add(int64(n))
			if err != nil {
				broken <- err
				return
			}
		}
	}()
	fmt.Println("ready")
	<-told.Done()

	out := new(flooded)
	var mu sync.Mutex
	var all sync.WaitGroup
	before, began := bytes.Load(), time.Now()
	every := func(pause time.Duration, in *inTime, try func(ctx context.Context, i int) error) {
		all.Go(func() {
			var under sync.WaitGroup
			var took []float64
			for i := 0; i == 0 || time.Since(began) < f.For; i++ { // on a busy machine this may begin late
				under.Go(func() {
					ctx, cancel := context.WithTimeout(ctx, atAll)
					defer cancel()
					from := time.Now()
					err := try(ctx, i)
					d := time.Since(from)
					mu.Lock()
					defer mu.Unlock()
					in.Tried++
					took = append(took, d.Seconds()*1000)
					if err != nil {
						if len(out.Faults) < 5 {
							out.Faults = append(out.Faults, err.Error())
						}
						return
					}
					in.Came++
					if d <= soon {
						in.Soon++
					}
				})
				time.Sleep(pause)
			}
			under.Wait()
			slices.Sort(took)
			in.Median, in.Most = took[len(took)/2], took[len(took)-1]
		})
	}
	every(50*time.Millisecond, &out.Circuits, func(ctx context.Context, i int) error {
		c, err := f.build(ctx, links[1+i%(len(links)-1)])
		if err == nil {
			c.Close()
		}
		return err
	})
	every(100*time.Millisecond, &out.Clients, func(ctx context.Context, i int) error {
		lc, end, err := f.linkFrom(ctx, 1<<16+len(links)+i)
		if err != nil {
			return err
		}
		defer end()
		c, err := f.build(ctx, lc)
		if err != nil {
			return err
		}
		defer c.Close()
		s, err := c.Dial(ctx, begin)
		if err != nil {
			return err
		}
		_, err = io.ReadFull(s, make([]byte, 1))
		return err
	})
	time.Sleep(f.For)
	out.Seconds, out.Bytes = time.Since(began).Seconds(), bytes.Load()-before
	all.Wait()
	select {
	case err := <-broken:
		return nil, fmt.Errorf("the download broke: %w", err)
	default:
		return out, nil
	}
}
