package client

import (
	"bufio"
	"cmp"
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"peel/cell"
	"peel/cell/hybrid"
	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/circuit"
	"peel/circuit/layer"
	"peel/circuit/stream"
	"peel/client/path"
	"peel/directory/dirtest"
)

// A world is a network in memory and virtual time: authorities that hand out a consensus, and relays at each of which a
// circuit ends, so that circuits of one hop do where the pool thinks of three.
type world struct {
	*dirtest.Net
	t     *testing.T
	nodes map[string]*node // by address

	handOut  func(authority int, w http.ResponseWriter, r *http.Request)     // nil: Text
	caches   func(relay cell.NodeID, w http.ResponseWriter, r *http.Request) // of relays; nil: they have no directory
	delayed  func() time.Duration                                            // how long an exit takes to connect; nil: no time
	refusals atomic.Int32                                                    // of the host "fickle" that are left
	down     atomic.Bool                                                     // nothing can be dialled
	dials    atomic.Int64
	options  linktest.Options // of what is dialled
	created  func(n *node)    // is told of each circuit that a node took; nil: nobody is
	narrow   bool             // exits take no more streams of a circuit than a relay does
	running  sync.WaitGroup

	mu    sync.Mutex
	lines []*linktest.Conn // both ends of all that was dialled
	far   time.Duration    // one way, of what is dialled; 0: a millisecond
}

// newWorld makes a network of n relays whose consensus holds from now on.
func newWorld(t *testing.T, n int, opts ...dirtest.Option) *world {
	opts = append([]dirtest.Option{dirtest.At(time.Now().Truncate(time.Second))}, opts...)
	w := &world{Net: dirtest.New(1, n, opts...), t: t, nodes: make(map[string]*node)}
	for i, a := range w.Authorities {
		w.add(a.Info.ID, a.Link, a.Link, a.Info.Addrs).authority = i + 1
	}
	for _, r := range w.Relays {
		w.add(r.Descriptor.ID, r.Link, r.Onion, r.Descriptor.Addrs)
	}
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.links().Close()
		}
		w.running.Wait()
	})
	return w
}

func (w *world) add(id cell.NodeID, key, onion *ecdh.PrivateKey, addrs []netip.AddrPort) *node {
	n := &node{world: w, onion: onion, cfg: link.Config{Network: w.Network.ID(), ID: id, Key: key}}
	n.pool = link.NewPool(link.PoolConfig{Link: n.cfg, Handler: n})
	for _, a := range addrs {
		w.nodes[a.String()] = n
	}
	return n
}

// asked lists, for each circuit on which anything was asked for, the hosts.
func (w *world) asked() (all [][]string) {
	for _, n := range w.nodes {
		all = append(all, n.askedFor()...)
	}
	return all
}

// askedFor is asked of one node.
func (n *node) askedFor() (all [][]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.ends {
		e.mu.Lock()
		if len(e.asked) > 0 {
			all = append(all, slices.Clone(e.asked))
		}
		e.mu.Unlock()
	}
	return all
}

// dial connects a client to a node.
func (w *world) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	w.dials.Add(1)
	n := w.nodes[addr]
	if n == nil || w.down.Load() {
		return nil, syscall.ECONNREFUSED
	}
	o := w.options
	w.mu.Lock()
	o.Delay = cmp.Or(w.far, time.Millisecond)
	w.mu.Unlock()
	a, b := linktest.Pipe(o)
	n.mu.Lock()
	n.line = b
	n.mu.Unlock()
	w.mu.Lock()
	w.lines = append(w.lines, a, b)
	w.mu.Unlock()
	w.running.Go(func() {
		if c, err := link.Accept(context.Background(), b, &n.cfg); err == nil {
			n.links().Add(c)
		}
	})
	return a, nil
}

// client makes one whose circuits go to their exit at once.
func (w *world) client(cfg Config) *Client {
	w.t.Helper()
	cfg.Dial = w.dial
	if cfg.Network == nil {
		cfg.Network = w.Network
	}
	c, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	c.pool.build = func(ctx context.Context, p path.Path) (*circuit.Circuit, error) { return c.build(ctx, p[path.Hops-1:]) }
	return c
}

// run runs a client until the test ends, or stop is called.
func run(t *testing.T, c *Client) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// ready makes a client that runs and is ready.
func (w *world) ready(cfg Config) *Client {
	w.t.Helper()
	c := w.client(cfg)
	run(w.t, c)
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// readyToRace is ready, with all saved up that races cost.
func (w *world) readyToRace(cfg Config) *Client {
	c := w.ready(cfg)
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	c.pool.answers.saved = raceSaving
	return c
}

// nodeOf is the node of a relay in a path.
func (w *world) nodeOf(p path.Path, hop int) *node { return w.nodes[p[hop].Addrs[0].String()] }

// A node is where links lead and circuits end.
type node struct {
	world     *world
	cfg       link.Config
	onion     *ecdh.PrivateKey
	authority int // from 1; 0: a relay

	refuse atomic.Bool  // DESTROY instead of CREATED
	mute   atomic.Bool  // answers no BEGIN_DIR
	deaf   atomic.Bool  // the same, and does not even say so
	stops  atomic.Bool  // says that streams are open, and no more
	taken  atomic.Int64 // bytes for the world
	mu     sync.Mutex
	pool   *link.Pool
	ends   []*end
	line   *linktest.Conn // its end of what was dialled last
}

// Create answers at once, in the link's reader.
func (n *node) Create(c *link.Circ, m cell.Create) {
	if n.refuse.Load() {
		c.Close(cell.DestroyBusy)
		return
	}
	reply, s, err := hybrid.Respond(hybrid.Config{
		Pattern: hybrid.NK, Prologue: circuit.Prologue(n.cfg.Network, n.cfg.ID, m.Key, m.Suite), Static: n.onion,
	}, m.Request, nil)
	if err != nil {
		c.Close(cell.DestroyProtocol)
		return
	}
	k := s.Expand(circuit.KeyLabel, 160)
	e := &end{node: n, circ: c}
	e.fwd = layer.NewRelay((*[80]byte)(k[:80]), cell.BodySize)
	e.back = layer.NewRelay((*[80]byte)(k[80:]), cell.BodySize)
	e.mux = stream.NewMux(stream.Config{Accept: e.accept, Wake: e.Room, MaxStreams: mostStreams})
	n.mu.Lock()
	n.ends = append(n.ends, e)
	n.mu.Unlock()
	c.Attach(e)
	c.Reply(reply)
	if n.world.created != nil {
		n.world.created(n)
	}
}

// restart breaks all links of the node.
func (n *node) restart() {
	n.mu.Lock()
	old := n.pool
	n.pool = link.NewPool(link.PoolConfig{Link: n.cfg, Handler: n})
	n.mu.Unlock()
	old.Close()
}

// links is where links of the node are served.
func (n *node) links() *link.Pool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pool
}

// destroy ends all circuits of the node.
func (n *node) destroy() { n.destroyFor(cell.DestroyNone) }

// destroyFor does so and says why, which to a client nobody may.
func (n *node) destroyFor(why cell.DestroyReason) {
	for _, e := range n.all() {
		e.destroy(why)
	}
}

// all are the circuits that have ended at the node.
func (n *node) all() []*end {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.ends)
}

// of is the end of the circuit on which a host was asked for.
func (n *node) of(host string) *end {
	for _, e := range n.all() {
		e.mu.Lock()
		asked := slices.Contains(e.asked, host)
		e.mu.Unlock()
		if asked {
			return e
		}
	}
	return nil
}

// An end is the end of a circuit.
type end struct {
	node *node
	circ *link.Circ
	mux  *stream.Mux
	fwd  *layer.Layer

	pending atomic.Int64 // streams that were asked for and not answered

	mu    sync.Mutex
	back  *layer.Layer
	asked []string // hosts it was asked for
	said  []byte   // what was sent to them
}

// destroy ends the circuit.
func (e *end) destroy(why cell.DestroyReason) {
	e.circ.Close(why)
	e.mux.Close(io.ErrUnexpectedEOF)
}

func (e *end) Created([]byte)            {}
func (e *end) Closed(cell.DestroyReason) { e.mux.Close(io.ErrUnexpectedEOF) }

func (e *end) Receive(cells []cell.Cell) {
	for i := range cells {
		c := &cells[i]
		if !e.fwd.Peel(byte(c.Command()), c.Body()) {
			e.node.world.t.Error("a cell that is nobody's")
			return
		}
		m, err := cell.ParseMessage(c.Body())
		if err == nil {
			err = e.mux.Receive(m)
		}
		if err != nil {
			e.node.world.t.Error(err)
			return
		}
		e.circ.Taken(1)
	}
}

// Room sends what there is to send.
func (e *end) Room() {
	e.mu.Lock()
	defer e.mu.Unlock()
	batch := make([]cell.Cell, 32)
	for {
		n := 0
		for room := e.circ.Room(); n < min(room, 32) && e.mux.Next(batch[n].Body()); n++ {
			batch[n].SetCommand(cell.CmdRelay)
			e.back.Seal(byte(cell.CmdRelay), batch[n].Body())
		}
		if n == 0 || e.circ.Send(batch[:n]) != nil {
			return
		}
	}
}

// accept is the world beyond the relay: the host's name says what happens.
func (e *end) accept(s *stream.Stream, o stream.Open) {
	n := e.node
	n.world.running.Go(func() {
		defer s.Close()
		if n.stops.Load() && o.Type != cell.MsgResolve {
			s.Connected(cell.Connected{})
			io.Copy(io.Discard, s)
			return
		}
		if o.Type == cell.MsgBeginDir {
			if n.deaf.Load() {
				io.Copy(io.Discard, s)
				return
			}
			if !n.mute.Load() {
				n.directory(s)
			}
			return
		}
		host := o.Begin.Host + o.Resolve.Name
		e.mu.Lock()
		e.asked = append(e.asked, host)
		e.mu.Unlock()
		if e.pending.Add(1) > mostAsked && n.world.narrow {
			e.pending.Add(-1)
			s.Refuse(cell.EndBusy)
			return
		}
		answered := sync.OnceFunc(func() { e.pending.Add(-1) })
		defer answered()
		name, arg, _ := strings.Cut(strings.TrimSuffix(host, ".example"), "-")
		reason, _ := strconv.Atoi(arg)
		switch {
		case name == "liar": // looks before it refuses
			s.SetReadDeadline(time.Now().Add(time.Second))
			io.Copy(e, s)
			s.Refuse(cell.EndReason(reason))
			return
		case name == "fickle" && n.world.refusals.Add(-1) >= 0, name == "end":
			s.Refuse(cell.EndReason(reason))
			return
		case name == "destroy":
			n.destroy()
			return
		case name == "silence":
			io.Copy(io.Discard, s)
			<-s.Context().Done() // of a RESOLVE, behind which nothing comes
			return
		case o.Type == cell.MsgResolve && name == "nameless":
			s.Answer(cell.Resolved{Answers: []cell.Answer{{Name: "elsewhere.example"}}})
			return
		case o.Type == cell.MsgResolve && name == "inside": // as if the name were one of the client's own house
			var a []cell.Answer
			for _, s := range []string{"127.0.0.1", "192.168.0.1", "169.254.169.254", "::1", "fd00::1", "fe80::1", "64:ff9b::7f00:1", "52.0.2.7"}[:7+reason] {
				a = append(a, cell.Answer{TTL: 60, Addr: netip.MustParseAddr(s)})
			}
			s.Answer(cell.Resolved{Answers: a})
			return
		case o.Type == cell.MsgResolve:
			s.Answer(cell.Resolved{Answers: []cell.Answer{
				{TTL: 60, Addr: netip.MustParseAddr("52.0.2.7")}, {TTL: 60, Addr: netip.MustParseAddr("2600:db8::7")},
			}})
			return
		}
		if n.world.delayed != nil {
			time.Sleep(n.world.delayed())
		}
		answered()
		s.Connected(cell.Connected{})
		io.Copy(s, io.TeeReader(s, e))
		s.CloseWrite()
	})
}

// Write notes what was said.
func (e *end) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.node.taken.Add(int64(len(b)))
	e.said = append(e.said, b[:min(len(b), max(0, 1<<20-len(e.said)))]...)
	return len(b), nil
}

// said lists, for each circuit, all that was sent to hosts.
func (w *world) said() (all []string) {
	for _, n := range w.nodes {
		n.mu.Lock()
		for _, e := range n.ends {
			e.mu.Lock()
			if len(e.said) > 0 {
				all = append(all, string(e.said))
			}
			e.mu.Unlock()
		}
		n.mu.Unlock()
	}
	return all
}

// directory answers one request.
func (n *node) directory(s *stream.Stream) {
	s.Connected(cell.Connected{})
	r, err := http.ReadRequest(bufio.NewReader(s))
	if err != nil {
		return
	}
	a := httptest.NewRecorder()
	switch {
	case n.authority == 0 && n.world.caches != nil:
		n.world.caches(n.cfg.ID, a, r)
	case n.authority == 0:
		http.NotFound(a, r)
	case n.world.handOut == nil:
		a.Write(n.world.Text)
	default:
		n.world.handOut(n.authority, a, r)
	}
	a.Result().Write(s)
	s.CloseWrite()
	io.Copy(io.Discard, s)
}

// echo sends a few bytes and wants them back.
func echo(c net.Conn) error {
	const text = "anybody there?"
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != text {
		return fmt.Errorf("%q came back", b)
	}
	return nil
}

// way names the relays of a path.
func way(p path.Path) string {
	var s []string
	for _, e := range p {
		s = append(s, e.Nickname)
	}
	return strings.Join(s, " ")
}

// endReason is what the far end said; 0: it said nothing.
func endReason(err error) cell.EndReason {
	var e *stream.EndError
	if errors.As(err, &e) {
		return e.Reason
	}
	return 0
}
