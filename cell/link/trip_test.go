package link

import (
	"testing"
	"time"

	"peel/cell"
)

func TestRoundTripIsTheLeastEcho(t *testing.T) {
	var p trip
	if p.RTT() != tripLeast || !p.Calm(0) {
		t.Errorf("before anything is known: %v, calm %v", p.RTT(), p.Calm(0))
	}
	now := time.Duration(0)
	echo := func(d time.Duration) {
		t.Helper()
		s := p.Ask(now)
		if s == 0 {
			t.Fatalf("at %v: no ask", now)
		}
		if p.Ask(now+time.Hour) != 0 {
			t.Fatal("two asks at once")
		}
		p.Answer(s+1, now+1) // of something else
		now += d
		p.Answer(s, now)
		p.Answer(s, now+time.Hour) // once is enough
		now += max(askPause, 2*p.RTT())
	}
	for _, x := range []struct {
		echo, rtt time.Duration
		calm      bool
	}{
		{100 * msec, 100 * msec, true}, {50 * msec, 50 * msec, true}, {130 * msec, 50 * msec, true}, {131 * msec, 50 * msec, false},
		{60 * msec, 50 * msec, true}, {msec, tripLeast, true}, {34 * msec, tripLeast, true}, {35 * msec, tripLeast, false},
	} {
		if echo(x.echo); p.RTT() != x.rtt || p.Calm(now) != x.calm {
			t.Errorf("after an echo of %v: RTT %v, calm %v; want %v, %v", x.echo, p.RTT(), p.Calm(now), x.rtt, x.calm)
		}
	}
	// The way has become longer: it is believed after a minute.
	echo(msec)
	since := now
	for p.RTT() == tripLeast && now < since+time.Hour {
		echo(300 * msec)
	}
	if p.RTT() != 300*msec || now-since < tripRenew || now-since > tripRenew+2*time.Second {
		t.Errorf("RTT %v after %v", p.RTT(), now-since)
	}
	// One that does not come is long.
	p.Ask(now)
	if !p.Calm(now+630*msec) || p.Calm(now+631*msec) {
		t.Error("an answer that does not come is not noticed")
	}
}

func TestRoundTripOfTheKernelCounts(t *testing.T) {
	var p trip
	p.Measured(0)
	p.Measured(80 * msec)
	p.Answer(p.Ask(0), 10*msec)
	if p.RTT() != 80*msec {
		t.Errorf("RTT %v", p.RTT())
	}
	if p.Measured(5 * time.Second); p.RTT() != tripMost {
		t.Errorf("RTT %v", p.RTT())
	}
	if p.Ask(20*msec) != 0 {
		t.Error("asked again within 2 RTT")
	}
}

func TestAskIsNeverZero(t *testing.T) {
	p := trip{serial: 65535}
	if s := p.Ask(time.Hour); s != 1 {
		t.Errorf("asks %d", s)
	}
}

func TestSocketHoldsTenMilliseconds(t *testing.T) {
	for _, x := range []struct {
		perCell time.Duration
		hold    int
	}{{time.Microsecond, drainMost}, {msec / 10, drainMost}, {msec / 5, 50}, {msec, 10}, {2 * msec, 5}, {100 * msec, drainLeast}} {
		var d drain
		if d.Hold() != drainMost || d.Record() != maxCells {
			t.Fatalf("at first it holds %d, in records of %d", d.Hold(), d.Record())
		}
		now := time.Duration(0)
		for range 2000 {
			n := d.Record()
			now += time.Duration(n) * x.perCell
			d.Wrote(n, now)
		}
		if d.Hold() < x.hold-1 || d.Hold() > x.hold+1 || d.Record() > d.Hold() || d.Record() < drainLeast/2 {
			t.Errorf("a cell each %v: holds %d, want %d", x.perCell, d.Hold(), x.hold)
		}
		d.Idle()
		was := d.Hold()
		for range 1000 { // what does not wait says nothing about the socket
			now += time.Second
			d.Wrote(1, now)
			d.Idle()
		}
		if d.Hold() != was {
			t.Errorf("idle: holds %d", d.Hold())
		}
	}
}

// TestSocketThatHoldsAllCreditIsMeasured: a sender that is short of credit never has more waiting than the socket holds, and what
// stands in the socket shows all the same.
func TestSocketThatHoldsAllCreditIsMeasured(t *testing.T) {
	const perCell = 5 * msec
	var d drain
	var now time.Duration
	unsent := 64 * cell.Size // all of the first credit
	d.Wrote(64, now)
	d.Idle()
	for range 20 { // half of it comes back at a time
		now += 32 * perCell
		unsent -= 32 * cell.Size
		d.Looked(unsent, now)
		d.Wrote(32, now)
		d.Idle()
		unsent += 32 * cell.Size
	}
	if d.Hold() != drainLeast || d.Record() != recordLeast {
		t.Errorf("holds %d in records of %d, and drains 2 cells in 10 ms", d.Hold(), d.Record())
	}
	// Where nothing stands, what is unsent at the moment of a look says nothing.
	d = drain{}
	for range 100 {
		now += 25 * msec
		d.Looked(4*cell.Size, now)
		d.Wrote(40, now)
		d.Idle()
	}
	if d.Hold() != drainMost {
		t.Errorf("holds %d, and at most 4 cells were ever seen in it", d.Hold())
	}
}
