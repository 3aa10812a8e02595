package socks

import (
	"sync"
	"time"

	"peel/cell/contain"
)

// alarmStep is how finely alarms go off.
const alarmStep = time.Millisecond

// alarms are what each request sets for the case that it takes long, and mostly takes back. All share one timer, which is left alone when the
// next to go off is taken back: to set a timer has Go wake a thread, while an application waits. Its zero value is ready.
type alarms struct {
	mu    sync.Mutex
	began time.Time // times are since then
	all   map[*alarm]struct{}
	timer *time.Timer
	at    time.Duration // when the timer goes off; 0: it does not
}

// An alarm calls do, in a goroutine, unless it is taken back before.
type alarm struct {
	set *alarms
	at  time.Duration
	do  func()
}

// after sets an alarm; bug is told if do panics.
func (s *alarms) after(d time.Duration, bug func(*contain.Panic), do func()) *alarm {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all, s.began = make(map[*alarm]struct{}), time.Now()
	}
	now := time.Since(s.began)
	a := &alarm{set: s, at: (now + d + alarmStep - 1) / alarmStep * alarmStep, do: func() { contain.Go(bug, do) }}
	s.all[a] = struct{}{}
	s.wind(a.at, now)
	return a
}

// stop takes an alarm back; false: it went off.
func (a *alarm) stop() bool {
	a.set.mu.Lock()
	defer a.set.mu.Unlock()
	_, ok := a.set.all[a]
	delete(a.set.all, a)
	return ok
}

// wind has the timer go off at a time, or before. The caller holds mu.
func (s *alarms) wind(at, now time.Duration) {
	switch {
	case s.at > 0 && s.at <= at:
		return
	case s.timer == nil:
		s.timer = contain.After(at-now, nil, s.ring)
	default:
		s.timer.Reset(at - now)
	}
	s.at = at
}

// ring lets go off what is due, and winds the timer for the next.
func (s *alarms) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.began)
	s.at = 0
	for a := range s.all {
		if a.at <= now {
			delete(s.all, a)
			a.do()
		} else {
			s.wind(a.at, now)
		}
	}
}
