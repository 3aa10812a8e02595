package socks

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/contain"
)

func TestAlarmsGoOffInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s alarms
		start := time.Now()
		var went [4]atomic.Int64
		set := func(i int, d time.Duration) *alarm {
			return s.after(d, nil, func() { went[i].Store(int64(time.Since(start))) })
		}
		set(0, 100*time.Millisecond)
		set(1, 5*time.Millisecond)
		back := set(2, 50*time.Millisecond)
		time.Sleep(20*time.Millisecond + 300*time.Microsecond)
		late := set(3, 100*time.Millisecond)
		if !back.stop() || back.stop() {
			t.Error("an alarm can be taken back, once")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for i, want := range []time.Duration{100 * time.Millisecond, 5 * time.Millisecond, 0, 121 * time.Millisecond} {
			if got := time.Duration(went[i].Load()); got != want {
				t.Errorf("alarm %d went off after %v, want %v", i, got, want)
			}
		}
		if late.stop() || len(s.all) > 0 || s.at != 0 {
			t.Errorf("afterwards there are %d alarms, and the timer goes off at %v", len(s.all), s.at)
		}
		set(0, time.Millisecond)
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if got := time.Duration(went[0].Load()); got != 1022*time.Millisecond {
			t.Errorf("one that is set later went off after %v", got)
		}
	})
}

// TestRequestsOneAfterAnotherSetNoTimer: what each of them sets and takes back moves the timer once for all of them.
func TestRequestsOneAfterAnotherSetNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s alarms
		seen := map[time.Duration]bool{}
		for range 90 {
			a := s.after(watchAfter, nil, func() { t.Error("an alarm that was taken back went off") })
			seen[s.at] = true
			time.Sleep(time.Millisecond)
			a.stop()
		}
		if len(seen) != 1 {
			t.Errorf("the timer was set %d times", len(seen))
		}
		time.Sleep(time.Second)
		synctest.Wait()
	})
}

func TestAlarmTellsOfItsPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s alarms
		var told, next atomic.Bool
		s.after(time.Millisecond, func(*contain.Panic) { told.Store(true) }, func() { panic("a test") })
		s.after(2*time.Millisecond, nil, func() { next.Store(true) })
		time.Sleep(time.Second)
		synctest.Wait()
		if !told.Load() || !next.Load() {
			t.Errorf("told of the panic: %v; the next alarm went off: %v", told.Load(), next.Load())
		}
	})
}
