package netns

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peel/testnet/memnet"
)

// raced is set where the race detector is to see tests that look at no time, beside others (.ci/run).
const raced = "PEEL_RACE"

// spaces makes a net of n machines, 10.1.0.1 and so on, that runs until the test ends. The test runs where PEEL_SLOW is set, or another variable.
func spaces(t testing.TB, n int, or ...string) (*Net, []*Space) {
	t.Helper()
	if !slices.ContainsFunc(append(or, "PEEL_SLOW"), func(name string) bool { return os.Getenv(name) != "" }) {
		t.Skip("needs root and network namespaces: PEEL_SLOW=1 runs it")
	}
	net := New(1)
	var all []*Space
	for i := range n {
		s, err := NewSpace(netip.AddrFrom4([4]byte{10, byte(i + 1), 0, 1}))
		if err != nil {
			t.Skipf("notice: network namespaces cannot be had here, so the emulator is not tried on them: %v", err)
		}
		t.Cleanup(func() { s.Close() })
		if err := net.Add(s.Addr(), s.Wire()); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- net.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return net, all
}

// fixed is the same way between all.
func fixed(w memnet.Way) func(_, _ netip.Addr) memnet.Way {
	return func(_, _ netip.Addr) memnet.Way { return w }
}

// serve answers each connection to a machine until the test ends.
func serve(t *testing.T, s *Space, answer func(net.Conn)) string {
	t.Helper()
	l, err := s.Listen(netip.AddrPortFrom(s.Addr(), 80))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				answer(c)
			})
		}
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// dial dials from a machine, for a minute at most in all.
func dial(t *testing.T, s *Space, addr string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := s.DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { c.Close() })
	return c
}

// until waits for something, for a minute at most.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute until %s", what)
		}
	}
}

func echo(c net.Conn) { io.Copy(c, struct{ io.Reader }{c}) }

// ask sends a byte and waits for it to come back.
func ask(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte{7}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// Kernels that talk over the emulator see the delay that was asked for, a rate, and a connection that waits out a division.
func TestMachinesSeeTheirWeather(t *testing.T) {
	n, s := spaces(t, 3)
	addr := serve(t, s[1], echo)
	n.SetWays(func(from, _ netip.Addr) memnet.Way {
		if from == s[0].Addr() {
			return memnet.Way{Delay: 30 * time.Millisecond}
		}
		return memnet.Way{Delay: 10 * time.Millisecond}
	})
	for _, x := range []struct {
		from *Space
		trip time.Duration
	}{{s[0], 40 * time.Millisecond}, {s[2], 20 * time.Millisecond}} {
		begun := time.Now()
		c := dial(t, x.from, addr)
		for range 5 {
			ask(t, c)
		}
		if took := time.Since(begun); took < 6*x.trip {
			t.Errorf("six times there and back took %v, less than %v", took, 6*x.trip)
		}
	}
	n.SetWays(fixed(memnet.Way{Rate: 500_000}))
	c, begun := dial(t, s[0], addr), time.Now()
	const size = 250_000
	go c.Write(make([]byte, size))
	if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < size*time.Second/500_000 {
		t.Errorf("%d bytes came in %v at 500 kB/s", size, took)
	}

	n.SetWays(fixed(memnet.Way{}))
	before := n.Counts()
	n.Part(map[netip.Addr]int{s[0].Addr(): 1, s[1].Addr(): 2})
	if _, err := c.Write([]byte("after all")); err != nil {
		t.Fatal(err)
	}
	until(t, "a packet is kept from a machine on the other side", func() bool { return n.Counts().Unheard > before.Unheard })
	n.Part(nil)
	got := make([]byte, 9)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "after all" {
		t.Errorf("%q, %v", got, err)
	}
}

// Of datagrams that a machine sends so many are lost as were asked for, and those that are not arrive in order, whatever the jitter.
func TestMachinesLoseWhatTheWeatherTakes(t *testing.T) {
	n, s := spaces(t, 2)
	n.SetWays(fixed(memnet.Way{Loss: 0.2, Delay: time.Millisecond, Jitter: 5 * time.Millisecond}))
	var in, out *net.UDPConn
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(s[1].Addr(), 5000))
	err := errors.Join(
		s[1].Do(func() (err error) { in, err = net.ListenUDP("udp4", at); return err }),
		s[0].Do(func() (err error) { out, err = net.DialUDP("udp4", nil, at); return err }))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	in.SetReadDeadline(time.Now().Add(time.Minute))
	const rounds, each = 20, 100 // a round fits into the socket's buffer
	last, got := -1, 0
	for i := range rounds {
		for k := range each {
			if _, err := out.Write(binary.BigEndian.AppendUint32(nil, uint32(i*each+k))); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "all packets are lost or there", func() bool {
			c := n.Counts()
			return c.Carried+c.Lost+c.Full >= uint64((i+1)*each)
		})
		for b := make([]byte, 8); got < int(n.Counts().Carried); got++ {
			if _, err := in.Read(b); err != nil {
				t.Fatal(err)
			}
			if k := int(binary.BigEndian.Uint32(b)); k <= last {
				t.Fatalf("%d came after %d", k, last)
			} else {
				last = k
			}
		}
	}
	c := n.Counts()
	if share := float64(c.Lost) / (rounds * each); share < 0.15 || share > 0.25 || c.Carried+c.Lost != rounds*each || c.Full != 0 {
		t.Errorf("%.2f are lost, want 0.2: %+v", share, c)
	}
}

// What TCP carries through a storm is what was sent, and a connection that the weather breaks is broken at once.
func TestConnectionsInAStorm(t *testing.T) {
	n, s := spaces(t, 2, raced)
	addr := serve(t, s[1], echo)
	n.SetWays(fixed(memnet.Way{Delay: 2 * time.Millisecond, Jitter: 3 * time.Millisecond, Loss: 0.02, Rate: 2_000_000}))
	const size = 400_000
	sent, got := sha256.New(), sha256.New()
	c := dial(t, s[0], addr)
	go io.Copy(c, io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sent))
	if k, err := io.CopyN(got, c, size); err != nil {
		t.Fatalf("after %d bytes: %v", k, err)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("other bytes arrived")
	}
	if c := n.Counts(); c.Lost == 0 {
		t.Errorf("%+v", c)
	}
	n.SetWays(func(from, _ netip.Addr) memnet.Way { // of what comes back: who waits for it hears of the reset
		if from == s[1].Addr() {
			return memnet.Way{Resets: 0.5}
		}
		return memnet.Way{}
	})
	for err := error(nil); err == nil; {
		if _, err = c.Write([]byte{1}); err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the connection ended with %v", err)
		}
	}
	if c := n.Counts(); c.Broken == 0 {
		t.Errorf("%+v", c)
	}
}

// Processes and sockets are where they were asked to be, and this program stays where it is.
func TestProcessesAreOnTheirMachine(t *testing.T) {
	_, s := spaces(t, 1, raced)
	where := func() (string, error) { return os.Readlink("/proc/thread-self/ns/net") }
	home, err := where()
	if err != nil {
		t.Fatal(err)
	}
	inside := ""
	if err := s[0].Do(func() (err error) { inside, err = where(); return err }); err != nil || inside == home {
		t.Fatalf("%v: in %s, as before", err, inside)
	}
	for range 20 {
		cmd := exec.Command("readlink", "/proc/self/ns/net")
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := s[0].Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || strings.TrimSpace(out.String()) != inside {
			t.Errorf("%v: a process is in %q, not in %s", err, out.String(), inside)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if at, err := where(); err != nil || at != home {
					t.Errorf("a thread of ours is in %s: %v", at, err)
				}
			})
		}
		wg.Wait()
	}
	if _, err := s[0].DialContext(t.Context(), "tcp", "localhost:80"); err == nil || errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a name was looked up: %v", err)
	}
}
