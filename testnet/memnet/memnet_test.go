package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var one, two, three = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1"), netip.MustParseAddr("10.3.0.1")

func dialled(t *testing.T, n *Net, from netip.Addr, addr string) net.Conn {
	t.Helper()
	c, err := n.Dialer(from)(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// echo answers at an address with what it hears until the test ends.
func echo(t *testing.T, n *Net, a netip.Addr) string {
	t.Helper()
	at := netip.AddrPortFrom(a, 80)
	l, err := n.Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Cut(a) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return at.String()
}

// ask sends a byte and waits for it to come back.
func ask(c net.Conn) (time.Duration, error) {
	began := time.Now()
	if _, err := c.Write([]byte("x")); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return time.Since(began), err
}

func TestDelayIsThatOfTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.SetWays(func(from, to netip.Addr) Way {
			if from == one {
				return Way{Delay: 30 * time.Millisecond}
			}
			return Way{Delay: 50 * time.Millisecond}
		})
		addr := echo(t, n, two)
		began := time.Now()
		c, err := n.Dialer(one)(t.Context(), "tcp", addr)
		if err != nil || time.Since(began) != 80*time.Millisecond {
			t.Fatalf("dialled: %v after %v", err, time.Since(began))
		}
		defer c.Close()
		if d, err := ask(c); err != nil || d != 80*time.Millisecond {
			t.Errorf("an answer: %v after %v", err, d)
		}
		n.SetWays(func(_, _ netip.Addr) Way { return Way{Delay: time.Millisecond} })
		if d, err := ask(c); err != nil || d != 2*time.Millisecond {
			t.Errorf("an answer in other weather: %v after %v", err, d)
		}
		if got := c.RemoteAddr().String(); got != addr {
			t.Errorf("the far end is %s", got)
		}
	})
}

func TestNobodyListensMeansRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		if _, err := n.Dialer(one)(t.Context(), "tcp", "10.2.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		if _, err := n.Dialer(one)(t.Context(), "tcp", "somewhere:80"); err == nil {
			t.Error("a name was dialled")
		}
		echo(t, n, two)
		if _, err := n.Listen(netip.AddrPortFrom(two, 80)); !errors.Is(err, syscall.EADDRINUSE) {
			t.Error(err)
		}
	})
}

func TestACrashBreaksAllConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		addr := echo(t, n, two)
		c := dialled(t, n, one, addr)
		n.Cut(two)
		if _, err := ask(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		if _, err := n.Dialer(one)(t.Context(), "tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		c.Close()
		echo(t, n, two) // it comes back
		dialled(t, n, one, addr).Close()
		synctest.Wait()
		if k := n.Connections(); k != 0 {
			t.Errorf("%d connections are left", k)
		}
	})
}

func TestAFrozenMachineIsSilentAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		addr := echo(t, n, two)
		dial := n.Dialer(one)
		c, err := dial(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		n.Freeze(two, true)
		time.AfterFunc(time.Minute, func() { n.Freeze(two, false) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := dial(ctx, "tcp", addr); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dialling: %v", err)
		}
		if d, err := ask(c); err != nil || d != 59*time.Second {
			t.Errorf("an answer: %v after %v", err, d)
		}
	})
}

func TestADividedNetworkHealsWithinConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		addr := echo(t, n, two)
		c := dialled(t, n, one, addr)
		defer c.Close()
		other := dialled(t, n, three, addr)
		defer other.Close()
		n.Part(map[netip.Addr]int{one: 1, two: 2, three: 2})
		time.AfterFunc(time.Minute, func() { n.Part(nil) })
		if d, err := ask(other); err != nil || d != 0 {
			t.Errorf("within a part: %v after %v", err, d)
		}
		if d, err := ask(c); err != nil || d != time.Minute {
			t.Errorf("between parts: %v after %v", err, d)
		}
		n.Part(map[netip.Addr]int{one: 1, two: 2})
		if _, err := n.Dialer(one)(t.Context(), "tcp", addr); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("dialling into the other part: %v", err)
		}
	})
}

// What is lost comes late, and everything comes, in order; and the same seed has the same losses.
func TestLossMakesLateAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := func(seed uint64) (late int, all time.Duration) {
			n := New(seed)
			n.SetWays(func(_, _ netip.Addr) Way { return Way{Delay: 10 * time.Millisecond, Loss: 0.05} })
			addr := echo(t, n, two)
			defer n.Cut(two)
			c := dialled(t, n, one, addr)
			defer c.Close()
			for range 200 {
				d, err := ask(c)
				if err != nil {
					t.Fatal(err)
				}
				if d > leastRetry {
					late++
				}
				all += d
			}
			return late, all
		}
		late, all := run(7)
		if late < 5 || late > 50 {
			t.Errorf("%d of 200 answers were late, with 5 %% loss each way", late)
		}
		if again, same := run(7); again != late || same != all {
			t.Errorf("the same seed: %d late and %v, then %d and %v", late, all, again, same)
		}
		if _, other := run(8); other == all {
			t.Error("another seed has the same losses")
		}
	})
}

func TestAMachineSendsNoFasterThanItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.SetRate(two, 1000)
		addr := echo(t, n, two)
		began := time.Now()
		for range 2 {
			c := dialled(t, n, one, addr)
			defer c.Close()
			c.Write(make([]byte, 500))
			if _, err := io.ReadFull(c, make([]byte, 500)); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("1000 bytes at 1000 a second over two connections took %v", d)
		}
	})
}

func TestResetsBreakConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.SetWays(func(_, _ netip.Addr) Way { return Way{Resets: 0.02} })
		addr := echo(t, n, two)
		c := dialled(t, n, one, addr)
		defer c.Close()
		for i := range 1000 {
			if _, err := ask(c); errors.Is(err, syscall.ECONNRESET) {
				return
			} else if err != nil {
				t.Fatalf("exchange %d: %v", i, err)
			}
		}
		t.Error("no connection broke")
	})
}

// Connections that others make meet the weather too, end as theirs do, and wait for a machine that is silent.
func TestWhatIsCarriedMeetsTheWeather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under, n := New(1), New(2)
		defer under.Close()
		addr := echo(t, under, two)
		n.SetWays(func(from, to netip.Addr) Way { return Way{Delay: 10 * time.Millisecond} })
		dial := n.Over(one, under.Dialer(one))
		c, err := dial(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if took, err := ask(c); err != nil || took != 20*time.Millisecond {
			t.Errorf("an answer after %v, %v", took, err)
		}
		c.Write([]byte("last"))
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
		if rest, err := io.ReadAll(c); string(rest) != "last" || err != nil {
			t.Errorf("behind the end came %q, %v", rest, err)
		}
		c.Close()

		if c, err = dial(t.Context(), "tcp", addr); err != nil {
			t.Fatal(err)
		}
		n.SetRate(one, 1000)
		if took, err := sized(c, 1000); err != nil || took != 1020*time.Millisecond {
			t.Errorf("1000 bytes of a machine that sends 1000 a second came back after %v, %v", took, err)
		}
		n.Cut(two)
		if _, err := ask(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection of a machine that crashed: %v", err)
		}
		c.Close()

		n.Freeze(two, true)
		begun := time.Now()
		time.AfterFunc(time.Minute, func() { n.Freeze(two, false) })
		if c, err = dial(t.Context(), "tcp", addr); err != nil || time.Since(begun) != time.Minute+20*time.Millisecond {
			t.Fatalf("connected after %v, %v", time.Since(begun), err)
		}
		n.Close()
		n.Wait()
		if n := n.Connections(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		c.Close()
	})
}

// sized sends so many bytes and waits for them to come back.
func sized(c net.Conn, n int) (time.Duration, error) {
	began := time.Now()
	if _, err := c.Write(make([]byte, n)); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(c, make([]byte, n))
	return time.Since(began), err
}
