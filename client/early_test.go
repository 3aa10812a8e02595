package client

import (
	"errors"
	"io"
	"strings"
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
		{"liar-2.example", 3, cell.EndMisc, false},
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
			said := len(w.said())
			if most := strings.Count(x.host, "liar"); said > most {
				t.Errorf("%s: %d exits saw what went along, at most %d may", x.host, said, most)
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
		c := w.readyToRace(Config{})
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

// The exit that is asked after another has refused gets them as well, once.
func TestFirstBytesGoToTheNextExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		w.refusals.Store(2)
		conn, err := c.DialEarly(t.Context(), "tcp", "fickle-2.example:443", []byte("hello, "))
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte("world"))
		conn.(*Conn).CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || string(got) != "hello, world" {
			t.Errorf("the echo is %q, %v", got, err)
		}
		if said := w.said(); len(said) != 1 || said[0] != "hello, world" || len(w.hosts()) != 3 {
			t.Errorf("%d exits were asked, hosts got %q", len(w.hosts()), said)
		}
	})
}

// A circuit whose answer is late takes no more streams, though no other is asked.
func TestSlowCircuitsArePassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24)
		c := w.readyToRace(Config{})
		w.delayed = func() time.Duration { return 10 * time.Second }
		first, err := c.DialEarly(t.Context(), "tcp", "www.example:443", []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		w.delayed = nil
		next, err := c.DialEarly(t.Context(), "tcp", "www.example:443", []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		if &PathOf(first)[0] == &PathOf(next)[0] { // of another circuit, though it may have the same relays
			t.Error("a circuit that was late is used again")
		}
		if _, err := c.DialEarly(t.Context(), "tcp", "www.example:443", make([]byte, stream.MaxFirst+1)); err == nil || !strings.Contains(err.Error(), "at most 65536") {
			t.Errorf("more than can go along: %v", err)
		}
	})
}
