package testnet

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/client"
	"peel/directory/cache"
	"peel/directory/dirtest"
	"peel/relay"
	"peel/testnet/memnet"
)

// harm is what is wrong with a node.
type harm int

const (
	none     harm = iota
	silent        // takes connections, and says nothing
	refusing      // takes none
	garbling      // changes what it sends after the handshake
	mute          // an authority that answers no request
	lying         // one that hands out what is no consensus
	stale         // one that hands out that of two days ago
)

// inMemory is a network of real relays in memory and virtual time, 20 ms from anywhere to anywhere.
type inMemory struct {
	*dirtest.Net
	internet *memnet.Net
	t        *testing.T
	harms    map[netip.AddrPort]harm
	listens  func(net.Listener) net.Listener // what a node has of a listener; nil: it
}

// clientAddr is where clients are.
var clientAddr = netip.MustParseAddr("10.254.0.1")

// garbled are the connections of a node that changes what it sends after the handshake.
type garbled struct{ net.Listener }

func (g garbled) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &garbler{Conn: c}, nil
}

type garbler struct {
	net.Conn
	sent atomic.Int32 // writes
}

func (g *garbler) Write(b []byte) (int, error) {
	if g.sent.Add(1) > 1 {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
	}
	return g.Conn.Write(b)
}

// listen is where a node listens: nowhere that others know, if it refuses or is silent.
func (m *inMemory) listen(a netip.AddrPort, h harm) net.Listener {
	m.harms[a] = h
	at := a
	if h == silent || h == refusing {
		at = netip.AddrPortFrom(a.Addr(), a.Port()-1)
	}
	l, err := m.internet.Listen(at)
	if err != nil {
		m.t.Fatal(err)
	}
	switch h {
	case garbling:
		return garbled{l}
	case silent: // somebody listens, who never accepts
		if _, err := m.internet.Listen(a); err != nil {
			m.t.Fatal(err)
		}
	}
	if m.listens != nil {
		return m.listens(l)
	}
	return l
}

// run runs a node until the test ends.
func (m *inMemory) run(cfg relay.Config) {
	r, err := relay.New(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	m.until(r.Run)
}

// client runs one that knows nothing but the network file, until the test ends.
func (m *inMemory) client() *client.Client {
	c, err := client.New(client.Config{Network: m.Network, Dial: m.internet.Dialer(clientAddr)})
	if err != nil {
		m.t.Fatal(err)
	}
	m.until(c.Run)
	return c
}

// until has something run until the test ends.
func (m *inMemory) until(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { run(ctx) })
	m.t.Cleanup(func() { cancel(); wg.Wait() })
}

// serve answers each connection to an address of the internet, until the test ends.
func (m *inMemory) serve(at string, answer func(net.Conn)) {
	l, err := m.internet.Listen(netip.MustParseAddrPort(at))
	if err != nil {
		m.t.Fatal(err)
	}
	m.until(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { l.Close() })()
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			go answer(c)
		}
	})
}

// newInMemory starts authorities and relays, some of which are harmed.
func newInMemory(t *testing.T, authorities, relays []harm, listens ...func(net.Listener) net.Listener) *inMemory {
	m := &inMemory{t: t, internet: memnet.New(1), harms: make(map[netip.AddrPort]harm)}
	for _, f := range listens {
		m.listens = f
	}
	m.internet.SetWays(func(_, _ netip.Addr) memnet.Way { return memnet.Way{Delay: 20 * time.Millisecond} })
	now := time.Now().UTC().Truncate(time.Second)
	m.Net = dirtest.New(1, len(relays), dirtest.Authorities(len(authorities)), dirtest.At(now))
	old := *m.Consensus
	const before = 48 * time.Hour
	old.ValidAfter, old.FreshUntil, old.ValidUntil = old.ValidAfter.Add(-before), old.FreshUntil.Add(-before), old.ValidUntil.Add(-before)
	oldText := m.Sign(&old, len(authorities))
	docs, err := cache.New(cache.Config{Network: m.Network})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := docs.Put(m.Text, now); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	for i, a := range m.Authorities {
		h := authorities[i]
		m.run(relay.Config{
			Network: m.Network, Keys: relay.Keys{Link: a.Link}, ID: a.Info.ID, Listeners: []net.Listener{m.listen(a.Info.Addrs[0], h)}, Dial: m.internet.Dialer(a.Info.Addrs[0].Addr()),
			Directory: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodPost:
				case h == mute:
					<-ended
				case h == lying:
					fmt.Fprintln(rw, "peel network status 1\nwhatever")
				case h == stale:
					rw.Write(oldText)
				default:
					docs.ServeHTTP(rw, r)
				}
			}),
		})
	}
	for i := range m.Relays {
		r := &m.Relays[i]
		m.run(relay.Config{
			Network: m.Network, Keys: relay.Keys{Identity: r.Identity, Link: r.Link, Onion: r.Onion}, Nickname: r.Descriptor.Nickname,
			Listeners: []net.Listener{m.listen(r.Descriptor.Addrs[0], relays[i])}, Dial: m.internet.Dialer(r.Descriptor.Addrs[0].Addr()),
			Exit: r.Descriptor.Policy, Connect: m.internet.Dialer(r.Descriptor.Addrs[0].Addr()),
		})
	}
	t.Cleanup(func() { close(ended) }) // before the nodes are waited for
	return m
}

// harmed is n nodes of which 30 % are harmed, with each of the harms in turn, in an order drawn from rng.
func harmed(n int, rng *rand.Rand, harms ...harm) []harm {
	hs := make([]harm, n)
	for i := range n * 3 / 10 {
		hs[i] = harms[i%len(harms)]
	}
	rng.Shuffle(n, func(i, j int) { hs[i], hs[j] = hs[j], hs[i] })
	return hs
}

// coldStory is what a client does, for people who ask why it took so long.
type coldStory struct {
	mu    sync.Mutex
	begun time.Time
	text  strings.Builder
}

func (s *coldStory) add(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.text, "%v "+format+"\n", append([]any{time.Since(s.begun)}, a...)...)
}

// told has the story of a client kept.
func (m *inMemory) told(s *coldStory, cfg client.Config) client.Config {
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		s.add("calls %s, whose harm is %d", addr, m.harms[netip.MustParseAddrPort(addr)])
		return m.internet.Dialer(clientAddr)(ctx, network, addr)
	}
	cfg.Events = func(e client.Event) {
		var harms []harm
		for _, hop := range e.Path {
			harms = append(harms, m.harms[hop.Addrs[0]])
		}
		s.add("%v %s %v %v", e.Kind, e.Progress.Stage, harms, e.Err)
	}
	return cfg
}

// 100 clients that know nothing but the network file start at once, while 30 % of the authorities and of the relays, all of
// which hand out the directory, are dead or lie.
func TestColdClientsStartWhileManyNodesAreDeadOrLie(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("needs some seconds of CPU: set PEEL_SLOW=1 to run it")
	}
	seed := uint64(10) // of who is harmed; what clients draw is the system's chance
	if s := os.Getenv("PEEL_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("PEEL_SEED=%d", seed)
	const clients, within = 100, 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 10))
		m := newInMemory(t, harmed(20, rng, silent, refusing, mute, lying, stale, silent), harmed(60, rng, silent, refusing, garbling))
		time.Sleep(5 * time.Minute) // relays have the directory
		took := make([]time.Duration, clients)
		var wg sync.WaitGroup
		begin := time.Now()
		for i := range clients {
			s := &coldStory{begun: begin}
			c, err := client.New(m.told(s, client.Config{Network: m.Network}))
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				ctx, cancel := context.WithCancel(context.Background())
				var run sync.WaitGroup
				run.Go(func() { c.Run(ctx) })
				wait, stop := context.WithTimeout(ctx, time.Minute)
				if err := c.Ready(wait); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
				stop()
				took[i] = time.Since(begin)
				cancel()
				run.Wait()
				if took[i] > within {
					t.Errorf("client %d is ready after %v:\n%s", i, took[i], s.text.String())
				}
			})
		}
		wg.Wait()
		slices.Sort(took)
		t.Logf("half are ready after %v, 90 %% after %v, all after %v", took[clients/2], took[clients*9/10], took[clients-1])
	})
}
