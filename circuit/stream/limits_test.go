package stream

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
)

var connected = cell.Connected{TTL: 60, Addr: netip.MustParseAddr("192.0.2.1")}

// opened returns a client's Mux with one stream, id 1, of which CONNECTED has come.
func opened(t testing.TB) (*Mux, *Stream) {
	m := NewMux(Config{})
	s, err := m.Open(web)
	if err != nil {
		t.Fatal(err)
	}
	next(t, m)
	if err := m.Receive(message(t, cell.MsgConnected, 1, connected)); err != nil {
		t.Fatal(err)
	}
	return m, s
}

func TestBreachesAreNamed(t *testing.T) {
	begin := message(t, cell.MsgBegin, 1, web)
	resolve := message(t, cell.MsgResolve, 2, cell.Resolve{Name: "example.net"})
	end := func(id cell.StreamID, r cell.EndReason) cell.Message {
		return message(t, cell.MsgEnd, id, cell.End{Reason: r})
	}
	window := func(id cell.StreamID, limit uint64) cell.Message {
		return message(t, cell.MsgWindow, id, cell.Window{Limit: limit})
	}
	con := message(t, cell.MsgConnected, 1, connected)
	overrun := []cell.Message{begin}
	for n := 0; n <= InitialWindow; n += 1024 {
		overrun = append(overrun, data(1, 1024))
	}
	tests := []struct {
		name  string
		relay bool // the end that hears it is a relay's; else a client's with stream 1 connected and 2 a RESOLVE
		heard []cell.Message
		want  string
	}{
		{"data on no stream", true, []cell.Message{data(9, 1)}, "DATA on stream 9, which is not open"},
		{"end on no stream", true, []cell.Message{end(9, cell.EndDone)}, "END on stream 9, which is not open"},
		{"reset on no stream", true, []cell.Message{end(9, cell.EndReset)}, "END on stream 9, which is not open"},
		{"window on no stream", true, []cell.Message{window(9, 2<<20)}, "WINDOW on stream 9, which is not open"},
		{"id in use", true, []cell.Message{begin, begin}, "BEGIN on stream 1, which is in use"},
		{"id in use by a resolve", true, []cell.Message{resolve, message(t, cell.MsgBeginDir, 2, nil)}, "BEGIN_DIR on stream 2, which is in use"},
		{"data after end", true, []cell.Message{begin, end(1, cell.EndDone), data(1, 1)}, "DATA on stream 1, after END"},
		{"data after reset", true, []cell.Message{begin, end(1, cell.EndReset), data(1, 1)}, "DATA on stream 1, after its last END"},
		{"second end", true, []cell.Message{begin, end(1, cell.EndDone), end(1, cell.EndDone)}, "END on stream 1, twice"},
		{"second reset", true, []cell.Message{begin, end(1, cell.EndMisc), end(1, cell.EndMisc)}, "END on stream 1, after its last END"},
		{"data beyond the window", true, overrun, "DATA on stream 1, beyond its window"},
		{"empty data", true, []cell.Message{begin, data(1, 0)}, "DATA on stream 1, without data"},
		{"window that does not move", true, []cell.Message{begin, window(1, InitialWindow)}, "raises the limit by less"},
		{"window that falls", true, []cell.Message{begin, window(1, 0)}, "raises the limit by less"},
		{"window of more than the largest", true, []cell.Message{begin, window(1, MaxWindow+1)}, "more than the largest"},
		{"window for nothing", true, []cell.Message{begin, window(1, 2*InitialWindow)}, "before a quarter"},
		{"connected at a relay", true, []cell.Message{begin, con}, "CONNECTED on stream 1, which was opened by the other end"},
		{"resolved at a relay", true, []cell.Message{resolve, message(t, cell.MsgResolved, 2, cell.Resolved{Reason: cell.EndMisc})}, "after its last END"},
		{"data on a resolve", true, []cell.Message{resolve, data(2, 1)}, "after its last END"},
		{"extend", true, []cell.Message{{Type: cell.MsgExtend}}, "EXTEND is no message of a stream"},

		{"stream opened at a client", false, []cell.Message{message(t, cell.MsgBegin, 5, web)}, "BEGIN: streams are opened from here only"},
		{"connected twice", false, []cell.Message{con}, "CONNECTED on stream 1, twice"},
		{"connected after reset", false, []cell.Message{end(1, cell.EndReset), con}, "CONNECTED on stream 1, after its last END"},
		{"resolved on a stream", false, []cell.Message{message(t, cell.MsgResolved, 1, cell.Resolved{Reason: cell.EndMisc})}, "opened for something else"},
		{"connected on a resolve", false, []cell.Message{message(t, cell.MsgConnected, 2, connected)}, "opened for something else"},
		{"end on a resolve", false, []cell.Message{end(2, cell.EndMisc)}, "opened for something else"},
		{"resolved twice", false, []cell.Message{
			message(t, cell.MsgResolved, 2, cell.Resolved{Reason: cell.EndMisc}),
			message(t, cell.MsgResolved, 2, cell.Resolved{Reason: cell.EndMisc})}, "RESOLVED on stream 2, which is not open"},
		{"data before connected", false, []cell.Message{data(3, 1)}, "DATA on stream 3, before CONNECTED"},
		{"done before connected", false, []cell.Message{end(3, cell.EndDone)}, "END on stream 3, before CONNECTED"},
		{"window before connected", false, []cell.Message{window(3, 2<<20)}, "WINDOW on stream 3, before CONNECTED"},
		{"answer to what was not asked yet", false, []cell.Message{message(t, cell.MsgConnected, 4, connected)}, "CONNECTED on stream 4, which is not open"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m *Mux
			if tt.relay {
				m = NewMux(Config{Accept: func(*Stream, Open) {}})
			} else {
				m, _ = opened(t)
				m.begin(Open{Type: cell.MsgResolve, Resolve: cell.Resolve{Name: "example.net"}}, nil)
				m.begin(Open{Type: cell.MsgBeginDir}, nil)
				next(t, m)
				next(t, m)
				m.Open(web) // its BEGIN has not gone
			}
			for i, msg := range tt.heard {
				err := m.Receive(msg)
				if i < len(tt.heard)-1 {
					if err != nil {
						t.Fatalf("%v: %v", msg.Type, err)
					}
					continue
				}
				if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want …%s", err, tt.want)
				}
			}
		})
	}
}

// An END, a WINDOW and a reset may cross on the way; none of it is a breach.
func TestWhatCrossesAnEndIsNoBreach(t *testing.T) {
	done := cell.End{Reason: cell.EndDone}
	m, s := opened(t)
	m.Open(web)
	next(t, m)
	go func() {
		s.Write(make([]byte, 600<<10))
		s.CloseWrite()
	}()
	sent := 0
	for msg, ok := next(t, m); msg.Type != cell.MsgEnd; msg, ok = next(t, m) {
		if ok {
			sent += len(msg.Data)
		}
	}
	if sent != 600<<10 {
		t.Fatalf("%d bytes went", sent)
	}
	if err := m.Receive(message(t, cell.MsgEnd, 1, done)); err != nil {
		t.Fatal(err)
	}
	if m.Streams() != 1 {
		t.Fatal("the stream is not over")
	}
	// The other end took two quarters before it heard of our END, then was reset.
	for range 2 {
		if err := m.Receive(message(t, cell.MsgWindow, 1, cell.Window{Limit: 2 << 20})); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Receive(message(t, cell.MsgWindow, 1, cell.Window{Limit: 2 << 20})); !errors.Is(err, ErrProtocol) {
		t.Errorf("a third WINDOW for two quarters: %v", err)
	}
	if err := m.Receive(message(t, cell.MsgEnd, 1, done)); !errors.Is(err, ErrProtocol) {
		t.Errorf("done twice: %v", err)
	}
	if err := m.Receive(message(t, cell.MsgEnd, 1, cell.End{Reason: cell.EndReset})); err != nil {
		t.Errorf("reset: %v", err)
	}
	if err := m.Receive(message(t, cell.MsgEnd, 1, cell.End{Reason: cell.EndReset})); !errors.Is(err, ErrProtocol) {
		t.Errorf("reset twice: %v", err)
	}
	// The answer to a stream opened later proves that nothing of the first is on its way.
	if err := m.Receive(message(t, cell.MsgConnected, 2, connected)); err != nil {
		t.Fatal(err)
	}
	if !m.late.has(1) {
		t.Fatal("the id is free too early")
	}
	m.Open(web)
	next(t, m)
	if err := m.Receive(message(t, cell.MsgConnected, 3, connected)); err != nil {
		t.Fatal(err)
	}
	if m.late.has(1) || len(m.late.order) != 0 {
		t.Error("the id is never free")
	}
}

// Whoever survives a panic of Receive still closes the Mux.
func TestAPanicInReceiveLeavesTheMuxUnlocked(t *testing.T) {
	m := NewMux(Config{Accept: func(*Stream, Open) {}, Now: func() time.Time { panic("a bug") }})
	func() {
		defer func() {
			if recover() == nil {
				t.Fatal("nothing panicked")
			}
		}()
		m.Receive(message(t, cell.MsgBegin, 1, web))
	}()
	if !m.mu.TryLock() {
		t.Fatal("locked: Close would wait for ever")
	}
	m.mu.Unlock()
	m.Close(errGone)
}

func TestIDsGoRound(t *testing.T) {
	p := joinByHand(t, Config{}, Config{})
	p.refuse = func(s *Stream, _ Open) bool { s.Connected(connected); s.Close(); return true }
	p.client.lastID = 500
	held, _ := p.client.Open(web)
	p.client.lastID = 65000
	seen := map[cell.StreamID]bool{0: true, held.id: true}
	for i := range 2000 {
		s, err := p.client.Open(web)
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		if seen[s.id] {
			t.Fatalf("stream %d got id %d", i, s.id)
		}
		seen[s.id] = true
		p.carry()
		s.Close()
		p.carry()
	}
	if !seen[65535] || !seen[501+1] {
		t.Error("some ids are never used")
	}
	if n := len(p.client.late.streams); n > 2 {
		t.Errorf("the client remembers %d streams", n)
	}
}

func TestTooManyStreams(t *testing.T) {
	p := joinByHand(t, Config{}, Config{MaxStreams: 10})
	p.refuse = func(s *Stream, _ Open) bool { s.Connected(connected); return true }
	var all []*Stream
	for range MaxStreams {
		s, err := p.client.Open(web)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if _, err := p.client.Open(web); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	p.carry()
	if n := p.relay.Streams(); n != 10 {
		t.Errorf("the relay has %d streams", n)
	}
	if _, err := all[10].Read(make([]byte, 1)); !errors.Is(err, &EndError{cell.EndBusy}) {
		t.Errorf("the eleventh: %v", err)
	}

	m := NewMux(Config{Accept: func(*Stream, Open) {}})
	for id := range MaxStreams {
		if err := m.Receive(message(t, cell.MsgBegin, cell.StreamID(id+1), web)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Receive(message(t, cell.MsgBegin, 5000, web)); !errors.Is(err, ErrProtocol) {
		t.Errorf("one more: %v", err)
	}
}

func TestWindowGrowsOnlyWhenItIsTheLimit(t *testing.T) {
	now := time.Unix(0, 0)
	clock := func() time.Time { return now }
	rtt := 100 * time.Millisecond
	// pass lets a quarter of the window come in so long, and wait so long to be taken.
	pass := func(w *recvWindow, took, wait time.Duration) {
		n := int(w.size / 4)
		now = now.Add(took)
		if !w.received(n, clock, rtt) {
			t.Fatal("overrun")
		}
		if w.taken += uint64(n); !w.due() {
			t.Fatal("not due")
		}
		now = now.Add(wait)
		w.grant(now, rtt, MaxWindow)
	}
	w := &recvWindow{size: InitialWindow, limit: InitialWindow}
	w.begin(now)
	var got []uint64
	for _, took := range [][2]time.Duration{{101, 0}, {100, 0}, {1, 100}, {101, 0}, {1, 0}, {1, 0}, {1, 0}} {
		pass(w, took[0]*time.Millisecond, took[1]*time.Millisecond)
		got = append(got, w.size>>20)
	}
	want := []uint64{1, 2, 2, 2, 4, 8, 8}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("sizes %v MiB, want %v", got, want)
		}
	}
	if w.due() {
		t.Error("due twice")
	}
	if w.received(MaxWindow+1, clock, rtt) {
		t.Error("a byte beyond the window was taken")
	}
}

// Over a round trip, the window of a bulk stream grows to its most, and that of one whose reader is slow does not.
func TestWindowOverARoundTrip(t *testing.T) {
	for _, slow := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const delay = 50 * time.Millisecond
			p := joinByHand(t, Config{}, Config{})
			ctx := t.Context()
			stop := make(chan struct{})
			for _, way := range [][2]*Mux{{p.client, p.relay}, {p.relay, p.client}} {
				go func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(time.Millisecond):
						}
						var batch []cell.Message
						for len(batch) < 1000 {
							m, ok := next(t, way[0])
							if !ok {
								break
							}
							m.Data = append([]byte(nil), m.Data...)
							batch = append(batch, m)
						}
						time.AfterFunc(delay, func() {
							for _, m := range batch {
								if err := way[1].Receive(m); err != nil {
									t.Error(err)
								}
							}
						})
					}
				}()
			}
			c, err := p.client.Dial(ctx, web)
			if err != nil {
				t.Fatal(err)
			}
			r := <-p.accepted
			go io.Copy(r, endless{})
			buf := make([]byte, 64<<10)
			reads := 500
			if slow {
				reads = 100
			}
			for range reads {
				if slow {
					time.Sleep(30 * time.Millisecond) // 2 MiB/s: a quarter takes longer than a round trip
				}
				io.ReadFull(c, buf)
			}
			p.client.mu.Lock()
			size := c.recv.size
			p.client.mu.Unlock()
			if slow && size != InitialWindow || !slow && size != MaxWindow {
				t.Errorf("slow reader %v: the window is %d KiB", slow, size>>10)
			}
			close(stop)
			p.client.Close(errGone)
			p.relay.Close(errGone)
			time.Sleep(time.Second)
		})
	}
}

func TestMemoryOfAllStreamsIsBounded(t *testing.T) {
	p := joinByHand(t, Config{}, Config{Unread: 2 << 20})
	p.start()
	var all []*Stream
	for i := range 8 {
		c, r := p.dial()
		all = append(all, r)
		c.Write(make([]byte, (i+1)*100<<10)) // 3.6 MB in all
	}
	for i := range all {
		c, _ := p.dial() // behind all data
		c.Close()
		_, err := all[i].Read(make([]byte, 1))
		if i < 5 && err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
	}
	if n := p.relay.Unread(); n > 2<<20 {
		t.Errorf("%d bytes wait to be read", n)
	}
}

// A chunk is taken for every 8 KiB, so that many small messages cost what they are.
func TestBufferTakesMemoryForWhatIsThere(t *testing.T) {
	var b buffer
	for range 3 * chunkSize {
		b.write([]byte{1})
	}
	n := 0
	for c := b.head; c != nil; c = c.next {
		n++
	}
	if n != 3 {
		t.Errorf("%d chunks", n)
	}
	got := make([]byte, 4*chunkSize)
	if n := b.read(got); n != 3*chunkSize || b.head != nil || b.tail != nil || b.len != 0 {
		t.Errorf("%d bytes, %d left", n, b.len)
	}
}

func FuzzReceive(f *testing.F) {
	for _, m := range []cell.Message{
		message(f, cell.MsgBegin, 3, web),
		message(f, cell.MsgBeginDir, 3, nil),
		message(f, cell.MsgResolve, 3, cell.Resolve{Name: "example.net"}),
		message(f, cell.MsgConnected, 1, connected),
		message(f, cell.MsgResolved, 2, cell.Resolved{Reason: cell.EndMisc}),
		message(f, cell.MsgEnd, 1, cell.End{Reason: cell.EndDone}),
		message(f, cell.MsgEnd, 1, cell.End{Reason: cell.EndReset}),
		message(f, cell.MsgWindow, 1, cell.Window{Limit: 2 << 20}),
		data(1, 5),
		{Type: cell.MsgBeginDir}, // of no stream
		message(f, cell.MsgBegin, 1, web),
		message(f, cell.MsgConnected, 2, connected),
		message(f, cell.MsgConnected, 5, connected),
		message(f, cell.MsgResolved, 1, cell.Resolved{Reason: cell.EndMisc}),
		message(f, cell.MsgWindow, 1, cell.Window{Limit: 1}),
		message(f, cell.MsgWindow, 9, cell.Window{Limit: 2 << 20}),
		message(f, cell.MsgEnd, 9, cell.End{Reason: cell.EndReset}),
		data(1, cell.MaxData),
		data(2, 5),
		data(1, 0),
		{Type: cell.MsgExtended, Stream: 1},
		{Type: cell.MsgEnd, Stream: 1, Data: []byte{0xff}},
	} {
		f.Add(byte(m.Type), uint16(m.Stream), m.Data)
	}
	f.Fuzz(func(t *testing.T, typ byte, id uint16, d []byte) {
		msg := cell.Message{Type: cell.MessageType(typ), Stream: cell.StreamID(id), Data: d}
		client, _ := opened(t)
		client.begin(Open{Type: cell.MsgResolve, Resolve: cell.Resolve{Name: "example.net"}}, nil)
		next(t, client)
		relay := NewMux(Config{Accept: func(s *Stream, o Open) { s.Connected(connected) }})
		relay.Receive(message(t, cell.MsgBegin, 1, web))
		for _, m := range []*Mux{client, relay} {
			for range 2 {
				streams, unread := m.Streams(), m.Unread()
				err := m.Receive(msg)
				if err != nil && !errors.Is(err, ErrProtocol) {
					t.Errorf("an error of another kind: %v", err)
				}
				switch got := m.Unread() - unread; {
				case err != nil && (got != 0 || m.Streams() != streams):
					t.Errorf("%v, but %d bytes of it and %d streams instead of %d are there", err, got, m.Streams(), streams)
				case got != 0 && (msg.Type != cell.MsgData || got != len(d)):
					t.Errorf("%d bytes of %v with %d are there", got, msg.Type, len(d))
				case msg.Type == cell.MsgData && err == nil && (id != 1 || got != len(d)):
					t.Errorf("%d of %d bytes for stream %d are there", got, len(d), id)
				}
				for {
					out, ok := next(t, m)
					if !ok {
						break
					}
					if out.Stream != msg.Stream && !(m == relay && out.Type == cell.MsgConnected && out.Stream == 1) {
						t.Errorf("%v of stream %d was answered with %v of stream %d", msg.Type, msg.Stream, out.Type, out.Stream)
					}
				}
			}
			m.Close(errGone)
			if m.Unread() != 0 || m.Streams() != 0 || m.Pending() {
				t.Error("something is left")
			}
		}
	})
}
