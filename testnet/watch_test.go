package testnet

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"peel/cell"
	"peel/client"
)

// heard is one message and where its circuit came from.
type heard struct {
	node string
	from netip.Addr
	typ  cell.MessageType
	data []byte
}

// record keeps all that a network's nodes see.
type record struct {
	mu       sync.Mutex
	cells    map[string]*bytes.Buffer // by node: every cell on its links, in clear
	messages []heard
}

func (r *record) watch() Watch {
	r.cells = make(map[string]*bytes.Buffer)
	return Watch{
		Cells: func(node string, _ bool, cells []cell.Cell) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.cells[node] == nil {
				r.cells[node] = new(bytes.Buffer)
			}
			r.cells[node].Write(cell.Bytes(cells))
		},
		Message: func(node string, from netip.Addr, m cell.Message) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.messages = append(r.messages, heard{node, from, m.Type, bytes.Clone(m.Data)})
		},
	}
}

// saw says whether a node saw the bytes: in a cell on one of its links, or in a message it read.
func (r *record) saw(node string, b []byte) bool {
	if bytes.Contains(r.cells[node].Bytes(), b) {
		return true
	}
	for _, h := range r.messages {
		if h.node == node && bytes.Contains(h.data, b) {
			return true
		}
	}
	return false
}

// find are the messages of a type whose data contain what, of which there must be some.
func (r *record) find(t *testing.T, typ cell.MessageType, what []byte) []heard {
	t.Helper()
	var found []heard
	for _, h := range r.messages {
		if h.typ == typ && bytes.Contains(h.data, what) {
			found = append(found, h)
		}
	}
	if found == nil {
		t.Fatalf("nobody heard a %v with %q: the watch is blind", typ, what)
	}
	return found
}

// Each hop learns what it needs and no more: the guard who the client is, the middle neither end, the exit where to.
func TestWhoSeesWhat(t *testing.T) {
	if !HasLoopbackNet() {
		t.Skip("needs all of 127.0.0.0/8: all nodes share one address here")
	}
	beside(t)
	var r record
	cfg := small
	cfg.Watch = r.watch()
	n := run(t, cfg)

	// The destination has an address that nothing else has, and echoes.
	l, err := net.Listen("tcp", "127.77.66.55:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	came := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			close(came)
			return
		}
		came <- c.RemoteAddr().String()
		io.Copy(c, c)
		c.Close()
	}()
	secret := noise(64)
	c, err := n.Client().DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	path := client.PathOf(c)
	if _, err := c.Write(secret); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, len(secret))
	if _, err := io.ReadFull(c, back); err != nil || !bytes.Equal(back, secret) {
		t.Fatal("the echo is not what was sent: ", err)
	}
	c.Close()
	if from := <-came; strings.HasPrefix(from, ClientAddr.String()+":") {
		t.Errorf("the destination saw the client's address, %s", from)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	guard, middle, exit := path[0], path[1], path[2]
	at := map[string]string{"guard": guard.Nickname, "middle": middle.Nickname, "exit": exit.Nickname}

	// What the circuit told each of its hops, and from where it came to them. Other circuits may have the same hops in
	// another order, but the destination and the payload belong to this one.
	for _, h := range append(r.find(t, cell.MsgBegin, []byte("127.77.66.55")), r.find(t, cell.MsgData, secret)...) {
		if h.node != exit.Nickname || h.from != middle.Addrs[0].Addr() {
			t.Errorf("%v: heard by %s from %v, want %s from the middle, %v", h.typ, h.node, h.from, exit.Nickname, middle.Addrs[0])
		}
	}
	extended := func(node string, from netip.Addr, to cell.NodeID) bool {
		for _, h := range r.find(t, cell.MsgExtend, to[:]) {
			if h.node == node && h.from == from {
				return true
			}
		}
		return false
	}
	if !extended(guard.Nickname, ClientAddr, middle.ID) {
		t.Error("the guard heard no EXTEND to the middle from the client")
	}
	if !extended(middle.Nickname, guard.Addrs[0].Addr(), exit.ID) {
		t.Error("the middle heard no EXTEND to the exit from the guard")
	}

	// What nobody else may see, neither in the cells of their links nor in what they read.
	for role, node := range at {
		if r.cells[node].Len() < 10*cell.Size {
			t.Fatalf("the %s: %d bytes of cells: the wiretap is blind", role, r.cells[node].Len())
		}
		if bytes.Contains(r.cells[node].Bytes(), secret[:16]) {
			t.Errorf("the %s's links carry the payload in clear", role)
		}
		if got := r.saw(node, secret[:16]); got != (role == "exit") {
			t.Errorf("the %s saw the payload: %v", role, got)
		}
		if got := r.saw(node, []byte("127.77.66.55")); got != (role == "exit") {
			t.Errorf("the %s saw the destination: %v", role, got)
		}
		if r.saw(node, []byte(ClientAddr.String())) {
			t.Errorf("the %s was told the client's address", role)
		}
	}
	for _, h := range r.messages {
		if h.node == exit.Nickname && h.from == ClientAddr && (h.typ == cell.MsgBegin || h.typ == cell.MsgData) {
			t.Error("the exit heard the client itself")
		}
	}
}
