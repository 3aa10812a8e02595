package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/proxy"

	"peel/cell"
	"peel/cell/link/linktest"
	"peel/client/path"
	"peel/client/socks"
)

// from is a connection of an application at an address of its own.
type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// caller makes connections to a door from an address.
type caller struct {
	door *linktest.Listener
	addr string
}

func (c caller) Dial(string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case c.door.Conns <- from{theirs, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.addr + ":1"))}:
		return ours, nil
	case <-c.door.Closed:
		return nil, net.ErrClosed
	}
}

// say connects through a door with SOCKS 5 and sends a text, which comes back.
func (c caller) say(auth *proxy.Auth, host string, port int, text string) error {
	d, err := proxy.SOCKS5("tcp", "door", auth, c)
	if err != nil {
		return err
	}
	conn, err := d.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != text {
		return fmt.Errorf("%q came back: %v", b, err)
	}
	return nil
}

// What a person or program is to the doors: an address, a user and a password.
type someone struct {
	addr, user, password string
	named                bool
}

// A hundred people use five ports with different rules, each by turns with hosts and ports of all kinds, and take a new identity in the
// middle of it. Whatever the rules keep apart is never on one circuit, nor is what was said before and after.
func TestDoorsKeepApartWhatTheirRulesKeepApart(t *testing.T) {
	people, streams := 100, 12
	if os.Getenv("PEEL_SLOW") != "" {
		streams = 100
	}
	if n, err := strconv.Atoi(os.Getenv("PEEL_STREAMS")); err == nil { // 1000 take some minutes
		streams = n
	}
	t.Logf("%d streams for each person: PEEL_STREAMS makes others", streams)
	rules := []socks.Rules{
		{}, {Group: "g"}, {Group: "g"}, {IsolateHosts: true}, {ShareUsers: true, IsolatePorts: true}, {ShareUsers: true, ShareClients: true},
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		server := c.SOCKSServer(nil)
		doors := make([]*linktest.Listener, len(rules))
		for i, r := range rules {
			doors[i] = linktest.Listen(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(9250+i)))
			wg.Go(func() { server.ServeRules(ctx, doors[i], r) })
		}
		// key is what must be equal for two streams to share, by the words of spec/socks.md and not by the code.
		key := func(era, door int, p someone, host string, port int) string {
			k := []any{era, door, p.addr, p.user, p.password, p.named, "", 0}
			if r := rules[door]; true {
				if r.Group != "" {
					k[1] = r.Group
				}
				if r.ShareClients {
					k[2] = ""
				}
				if r.ShareUsers {
					k[3], k[4], k[5] = "", "", false
				}
				if r.IsolateHosts {
					k[6] = host
				}
				if r.IsolatePorts {
					k[7] = port
				}
			}
			return fmt.Sprintf("%q", k)
		}
		var mu sync.Mutex
		numbers := map[string]int{} // of keys, as streams say them
		var users sync.WaitGroup
		era := func(era int) {
			for i := range people {
				users.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(i), uint64(era)))
					p := someone{addr: fmt.Sprintf("127.0.0.%d", 1+i%4), user: fmt.Sprint("u", i%10), password: fmt.Sprint("p", i/10%5), named: i%7 != 0}
					var auth *proxy.Auth
					if p.named {
						auth = &proxy.Auth{User: p.user, Password: p.password}
					} else {
						p.user, p.password = "", ""
					}
					for range streams / 2 {
						d, host, port := rng.IntN(len(doors)), fmt.Sprintf("h%d.example", rng.IntN(4)), []int{80, 443}[rng.IntN(2)]
						k := key(era, d, p, host, port)
						mu.Lock()
						n, ok := numbers[k]
						if !ok {
							n = len(numbers)
							numbers[k] = n
						}
						mu.Unlock()
						if err := (caller{doors[d], p.addr}).say(auth, host, port, fmt.Sprintf("%07d\n", n)); err != nil {
							t.Errorf("person %d at door %d: %v", i, d, err)
							return
						}
					}
				})
			}
			users.Wait()
		}
		era(0)
		if err := c.NewIdentity(t.Context()); err != nil {
			t.Fatal(err)
		}
		era(1)
		cancel()
		wg.Wait()
		total, circuits := 0, w.said()
		for _, said := range circuits {
			all := strings.Fields(said)
			total += len(all)
			for _, n := range all {
				if n != all[0] {
					t.Errorf("on one circuit: %s and %s of %d isolations", all[0], n, len(numbers))
				}
			}
		}
		if total != people*(streams/2)*2 {
			t.Errorf("%d streams arrived instead of %d", total, people*(streams/2)*2)
		}
		if len(circuits) >= total {
			t.Errorf("%d circuits for %d streams: nothing is shared, and the test shows nothing", len(circuits), total)
		}
		c.pool.mu.Lock()
		held := len(c.pool.circs)
		c.pool.mu.Unlock()
		if held > defaultCircuits {
			t.Errorf("%d circuits are held", held)
		}
		t.Logf("%d streams of %d isolations on %d circuits, %d of them held at the end", total, len(numbers), len(circuits), held)
	})
}

// However many identities there are, what is kept of them does not grow.
func TestManyIdentitiesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 20
		c := newWorld(t, 6).ready(Config{Spare: 1, Circuits: most})
		for i := range 300 {
			if err := dialAndEcho(c.Isolated(fmt.Sprint(i)), "www.example:443"); err != nil {
				t.Fatal(i, err)
			}
			c.pool.mu.Lock()
			held := len(c.pool.circs)
			c.pool.mu.Unlock()
			if held > most {
				t.Fatalf("%d circuits after %d identities", held, i+1)
			}
		}
	})
}

// A new identity leaves guards and open streams as they are; circuits that served nobody yet serve at once.
func TestNewIdentityKeepsGuardsAndOpenStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		time.Sleep(time.Second)
		guards := c.Guards()
		conn := mustDial(t, c, "before.example:443")
		defer conn.Close()
		time.Sleep(time.Second) // another spare one is there
		begun := c.pool.count
		if err := c.NewIdentity(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := dialAndEcho(c, "after.example:443"); err != nil {
			t.Fatal(err)
		}
		if err := echo(conn); err != nil {
			t.Errorf("the stream from before: %v", err)
		}
		if c.pool.count > begun+1 { // the upkeep replaces the spare one
			t.Errorf("%d circuits were begun for one stream, with spare ones there", c.pool.count-begun)
		}
		after := c.Guards()
		if len(after) != len(guards) || len(guards) == 0 || after[0].ID != guards[0].ID {
			t.Errorf("the guards changed")
		}
		for _, hosts := range w.asked() {
			if all := strings.Join(hosts, " "); strings.Contains(all, "before") && strings.Contains(all, "after") {
				t.Errorf("on one circuit: %s", all)
			}
		}
		conn.Close()
		time.Sleep(retireAfter)
		c.pool.mu.Lock()
		defer c.pool.mu.Unlock()
		for h := range c.pool.circs {
			if h.era != 1 {
				t.Error("a circuit from before is still there, without streams")
			}
		}
	})
}

// That circuits end together tells those who run their exits that they are of one client. A new identity is to keep things apart, and other rules
// or another guard are no reason either: each of those of before ends when it would have without.
func TestCircuitsOfBeforeDoNotEndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for what, do := range map[string]func(*Client) error{
			"nothing":        func(*Client) error { return nil },
			"a new identity": func(c *Client) error { return c.NewIdentity(t.Context()) },
			"the same rules": func(c *Client) error { return c.Change(path.Rules{}) },
			"other rules":    func(c *Client) error { return c.Change(path.Rules{Own: []cell.NodeID{{1}}}) },
			"another guard": func(c *Client) error {
				id := c.Guards()[0].ID
				c.pool.mu.Lock()
				defer c.pool.unlock()
				if !c.pool.leave(id, "nearly no circuit can be built to its end", false) {
					return errors.New("the guard was not left")
				}
				return nil
			},
		} {
			var ends []time.Time
			c := newWorld(t, 12).client(Config{Events: func(e Event) {
				if e.Kind == EventCircuitClosed {
					ends = append(ends, e.Time)
				}
			}})
			stop := run(t, c)
			if err := c.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			for _, who := range []string{"a", "b", "c"} {
				if err := dialAndEcho(c.Isolated(who), "www.example:443"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
			}
			if err := do(c); err != nil {
				t.Fatal(err)
			}
			time.Sleep(15 * time.Minute)
			stop()
			var got []time.Duration
			for _, end := range ends {
				after := end.Sub(began).Round(time.Minute)
				if spare := strings.Contains(what, "other ") && after == 3*time.Minute; !spare && after <= 12*time.Minute { // then Run ends
					got = append(got, after)
				}
			}
			if want := []time.Duration{10 * time.Minute, 11 * time.Minute, 12 * time.Minute}; !slices.Equal(got, want) {
				t.Errorf("%s: the circuits of three ended after %v, want %v", what, got, want)
			}
		}
	})
}

// A request that waits from before on gets no circuit of those after, nor the other way round, whoever comes first.
func TestRequestsFromBeforeStayThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() { // the first circuit answers nothing: another is tried 25 s later, in the time of others
				c.DialContext(t.Context(), "tcp", fmt.Sprintf("silence-before%d.example:443", i))
				c.DialContext(t.Context(), "tcp", "end-5.example:443")
			})
		}
		time.Sleep(time.Second)
		before := request{token: nil, era: c.pool.nowEra()}
		before.usage.Port = 443
		if err := c.NewIdentity(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := dialAndEcho(c, "after.example:443"); err != nil {
			t.Fatal(err)
		}
		h, err := c.pool.get(t.Context(), before)
		if err != nil {
			t.Fatal(err)
		}
		if h.era != 0 {
			t.Errorf("a request of before got a circuit of era %d", h.era)
		}
		c.pool.release(h)
		c.pool.mu.Lock()
		for other := range c.pool.circs {
			r := before
			if r.era = 1; other == h && other.serves(r, c.pool.faults, time.Now()) {
				t.Error("the circuit of before serves requests of after")
			}
		}
		c.pool.mu.Unlock()
		wg.Wait()
		for _, hosts := range w.asked() {
			if all := strings.Join(hosts, " "); strings.Contains(all, "before") && strings.Contains(all, "after") {
				t.Errorf("on one circuit: %s", all)
			}
		}
	})
}

// There is one new identity in ten seconds. Who asks for more waits, and those who wait share one.
func TestNewIdentitiesAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		c := newWorld(t, 6).client(Config{})
		if err := c.NewIdentity(ctx); err != nil {
			t.Fatal("before Run:", err)
		}
		over := make(chan error)
		go func() { over <- c.Run(ctx) }()
		time.Sleep(time.Minute)
		begun := time.Now()
		took := func() time.Duration {
			if err := c.NewIdentity(ctx); err != nil {
				t.Error(err)
			}
			return time.Since(begun)
		}
		if d := took(); d != 0 {
			t.Errorf("the first took %v", d)
		}
		time.Sleep(3 * time.Second)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if d := took(); d != 10*time.Second {
					t.Errorf("done %v after the first", d)
				}
			})
		}
		wg.Wait()
		if e := c.pool.nowEra(); e != 3 {
			t.Errorf("%d new identities instead of 3", e)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := c.NewIdentity(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "one in 10s") {
			t.Error(err)
		}
		late := make(chan error)
		go func() { late <- c.NewIdentity(context.Background()) }()
		synctest.Wait()
		stop()
		if err := <-late; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if err := <-over; err != nil {
			t.Error(err)
		}
		if err := c.NewIdentity(context.Background()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// askDNS asks a DNS server over TCP for the address of a name, and wants one.
func askDNS(c caller, name string) error {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := m.AppendPack([]byte{0, 0})
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	conn, err := c.Dial("", "")
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(b); err != nil {
		return err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	b = make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, b); err != nil {
		return err
	}
	if err := m.Unpack(b); err != nil || len(m.Answers) != 1 {
		return fmt.Errorf("%v, %d answers", err, len(m.Answers))
	}
	return nil
}

// What a DNS server kept for one identity is not told to the next, and virtual addresses of before lead nowhere.
func TestNewIdentityForgetsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		service := strings.Repeat("a", 56) + serviceSuffix
		found, err := c.Lookup(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		if name, ok := c.virtual.name(found[0].Addr); !ok || name != service {
			t.Fatal(name, ok)
		}
		server := c.DNSServer(nil)
		d := linktest.Listen(netip.MustParseAddrPort("127.0.0.1:53"))
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() { served <- server.ServeListener(ctx, d) }()
		defer func() { cancel(); <-served }()
		query := func() {
			if err := askDNS(caller{d, "127.0.0.1"}, "www.example.com."); err != nil {
				t.Error(err)
			}
		}
		query()
		query()
		if s := server.Stats(); s.Lookups != 1 || s.Cached != 1 {
			t.Fatalf("%+v", s)
		}
		if err := c.NewIdentity(t.Context()); err != nil {
			t.Fatal(err)
		}
		query()
		if s := server.Stats(); s.Lookups != 2 {
			t.Errorf("%+v", s)
		}
		if _, ok := c.virtual.name(found[0].Addr); ok {
			t.Error("a virtual address still leads where it led")
		}
	})
}

// Events come in order, and one who is slow to take them misses some, is told how many, and holds up nothing.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []Event
		slow := make(chan struct{})
		c := newWorld(t, 6).ready(Config{Circuits: 50, Events: func(e Event) {
			if e.Kind == EventNewIdentity {
				<-slow
			}
			got = append(got, e)
		}})
		if err := c.NewIdentity(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 800 { // three events each, which is more than are kept
			if err := dialAndEcho(c.Isolated(i), "www.example:443"); err != nil {
				t.Fatal(err)
			}
		}
		close(slow)
		synctest.Wait()
		c.NewIdentity(t.Context())
		synctest.Wait()
		seen := map[EventKind]int{}
		begun, built := map[uint64]bool{}, map[uint64]bool{}
		missed, percent := 0, -1
		for _, e := range got {
			seen[e.Kind]++
			missed += e.Missed
			switch e.Kind {
			case EventBootstrap:
				if e.Progress.Percent <= percent {
					t.Errorf("%v after %d %%", e.Progress, percent)
				}
				percent = e.Progress.Percent
			case EventCircuitBegun:
				begun[e.Circuit] = true
			case EventCircuitBuilt:
				if built[e.Circuit] || e.Circuit == 0 || len(e.Path) != 3 {
					t.Errorf("%+v", e)
				}
				built[e.Circuit] = true
			}
		}
		if percent != 100 || seen[EventCircuitBuilt] == 0 || !begun[1] || missed == 0 || seen[EventNewIdentity] != 2 {
			t.Errorf("%d %%, %v, %d missed", percent, seen, missed)
		}
		if n := len(got); n > mostEvents+100 {
			t.Errorf("%d events were kept for one who took none", n)
		}
	})
}

// What a circuit carried is counted in cells, both ways.
func TestCircuitsSayWhatTheyCarried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWorld(t, 6).ready(Config{})
		carried := func() (sent, received uint64) {
			for _, i := range c.Circuits() {
				sent, received = sent+i.Sent, received+i.Received
			}
			return sent, received
		}
		synctest.Wait()
		sent, received := carried()
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		if s, r := carried(); s <= sent || r <= received {
			t.Errorf("an echo went with %d cells sent and %d received", s-sent, r-received)
		}
	})
}
