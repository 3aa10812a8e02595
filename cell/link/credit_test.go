package link

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestWindowLetsExactlyItsSizeCome(t *testing.T) {
	var w window
	if w.Received(1) {
		t.Error("a window that is not open lets a cell come")
	}
	for _, size := range []uint16{1, 2, 64, 1024, math.MaxUint16} {
		w = window{}
		w.Open(size)
		if !w.Received(int(size)) {
			t.Errorf("size %d: less than that may come", size)
		}
		if w.Received(1) {
			t.Errorf("size %d: more may come", size)
		}
	}
}

func TestCreditIsDue(t *testing.T) {
	for _, x := range []struct {
		size uint16
		left int
		rest time.Duration
		due  bool
	}{
		{1024, 511, 0, false},
		{1024, 512, 0, true},
		{1024, 127, time.Hour, false},
		{1024, 128, creditPause - 1, false},
		{1024, 128, creditPause, true},
		{1024, 0, time.Hour, false},
		{1, 0, time.Hour, false},
		{1, 1, 0, true},
		{2, 1, 0, true},
		{3, 1, 0, true},
		{7, 2, 0, false},
		{7, 2, creditPause, true},
		{7, 3, 0, true},
	} {
		var w window
		w.Open(x.size)
		w.Received(x.left)
		w.Left(x.left, plenty, 0, time.Millisecond, false)
		if owed, _ := w.Owed(plenty); owed != int64(x.left) {
			t.Errorf("size %d, %d left: owed %d", x.size, x.left, owed)
		}
		now, soon := w.Due(plenty)
		if got := now || soon && x.rest >= creditPause; got != x.due {
			t.Errorf("size %d, %d left, %v after the last: due %v, want %v", x.size, x.left, x.rest, got, x.due)
		}
	}
}

func TestCreditIsNeverLost(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, size := range []int64{1, 2, 3, 64, 1024} {
		var w window
		w.Open(uint16(size))
		credit := size // at the sender
		queued := 0
		for range 20000 {
			switch rng.IntN(4) {
			case 0:
				n := rng.Int64N(credit + 1)
				credit -= n
				queued += int(n)
				if !w.Received(int(n)) {
					t.Fatal("a cell with credit was refused")
				}
			case 1:
				n := rng.IntN(queued + 1)
				queued -= n
				w.Left(n, plenty, 0, time.Millisecond, false)
			case 2:
				if now, soon := w.Due(plenty); now || soon && rng.IntN(2) == 0 {
					n, _ := w.Owed(plenty)
					w.Grant(n, 0)
					credit += n
				}
			case 3:
				n := rng.Int64N(credit/8 + 1)
				credit -= n
				if !w.Returned(n) {
					t.Fatal("credit that was there could not be given back")
				}
			}
			if w.left > w.recv || w.recv > w.limit || w.limit-w.left > size {
				t.Fatalf("left %d, recv %d, limit %d, size %d", w.left, w.recv, w.limit, size)
			}
			if credit != w.limit-w.recv || int64(queued) != w.recv-w.left {
				t.Fatalf("the sender has %d credits, the receiver thinks %d", credit, w.limit-w.recv)
			}
			if now, _ := w.Due(plenty); credit == 0 && queued == 0 && !now {
				t.Fatal("everything came and went, and no credit is due: nothing will ever move again")
			}
		}
	}
}

func TestGivingBackMoreThanThereIsIsSeen(t *testing.T) {
	var w window
	w.Open(10)
	w.Received(4)
	if !w.Returned(6) {
		t.Error("unused credit could not be given back")
	}
	if w.Returned(1) {
		t.Error("used credit was given back")
	}
}
