package guard

import (
	"testing"
	"time"
)

// What failed in another network says nothing: after it the first guard is the first again, and none was used for it.
func TestForgivenGuardsComeFirstAgain(t *testing.T) {
	s, rng := made(t, relays(100), 3), seeded(4)
	if s.Used() {
		t.Error("none was used yet")
	}
	first := pick(t, s, t0)
	s.Succeeded(first, nil, t0, rng)
	if !s.Used() {
		t.Error("one was used")
	}
	for range 5 {
		for range 10 { // all that come next fail
			s.Failed(pick(t, s, t0), t0, rng)
		}
		if pick(t, s, t0) == first {
			t.Fatal("it failed and does not wait")
		}
		s.Forgive()
		if got := pick(t, s, t0.Add(time.Second)); got != first {
			t.Fatalf("%v is picked, not %v", got, first)
		}
	}
	for _, g := range s.List(t0) {
		if g.Suspect || g.Down || !g.Retry.IsZero() {
			t.Errorf("%+v", g)
		}
	}
	if s.Succeeded(first, nil, t0, rng) != Keep {
		t.Error("it is not kept")
	}
}
