package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/circuit"
	"peel/directory"
	"peel/directory/authority"
	"peel/directory/cache"
	"peel/directory/dirtest"
)

// world is a network in memory: an authority that hands out the consensus, relays that fetch it, and a client's link to
// the first of them.
type world struct {
	t      *testing.T
	net    *dirtest.Net
	relays []*Relay
	hops   []circuit.Hop
	stop   []func() // ends a relay and waits for its Run

	mu        sync.Mutex
	listeners map[string]*linktest.Listener
	pipes     map[string][]*linktest.Conn // by the address dialled: the dialler's ends
	posted    int                         // descriptors that came to the authority
	said      map[cell.NodeID]*directory.Descriptor
	dropped   *sync.Map // addresses where the authority hears nothing
	young     bool      // the authority has no consensus yet
}

// newWorld starts n relays and waits until they have the directory; each may change a relay's Config.
func newWorld(t *testing.T, n int, each ...func(i int, cfg *Config)) *world {
	t.Helper()
	w := startWorld(t, n, each...)
	for _, r := range w.relays[:n] {
		<-r.informed
	}
	return w
}

func startWorld(t *testing.T, n int, each ...func(i int, cfg *Config)) *world {
	t.Helper()
	return emptyWorld(t, n).start(each...)
}

// hostOf serves connections on this machine until the test ends, and says where. The test calls it before it makes a world that may end them.
func hostOf(t *testing.T, serve func(c net.Conn)) cell.Begin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	return cell.Begin{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).AddrPort().Port()}
}

// echo sends back what comes.
func echo(c net.Conn) {
	if _, err := io.Copy(c, c); err == nil {
		c.(*net.TCPConn).CloseWrite()
	}
}

// emptyWorld is a world in which nobody runs yet.
func emptyWorld(t *testing.T, n int, o ...dirtest.Option) *world {
	o = append([]dirtest.Option{dirtest.Authorities(1), dirtest.At(time.Now().UTC().Truncate(time.Second))}, o...)
	return &world{
		t: t, net: dirtest.New(1, n, o...), said: make(map[cell.NodeID]*directory.Descriptor), dropped: new(sync.Map),
		listeners: make(map[string]*linktest.Listener), pipes: make(map[string][]*linktest.Conn),
	}
}

// start starts all of them.
func (w *world) start(each ...func(i int, cfg *Config)) *world {
	t := w.t
	t.Helper()
	a := w.net.Authorities[0]
	docs, err := cache.New(cache.Config{Network: w.net.Network})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := docs.Put(w.net.Text, time.Now()); err != nil {
		t.Fatal(err)
	}
	tries := authority.TryFor(authority.ReachByLink(link.Config{Network: w.net.Network.ID()}, func(ctx context.Context, network, addr string) (net.Conn, error) {
		if _, gone := w.dropped.Load(addr); gone {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return w.dial(ctx, network, addr)
	}), func(r *http.Request, q *directory.ReachRequest) error {
		if authority.CallerOf(r).Key != q.LinkKey {
			return errors.New("not its key")
		}
		return nil
	}, authority.WhyNot)
	w.run(Config{
		Network: w.net.Network, Keys: Keys{Link: a.Link}, ID: a.Info.ID, Listeners: []net.Listener{w.listen(a.Info.Addrs[0])},
		Dial: w.dial, Directory: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.mu.Lock()
			young := w.young
			w.mu.Unlock()
			switch {
			case r.URL.Path == authority.PathReach:
				tries.ServeHTTP(rw, r)
				return
			case r.Method == http.MethodPost:
				text, _ := io.ReadAll(r.Body)
				d, err := directory.ParseDescriptor(text)
				w.mu.Lock()
				defer w.mu.Unlock()
				if w.posted++; err == nil {
					w.said[d.ID] = d
				}
				return
			case young:
				http.Error(rw, "no consensus yet", http.StatusNotFound)
				return
			}
			docs.ServeHTTP(rw, r)
		}),
	})
	w.hops = nil // the authority's
	for i := range w.net.Relays {
		d := &w.net.Relays[i]
		cfg := Config{
			Network: w.net.Network, Keys: Keys{Identity: d.Identity, Link: d.Link, Onion: d.Onion},
			Listeners: []net.Listener{w.listen(d.Descriptor.Addrs[0])}, Nickname: d.Descriptor.Nickname, Dial: w.dial,
			OneHop: true, // so that one relay will do where what it does at the end of a circuit is tried
		}
		for _, f := range each {
			f(i, &cfg)
		}
		w.run(cfg)
	}
	w.relays = append(w.relays[1:], w.relays[0]) // the authority's node is the last
	w.stop = append(w.stop[1:], w.stop[0])
	w.hops = append(w.hops, circuit.Hop{ID: a.Info.ID, LinkKey: a.Info.LinkKey, OnionKey: a.Info.LinkKey, Addrs: a.Info.Addrs})
	return w
}

// authority is the index of the authority's node.
func (w *world) authority() int { return len(w.relays) - 1 }

func (w *world) run(cfg Config) {
	w.t.Helper()
	r, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	stop := func() {
		cancel()
		wg.Wait()
	}
	w.t.Cleanup(stop)
	w.relays = append(w.relays, r)
	w.stop = append(w.stop, stop)
	if cfg.Keys.Onion != nil {
		w.hops = append(w.hops, circuit.Hop{
			ID: r.ID(), LinkKey: linktest.Public(cfg.Keys.Link), OnionKey: linktest.Public(cfg.Keys.Onion), Addrs: r.settled.Load().Addrs,
		})
	}
}

// dial is how all nodes of the world reach each other.
func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return w.dialOver(ctx, addr, linktest.Options{})
}

// dialOver is dial over a line with properties.
func (w *world) dialOver(ctx context.Context, addr string, o linktest.Options) (net.Conn, error) {
	w.mu.Lock()
	l := w.listeners[addr]
	w.mu.Unlock()
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	o.B = l.At
	a, b := linktest.Pipe(o)
	select {
	case l.Conns <- b:
	case <-l.Closed:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w.mu.Lock()
	w.pipes[addr] = append(w.pipes[addr], a)
	w.mu.Unlock()
	return a, nil
}

// replace puts another in the place of relay i: it has the keys, and links work, and h does as it likes with circuits.
func (w *world) replace(i int, h link.Handler) {
	r := w.net.Relays[i]
	l := w.listen(r.Descriptor.Addrs[0])
	cfg := &link.Config{Network: w.net.Network.ID(), ID: r.Descriptor.ID, Key: r.Link}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			if lc, err := link.Accept(context.Background(), nc, cfg); err == nil {
				wg.Go(func() { lc.Serve(h) })
				w.t.Cleanup(func() { lc.Close() })
			}
		}
	})
	w.t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
}

// cut breaks every connection that was dialled to relay i.
func (w *world) cut(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.pipes[w.hops[i].Addrs[0].String()] {
		c.Cut()
	}
}

// connect makes a link of a client's to relay i.
func (w *world) connect(i int) *link.Conn {
	w.t.Helper()
	return w.connectAs(i, &link.Config{Network: w.net.Network.ID()})
}

func (w *world) connectAs(i int, cfg *link.Config) *link.Conn {
	w.t.Helper()
	h := w.hops[i]
	nc, err := w.dial(w.t.Context(), "tcp", h.Addrs[0].String())
	if err != nil {
		w.t.Fatal(err)
	}
	lc, err := link.Dial(w.t.Context(), nc, cfg, link.Peer{ID: h.ID, Key: h.LinkKey})
	if err != nil {
		w.t.Fatal(err)
	}
	linktest.Serve(w.t, lc, nil)
	return lc
}

// build makes a circuit through the relays given.
func (w *world) build(path ...int) (*circuit.Circuit, error) {
	hops := make([]circuit.Hop, len(path))
	for i, p := range path {
		hops[i] = w.hops[p]
	}
	return w.buildOver(w.t.Context(), w.connect(path[0]), hops)
}

// buildOver builds a circuit over a link of the test's.
func (w *world) buildOver(ctx context.Context, lc *link.Conn, hops []circuit.Hop) (*circuit.Circuit, error) {
	return circuit.Build(ctx, lc, circuit.Config{Network: w.net.Network.ID()}, hops)
}

func (w *world) mustBuildOver(lc *link.Conn, hops []circuit.Hop) *circuit.Circuit {
	w.t.Helper()
	c, err := w.buildOver(w.t.Context(), lc, hops)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) mustBuild(path ...int) *circuit.Circuit {
	w.t.Helper()
	c, err := w.build(path...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// circuits is how many circuits relay i has.
func (w *world) circuits(i int) int { return len(w.relays[i].all()) }

func (w *world) listen(addr netip.AddrPort) *linktest.Listener {
	l := linktest.Listen(addr)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listeners[addr.String()] = l
	return l
}

// exits lets relay i exit to this machine.
func exits(i int) func(int, *Config) {
	return func(n int, cfg *Config) {
		if n == i {
			cfg.Exit = directory.Policy{
				{Accept: true, Prefix: netip.MustParsePrefix("127.0.0.0/8"), Lo: 1, Hi: 65535},
				{Accept: true, Lo: 80, Hi: 80}, // for names
			}
		}
	}
}
