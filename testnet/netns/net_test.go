package netns

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"peel/testnet/memnet"
)

// wire is a machine's wire in memory.
type wire struct {
	sends  chan []byte
	gets   chan arrival
	closed chan struct{}
	err    error // of Read, when sends is closed
}

type arrival struct {
	at time.Time
	b  []byte
}

func newWire() *wire {
	return &wire{sends: make(chan []byte), gets: make(chan arrival, 10000), closed: make(chan struct{}), err: io.EOF}
}

func (w *wire) Read(b []byte) (int, error) {
	select {
	case p, ok := <-w.sends:
		if !ok {
			return 0, w.err
		}
		return copy(b, p), nil
	case <-w.closed:
		return 0, io.ErrClosedPipe
	}
}

func (w *wire) Write(b []byte) (int, error) {
	w.gets <- arrival{time.Now(), slices.Clone(b)}
	return len(b), nil
}

func (w *wire) Close() error {
	close(w.closed)
	return nil
}

// got takes all that has arrived.
func (w *wire) got() (all []arrival) {
	for {
		select {
		case a := <-w.gets:
			all = append(all, a)
		default:
			return all
		}
	}
}

// within runs a net of two machines in virtual time.
func within(t *testing.T, test func(n *Net, a, b *wire)) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := New(1), newWire(), newWire()
		for addr, w := range map[[4]byte]*wire{here: a, there: b} {
			if err := n.Add(netip.AddrFrom4(addr), w); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		test(n, a, b)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestPacketsArriveWhenTheyAreDue(t *testing.T) {
	within(t, func(n *Net, a, b *wire) {
		n.SetWays(func(from, _ netip.Addr) memnet.Way {
			if from == netip.AddrFrom4(here) {
				return memnet.Way{Delay: 40 * time.Millisecond}
			}
			return memnet.Way{Delay: 10 * time.Millisecond}
		})
		begun := time.Now()
		for i := range 100 {
			a.sends <- testPacket(here, there, uint16(i), 10)
			b.sends <- testPacket(there, here, uint16(i), 10)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		for _, x := range []struct {
			w     *wire
			delay time.Duration
		}{{b, 40 * time.Millisecond}, {a, 10 * time.Millisecond}} {
			got := x.w.got()
			if len(got) != 100 {
				t.Fatalf("%d packets of 100 arrived", len(got))
			}
			for i, p := range got {
				if late := p.at.Sub(begun) - time.Duration(i)*time.Millisecond; late != x.delay || p.b[21] != byte(i) {
					t.Errorf("packet %d arrived after %v, want %v: %x", i, late, x.delay, p.b[:24])
				}
			}
		}
		if c := n.Counts(); c != (Counts{Carried: 200}) {
			t.Errorf("%+v", c)
		}
	})
}

// A frozen machine, and one in another part of the network, hears nothing and is not heard; then it is as before.
func TestFrostAndDivision(t *testing.T) {
	within(t, func(n *Net, a, b *wire) {
		talk := func() (heard int) {
			a.sends <- testPacket(here, there, 1, 10)
			b.sends <- testPacket(there, here, 1, 10)
			time.Sleep(time.Second)
			return len(a.got()) + len(b.got())
		}
		far := netip.AddrFrom4(there)
		for _, x := range []struct {
			what string
			do   func()
			want int
		}{
			{"calm", func() {}, 2}, {"frozen", func() { n.Freeze(far, true) }, 0}, {"thawed", func() { n.Freeze(far, false) }, 2},
			{"apart", func() { n.Part(map[netip.Addr]int{far: 1, netip.AddrFrom4(here): 2}) }, 0},
			{"in one part", func() { n.Part(map[netip.Addr]int{far: 1, netip.AddrFrom4(here): 1}) }, 2},
			{"one in none", func() { n.Part(map[netip.Addr]int{far: 1}) }, 2}, {"whole", func() { n.Part(nil) }, 2},
		} {
			x.do()
			if got := talk(); got != x.want {
				t.Errorf("%s: %d packets of 2 were heard", x.what, got)
			}
		}
		// What is under way to a machine when it freezes is not heard either.
		n.SetWays(func(_, _ netip.Addr) memnet.Way { return memnet.Way{Delay: time.Minute} })
		a.sends <- testPacket(here, there, 1, 10)
		time.Sleep(time.Second)
		n.Freeze(far, true)
		time.Sleep(2 * time.Minute)
		if got := b.got(); len(got) != 0 {
			t.Errorf("a frozen machine heard %d", len(got))
		}
		if c := n.Counts(); c != (Counts{Carried: 10, Unheard: 5}) {
			t.Errorf("%+v", c)
		}
	})
}

// A machine's rate is of all that it sends, to whomever; what it cannot send it drops, and counts.
func TestAMachineSendsAtItsRate(t *testing.T) {
	within(t, func(n *Net, a, b *wire) {
		n.SetRate(netip.AddrFrom4(here), 100_000)
		begun := time.Now()
		for range 1000 {
			a.sends <- testPacket(here, there, 1, 960) // 1000 bytes, so one in 10 ms
		}
		time.Sleep(time.Minute)
		got := b.got()
		c := n.Counts()
		if len(got) < 30 || len(got) > 40 || c.Carried+c.Full != 1000 || int(c.Carried) != len(got) {
			t.Errorf("%d arrived; %+v", len(got), c)
		}
		for i, p := range got {
			if want := time.Duration(i+1) * 10 * time.Millisecond; p.at.Sub(begun) != want {
				t.Fatalf("packet %d arrived after %v, want %v", i, p.at.Sub(begun), want)
			}
		}
	})
}

func TestPacketsForNobodyGoNowhere(t *testing.T) {
	within(t, func(n *Net, a, b *wire) {
		for _, p := range [][]byte{testPacket(here, [4]byte{10, 9, 9, 9}, 1, 1), testPacket(here, here, 1, 1), {0x60, 1, 2}, {}} {
			a.sends <- p
		}
		time.Sleep(time.Second)
		if c := n.Counts(); c != (Counts{Other: 4}) || len(a.got())+len(b.got()) != 0 {
			t.Errorf("%+v", c)
		}
		if n.Add(netip.AddrFrom4(here), a) == nil || n.Add(netip.IPv6Loopback(), a) == nil {
			t.Error("an address is taken twice, or is none of IPv4")
		}
		n.Freeze(netip.IPv6Loopback(), true) // nobody
		n.SetRate(netip.IPv6Loopback(), 1)
	})
}

// What is too much for a machine is dropped and counted, however long the way is.
func TestWhatIsUnderWayHasABound(t *testing.T) {
	within(t, func(n *Net, a, b *wire) {
		n.SetWays(func(_, _ netip.Addr) memnet.Way { return memnet.Way{Delay: time.Hour} })
		p := testPacket(here, there, 1, 10)
		for range mostUnderWay + 100 {
			a.sends <- p
		}
		time.Sleep(2 * time.Hour)
		if c := n.Counts(); c != (Counts{Carried: mostUnderWay, Full: 100}) || len(b.got()) != mostUnderWay {
			t.Errorf("%+v", c)
		}
	})
}

func TestAWireThatFailsEndsTheNet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := New(1), newWire(), newWire()
		n.Add(netip.AddrFrom4(here), a)
		n.Add(netip.AddrFrom4(there), b)
		a.err = errors.New("cut with scissors")
		close(a.sends)
		if err := n.Run(t.Context()); !errors.Is(err, a.err) {
			t.Error(err)
		}
		<-b.closed
	})
}
