package link_test

import (
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
)

// A peer that asks for what it cannot have is read later, up to two seconds at a time, and what it is sent is not held up.
func TestAReaderThatIsSlowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := rawPair(t, &host{}, nil)
		asked := uint16(0)
		answer := func() time.Duration {
			began := time.Now()
			asked++
			r.Send(pack(t, 0, cell.CmdCredit, cell.CreditCell{Ask: asked}))
			for {
				cells, err := r.Receive()
				if err != nil {
					t.Fatal(err)
				}
				for i := range cells {
					if m, err := cell.ParseCreditCell(cells[i].Body()); err == nil && m.Answer == asked {
						synctest.Wait() // it is back at the connection, or waits
						return time.Since(began)
					}
				}
			}
		}
		for _, step := range []struct{ pause, slow, want time.Duration }{
			{0, time.Second, 0}, // a second is free
			{0, 0, 0},
			{0, 500 * time.Millisecond, 0}, // what was under way is done
			{0, 0, 500 * time.Millisecond},
			{0, 0, 0},
			{time.Second, 900 * time.Millisecond, 0}, // it comes back with time
			{0, 0, 0},
			{0, time.Hour, 0}, // never for longer than 2 s
			{0, 0, 2 * time.Second},
			{0, 0, 0},
		} {
			time.Sleep(step.pause)
			if step.slow > 0 {
				l.Slow(step.slow)
			}
			if took := answer(); took != step.want {
				t.Errorf("%+v: the answer came after %v", step, took)
			}
		}
		l.Slow(time.Hour)
		answer()
		began := time.Now()
		l.Close()
		<-l.Done()
		if took := time.Since(began); took != 0 {
			t.Errorf("a link that waits ends after %v", took)
		}
		over(t, l, link.ReasonClosed)
	})
}
