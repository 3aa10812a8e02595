package authority

import (
	"bytes"
	"flag"
	"fmt"
	"testing"
	"time"

	"peel/directory"
	"peel/directory/dirtest"
)

var monthDays = flag.Int("days", 0, "virtual days of nine authorities; 0: one in the quick test, 30 with PEEL_SLOW=1")

// Nine authorities that are restarted again and again, at most three of them in one voting, have a
// consensus in each period, all the same bytes, and a shared random value each day.
func TestMonthOfRestarts(t *testing.T) {
	t.Parallel()
	n := 1
	if slow() {
		n = 30
	}
	if *monthDays > 0 {
		n = *monthDays
	}
	const seed = 30
	net := dirtest.New(seed, 3, dirtest.Authorities(9), dirtest.At(hour(1)), dirtest.Schedule(directory.Schedule{Start: hour(1)}))
	s := newSim(t, fmt.Sprintf("repeat it with go test ./directory/authority -run TestMonthOfRestarts -days=%d -v", n), net, seed)
	s.link = func(int, int) (time.Duration, bool) {
		return time.Duration(s.rng.Int64N(int64(2 * time.Second))), s.rng.IntN(50) == 0
	}
	for _, node := range s.nodes {
		node.skew = time.Duration(s.rng.IntN(11)-5) * time.Second
		s.at(minute(1), node.start)
	}
	// Those who miss a part of a voting are as good as down.
	restarts, missing := 0, map[int]bool{}
	voting := func() bool {
		p := PeriodAt(net.Network.Schedule, s.now)
		return p.Phase(s.now.Add(time.Minute)) != Collect
	}
	var fault func()
	fault = func() {
		if !voting() {
			for i := range missing {
				if s.nodes[i].v != nil {
					delete(missing, i)
				}
			}
		}
		if node := s.nodes[s.rng.IntN(9)]; node.v != nil && (len(missing) < 3 || missing[node.i]) {
			node.crash()
			missing[node.i] = true
			restarts++
			s.after(time.Duration(s.rng.IntN(1200))*time.Second, node.start)
		}
		s.after(time.Duration(s.rng.IntN(1200))*time.Second, fault)
	}
	s.at(minute(20), fault)

	published, values := 0, map[directory.Digest]bool{}
	for h := 1; h <= 24*n; h++ {
		after := hour(h)
		s.runUntil(after.Add(40 * time.Minute))
		var first []byte
		for _, node := range s.nodes {
			if node.v == nil || s.now.Sub(node.since) < 3*time.Minute {
				continue // it may still be asking for it
			}
			c := node.consensus
			if c == nil || !c.ValidAfter.Equal(after) {
				s.fatal("authority %d has no consensus for %v", node.i, after)
			}
			if err := c.VerifySignatures(net.Network); err != nil && first == nil {
				s.fatal("%v", err)
			}
			signed := c.Header.Append(nil)
			for i := range c.Entries {
				signed = c.Entries[i].Append(signed)
			}
			if first == nil {
				first = signed
				published++
				values[c.Shared.Current.Value] = true
				if _, round := net.Network.Schedule.Run(after); h > 24 && round == 0 && c.Shared.Current.Reveals < net.Network.Threshold {
					t.Errorf("the value of %v was made of %d secrets", after, c.Shared.Current.Reveals)
				}
			}
			if !bytes.Equal(signed, first) {
				s.fatal("two consensuses for %v", after)
			}
		}
	}
	t.Logf("%d of %d consensuses, the same on all, with %d restarts; %d shared random values; %d steps", published, 24*n, restarts, len(values), s.steps)
	if published != 24*n || len(values) != n {
		t.Errorf("want %d consensuses and %d values", 24*n, n)
	}
	for _, node := range s.nodes {
		if node.v != nil && len(node.v.evidence) > 0 {
			t.Errorf("an honest authority was accused by %d", node.i)
		}
	}
}
