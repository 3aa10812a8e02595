package client

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit/stream"
)

// Another exit is asked only where the first has passed nothing on, or had nothing.
func TestFirstBytesAreTriedAgainWhereNobodyHasThem(t *testing.T) {
	for _, x := range []struct {
		host  string
		tries int
		end   cell.EndReason
		sent  bool
	}{
		{"end-2.example", 3, cell.EndMisc, false},
		{"end-3.example", 3, cell.EndResolveFailed, false},
		{"end-5.example", 1, cell.EndRefused, false},
		{"end-6.example", 3, cell.EndPolicy, false},
		{"end-10.example", 3, cell.EndBusy, false},
		{"destroy.example", 1, 0, true},
		{"silence.example", 1, 0, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 12)
			c := w.ready(Config{})
			begun := time.Now()
			_, err := c.DialEarly(t.Context(), "tcp", x.host+":443", []byte("hello"))
			var sent *stream.SentError
			if err == nil || endReason(err) != x.end || errors.As(err, &sent) != x.sent {
				t.Errorf("%s: %v", x.host, err)
			}
			if took := time.Since(begun); took > answerWithin+time.Second {
				t.Errorf("%s: failed after %v", x.host, took)
			}
			if got := w.hosts(); len(got) != x.tries {
				t.Errorf("%s: %d tries instead of %d", x.host, len(got), x.tries)
			}
			for _, s := range w.said() {
				t.Errorf("%s: a host got %q", x.host, s)
			}
			spoilt := len(w.asked())
			if err := dialAndEcho(c, "www.example:443"); err != nil {
				t.Errorf("after %s: %v", x.host, err)
			}
			if x.sent && len(w.asked()) == spoilt {
				t.Errorf("%s: the circuit that failed is used again", x.host)
			}
		})
	}
}

// The answer comes with CONNECTED, and nothing is sent twice however late that is: no second circuit is asked.
func TestFirstBytesArriveOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24)
		c := w.ready(Config{})
		c.pool.mu.Lock()
		c.pool.answers.saved = raceSaving
		c.pool.mu.Unlock()
		w.delayed = func() time.Duration { return 10 * time.Second }
		conn, err := c.DialEarly(t.Context(), "tcp", "www.example:443", []byte("hello, "))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("world")); err != nil {
			t.Fatal(err)
		}
		conn.(*Conn).CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || string(got) != "hello, world" {
			t.Errorf("the echo is %q, %v", got, err)
		}
		conn.Close()
		time.Sleep(time.Minute)
		if said := w.said(); len(said) != 1 || said[0] != "hello, world" {
			t.Errorf("hosts got %q", said)
		}
		if begun, _ := c.Races(); begun != 0 || len(w.hosts()) != 1 {
			t.Errorf("%d races, asked for %d times", begun, len(w.hosts()))
		}
	})
}
