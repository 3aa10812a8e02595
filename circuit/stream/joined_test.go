package stream

import (
	"errors"
	"sync"
	"testing"

	"peel/cell"
)

// pair is two ends of a circuit, joined without layers, link or delay.
type pair struct {
	t              testing.TB
	client, relay  *Mux
	accepted       chan *Stream
	refuse         func(*Stream, Open) bool // says that it dealt with a stream itself
	wake           chan struct{}
	stop, pumpGone chan struct{}
	once           sync.Once
	moved          int                             // messages
	seen           func(from *Mux, m cell.Message) // of each message, before it arrives
}

// join makes two ends and a goroutine that carries messages between them until the test ends.
func join(t testing.TB, client, relay Config) *pair {
	p := joinByHand(t, client, relay)
	p.start()
	return p
}

func (p *pair) start() {
	p.stop, p.pumpGone = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(p.pumpGone)
		for {
			select {
			case <-p.wake:
				p.carry()
			case <-p.stop:
				return
			}
		}
	}()
	p.t.Cleanup(p.end)
}

func (p *pair) end() {
	p.once.Do(func() {
		close(p.stop)
		<-p.pumpGone
		p.client.Close(errGone)
		p.relay.Close(errGone)
	})
}

var errGone = errors.New("the circuit is gone")

// joinByHand makes two ends between which carry moves messages.
func joinByHand(t testing.TB, client, relay Config) *pair {
	p := &pair{t: t, accepted: make(chan *Stream, MaxStreams), wake: make(chan struct{}, 1)}
	client.Wake = func() {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	relay.Wake = client.Wake
	relay.Accept = func(s *Stream, o Open) {
		if p.refuse != nil && p.refuse(s, o) {
			return
		}
		s.Connected(cell.Connected{})
		p.accepted <- s
	}
	p.client, p.relay = NewMux(client), NewMux(relay)
	return p
}

// carry moves messages until both ends have none, one of each in turn.
func (p *pair) carry() {
	for p.move(p.client, p.relay) || p.move(p.relay, p.client) {
	}
}

// move moves one message.
func (p *pair) move(from, to *Mux) bool {
	m, ok := next(p.t, from)
	if !ok {
		return false
	}
	p.moved++
	if p.seen != nil {
		p.seen(from, m)
	}
	if err := to.Receive(m); err != nil {
		p.t.Errorf("%v refused: %v", m.Type, err)
	}
	return true
}

// next pulls one message, in the wire form.
func next(t testing.TB, m *Mux) (cell.Message, bool) {
	t.Helper()
	var c cell.Cell
	for i := range c {
		c[i] = 0xa5 // what was in a cell before must not matter
	}
	if !m.Next(c.Body()) {
		return cell.Message{}, false
	}
	msg, err := cell.ParseMessage(c.Body())
	if err != nil {
		t.Fatalf("a message that nobody would take: %v", err)
	}
	return msg, true
}

// dial opens a stream through the pair and returns both of its ends.
func (p *pair) dial() (client, relay *Stream) {
	p.t.Helper()
	client, err := p.client.Dial(p.t.Context(), web)
	if err != nil {
		p.t.Fatal(err)
	}
	return client, <-p.accepted
}

var web = cell.Begin{Host: "example.net", Port: 80}

// empty fails the test if anything is left on either Mux.
func (p *pair) empty() {
	p.t.Helper()
	for name, m := range map[string]*Mux{"client": p.client, "relay": p.relay} {
		m.mu.Lock()
		if len(m.streams) != 0 || m.unread != 0 || m.control.head != nil || m.data.head != nil {
			p.t.Errorf("%s: %d streams and %d bytes are left", name, len(m.streams), m.unread)
		}
		m.mu.Unlock()
	}
}

// message makes a message as the other end might.
func message(t testing.TB, typ cell.MessageType, id cell.StreamID, b cell.Body) cell.Message {
	t.Helper()
	m, err := cell.NewMessage(typ, id, b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func data(id cell.StreamID, n int) cell.Message {
	return cell.Message{Type: cell.MsgData, Stream: id, Data: make([]byte, n)}
}
