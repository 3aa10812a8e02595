package circuit

import (
	"context"
	"crypto/ecdh"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/hybrid"
	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/circuit/layer"
	"peel/circuit/stream"
)

var testNetwork = cell.NetworkID{1, 2, 3}

// A world is a client and a chain of relays, each linked to the next.
type world struct {
	t        *testing.T
	nodes    []*node
	hops     []Hop
	link     *link.Conn // the client's
	client   *link.Config
	conns    []*linktest.Conn     // the near end of what is under each link; the first is the client's
	panicked func(*contain.Panic) // Config.Panicked
	early    atomic.Int64         // RELAY_EARLY cells that the client sent
}

// newWorld makes a chain of n relays.
func newWorld(t *testing.T, n int) *world {
	return newWorldOver(t, n, func(int) (a, b *linktest.Conn) { return linktest.Pipe(linktest.Options{}) })
}

// newWorldOver is newWorld over the connections that pipe makes, the client's first.
func newWorldOver(t *testing.T, n int, pipe func(i int) (a, b *linktest.Conn)) *world {
	w := &world{t: t, client: &link.Config{Network: testNetwork}}
	w.client.Tap = func(in bool, cells []cell.Cell) {
		for i := range cells {
			if !in && cells[i].Command() == cell.CmdRelayEarly {
				w.early.Add(1)
			}
		}
	}
	near, prev := w.client, (*node)(nil)
	for i := range n {
		r := &node{cfg: linktest.Config(t, "relay"+strconv.Itoa(i)), onion: linktest.Key(t)}
		r.cfg.Network = testNetwork
		na, nb := pipe(i)
		var h linktest.Handlers
		h.B = r
		la, _ := linktest.Join(t, na, nb, near, r.cfg, h)
		if prev == nil {
			w.link = la
		} else {
			prev.next = la
		}
		w.conns = append(w.conns, na)
		w.nodes = append(w.nodes, r)
		w.hops = append(w.hops, Hop{
			ID:       r.cfg.ID,
			LinkKey:  linktest.Public(r.cfg.Key),
			OnionKey: linktest.Public(r.onion),
			Addrs:    []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9001")},
		})
		near, prev = r.cfg, r
	}
	t.Cleanup(func() {
		for _, r := range w.nodes {
			r.running.Wait()
		}
	})
	return w
}

func (w *world) build(ctx context.Context) (*Circuit, error) {
	return Build(ctx, w.link, Config{Network: testNetwork, Panicked: w.panicked}, w.hops)
}

func (w *world) mustBuild() *Circuit {
	w.t.Helper()
	c, err := w.build(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// A node is a small honest relay, with holes in which a test puts its faults.
type node struct {
	cfg     *link.Config
	onion   *ecdh.PrivateKey
	next    *link.Conn
	running sync.WaitGroup

	answer     func(reply []byte) []byte                // what it answers to CREATE; nil: nothing. Unset: the truth
	refuse     bool                                     // DESTROY instead of CREATED
	forwards   func(t *transit, cells []cell.Cell)      // changes what it passes on
	backward   func(t *transit, cells []cell.Cell)      // changes what it passes back
	sealed     func(t *transit, body []byte)            // sees what it is about to seal
	hold       func(t *transit, cells []cell.Cell) bool // keeps forward cells, without credit for them
	parameters []byte                                   // what its handshake carries
	rekeys     atomic.Int64

	mu   sync.Mutex
	all  []*transit
	over []cell.DestroyReason // why circuits were ended from the client's side
}

func (n *node) last() *transit {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.all) == 0 {
		return nil
	}
	return n.all[len(n.all)-1]
}

// Create answers at once, in the link's reader.
func (n *node) Create(c *link.Circ, m cell.Create) {
	if n.refuse {
		c.Close(cell.DestroyBusy)
		return
	}
	reply, s, err := hybrid.Respond(hybrid.Config{
		Pattern:  hybrid.NK,
		Prologue: Prologue(testNetwork, n.cfg.ID, m.Key, m.Suite),
		Static:   n.onion,
	}, m.Request, n.parameters)
	if err != nil {
		c.Close(cell.DestroyProtocol)
		return
	}
	k := s.Expand(KeyLabel, 160)
	t := &transit{node: n, prev: c}
	t.fwd = layer.NewRelay((*[80]byte)(k[:80]), cell.BodySize)
	t.back = layer.NewRelay((*[80]byte)(k[80:]), cell.BodySize)
	t.mux = stream.NewMux(stream.Config{Accept: n.accept, Wake: t.pump})
	n.mu.Lock()
	n.all = append(n.all, t)
	n.mu.Unlock()
	c.Attach(fromClient{t})
	if n.answer != nil {
		reply = n.answer(reply)
	}
	if reply != nil {
		c.Reply(reply)
	}
}

// A transit is a circuit at a node.
type transit struct {
	node *node
	prev *link.Circ
	mux  *stream.Mux

	fmu sync.Mutex
	fwd *layer.Layer

	mu   sync.Mutex
	back *layer.Layer
	next *link.Circ
	say  []cell.Message
	over bool

	batch [32]cell.Cell // of pump
}

type fromClient struct{ *transit }

func (t fromClient) Created([]byte) {}
func (t fromClient) Room()          { t.pump() }

func (t fromClient) Closed(r cell.DestroyReason) {
	t.node.mu.Lock()
	t.node.over = append(t.node.over, r)
	t.node.mu.Unlock()
	t.destroy()
}

func (t fromClient) Receive(cells []cell.Cell) {
	t.fmu.Lock()
	defer t.fmu.Unlock()
	n := t.node
	if n.hold != nil && n.hold(t.transit, cells) {
		return
	}
	for i := range cells {
		c := &cells[i]
		if t.fwd.Peel(byte(c.Command()), c.Body()) {
			err := t.handle(c)
			t.prev.Taken(1)
			if err != nil {
				t.destroy()
				return
			}
			continue
		}
		t.mu.Lock()
		next := t.next
		t.mu.Unlock()
		if next == nil {
			t.destroy()
			return
		}
		if n.forwards != nil {
			n.forwards(t.transit, cells[i:i+1])
		}
		next.Forward(t.prev, cells[i:i+1])
	}
}

func (t *transit) handle(c *cell.Cell) error {
	m, err := cell.ParseMessage(c.Body())
	if err != nil {
		return err
	}
	switch m.Type {
	case cell.MsgExtend:
		e, err := cell.ParseExtend(m.Data)
		if err != nil {
			return err
		}
		if c.Command() != cell.CmdRelayEarly {
			return errors.New("EXTEND in another cell")
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.next, err = t.node.next.Open(fromWorld{t}, cell.Create{Suite: e.Suite, Key: e.Key, Request: e.Request})
		return err
	case cell.MsgRekey:
		t.node.rekeys.Add(1)
		t.tell(cell.Message{Type: cell.MsgRekey})
		return nil
	}
	return t.mux.Receive(m)
}

// tell sends a message to the client, asked for or not.
func (t *transit) tell(m cell.Message) {
	t.mu.Lock()
	t.say = append(t.say, m)
	t.mu.Unlock()
	t.pump()
}

// raw sends a cell to the client as it is.
func (t *transit) raw(c *cell.Cell) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prev.Send([]cell.Cell{*c})
}

func (t *transit) pump() {
	t.mu.Lock()
	defer t.mu.Unlock()
	batch := t.batch[:]
	for !t.over {
		n := 0
		for room := t.prev.Room(); n < min(room, len(batch)); n++ {
			body := batch[n].Body()
			if len(t.say) > 0 {
				t.say[0].Put(body)
				t.say = t.say[1:]
			} else if !t.mux.Next(body) {
				break
			}
			if t.node.sealed != nil {
				t.node.sealed(t, body)
			}
			batch[n].SetCommand(cell.CmdRelay)
			t.back.Seal(byte(cell.CmdRelay), body)
		}
		if n == 0 || t.prev.Send(batch[:n]) != nil {
			return
		}
	}
}

func (t *transit) destroy() {
	t.mu.Lock()
	over, next := t.over, t.next
	t.over = true
	t.mu.Unlock()
	if over {
		return
	}
	t.prev.Close(cell.DestroyNone)
	if next != nil {
		next.Close(cell.DestroyNone)
	}
	t.mux.Close(io.ErrUnexpectedEOF)
}

type fromWorld struct{ *transit }

func (t fromWorld) Room()                     {}
func (t fromWorld) Closed(cell.DestroyReason) { t.destroy() }

func (t fromWorld) Created(reply []byte) {
	t.tell(cell.Message{Type: cell.MsgExtended, Data: cell.Extended{Reply: reply}.Append(nil)})
}

func (t fromWorld) Receive(cells []cell.Cell) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	for i := range cells {
		t.back.Wrap(byte(cells[i].Command()), cells[i].Body())
	}
	if t.node.backward != nil {
		t.node.backward(t.transit, cells)
	}
	t.prev.Forward(t.next, cells)
}

// accept is the world beyond the last relay: the host's name says what happens.
func (n *node) accept(s *stream.Stream, o stream.Open) {
	n.running.Go(func() {
		defer s.Close()
		name, arg, _ := strings.Cut(o.Begin.Host, "-")
		size, _ := strconv.Atoi(arg)
		switch {
		case o.Type == cell.MsgResolve:
			s.Answer(cell.Resolved{Answers: []cell.Answer{{TTL: 60, Addr: netip.MustParseAddr("192.0.2.7")}}})
			return
		case name == "refuse":
			s.Refuse(cell.EndRefused)
			return
		}
		s.Connected(cell.Connected{})
		switch name {
		case "source":
			s.Write(randomBytes(size))
		case "sum":
			h := sha256.New()
			io.Copy(h, s)
			s.Write(h.Sum(nil))
		case "flood":
			for b := make([]byte, 48*cell.MaxData); ; {
				if _, err := s.Write(b); err != nil {
					return
				}
			}
		case "answers": // so many bytes to each request of 100
			b := make([]byte, 100+size)
			for {
				if _, err := io.ReadFull(s, b[:100]); err != nil {
					break
				}
				s.Write(b[100:])
			}
		case "silent":
			io.Copy(io.Discard, s)
		default:
			io.Copy(s, s)
		}
		s.CloseWrite()
		io.Copy(io.Discard, s)
	})
}

// randomBytes are the same for the same size.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

func host(name string) cell.Begin { return cell.Begin{Host: name, Port: 80} }
