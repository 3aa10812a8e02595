package guard

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"peel/cell"
)

// When a guard that failed is tried again (spec/guard.md, section 4).
const (
	firstRetry  = 30 * time.Second // one of the first places; doubled with each failure, up to the last
	lastRetry   = 30 * time.Minute
	firstOthers = time.Hour
	lastOthers  = 36 * time.Hour

	firstSuspect       = 10 * time.Second // the same while it is not known whether the network is there
	lastSuspect        = 2 * time.Minute
	firstSuspectOthers = 2 * time.Minute
	lastSuspectOthers  = 10 * time.Minute

	checkFor = 15 * time.Second // how long lesser guards stand back for one that is to be checked
)

// ErrNone is in the error of a Pick that finds no guard at all.
var ErrNone = errors.New("no guard may be used")

// Pick says by which guard to enter now: the most preferred one that is not left and does not wait after a failure; else one that is
// left; when all wait, the one whose wait ends first. skip says which would not do for this circuit, being the exit or of its family or
// network; nil: none. It is not held against those.
func (s *Set) Pick(skip func(cell.NodeID) bool, now time.Time) (cell.NodeID, error) {
	var left, soonest *member
	for _, m := range s.order {
		switch {
		case skip != nil && skip(m.id):
		case !m.waits(now) && !m.left(now):
			return m.id, nil
		case !m.waits(now):
			if left == nil {
				left = m
			}
		case soonest == nil || m.retry.Before(soonest.retry):
			soonest = m
		}
	}
	switch {
	case left != nil:
		return left.id, nil
	case soonest != nil:
		return soonest.id, nil
	}
	return cell.NodeID{}, s.none()
}

// none says why there is no guard.
func (s *Set) none() error {
	if len(s.order) > 0 {
		return fmt.Errorf("guard: %w with the rest of the circuit: each of %d is its exit, or of its family or network", ErrNone, len(s.order))
	}
	excluded, unlisted := 0, 0
	for _, m := range s.sample {
		if !m.allowed {
			excluded++
		}
		if !m.unlisted.IsZero() {
			unlisted++
		}
	}
	return fmt.Errorf("guard: %w: of %d, %d are excluded by the configuration and %d not in the directory now; the network has no other that would do",
		ErrNone, len(s.sample), excluded, unlisted)
}

// Verdict says what to do with a circuit that was built.
type Verdict int

// The verdicts on a circuit.
const (
	Keep   Verdict = iota // use it
	Better                // close it: a guard before its own failed when perhaps the network did, and is to be tried first
)

// Succeeded notes that a circuit was built through a guard, and says whether to use it. skip is what Pick was given.
func (s *Set) Succeeded(id cell.NodeID, skip func(cell.NodeID) bool, now time.Time, rng func(uint64) uint64) Verdict {
	m := s.find(id)
	if m == nil {
		return Keep // it left the set while the circuit was built
	}
	m.state, m.failures, m.lately = up, 0, 0
	for _, d := range s.sample {
		if d.state == down && d.lately > 0 { // it failed, and another answers
			s.lose(d, now, rng)
		}
	}
	better := s.better(m, skip, now)
	if len(better) == 1 && better[0].state == suspect && s.suspects() == 1 {
		// One failed and the next answered: that was no failure of the network.
		s.lose(better[0], now, rng)
		better = nil
	}
	if len(better) > 0 {
		for _, m := range better {
			if m.state == suspect {
				m.state, m.lately, m.checked = checking, 0, now
			}
		}
		return Better
	}
	if m.confirmed.IsZero() {
		m.confirmed = blur(now, Lifetime, rng)
		s.used = append(s.used, m)
		s.sort()
		s.changed = true
	}
	return Keep
}

// better are the guards before m that are to be tried before m is used.
func (s *Set) better(m *member, skip func(cell.NodeID) bool, now time.Time) (better []*member) {
	for _, b := range s.order {
		if b == m {
			break
		}
		if b.left(now) || skip != nil && skip(b.id) {
			continue
		}
		if b.state == suspect || b.state == checking && now.Sub(b.checked) < checkFor {
			better = append(better, b)
		}
	}
	return better
}

func (s *Set) suspects() (n int) {
	for _, m := range s.sample {
		if m.state == suspect {
			n++
		}
	}
	return n
}

// Failed notes that a guard could not be reached, or took no circuit. It counts against the guard only when others answer;
// for all that is known the client's own network may be gone.
func (s *Set) Failed(id cell.NodeID, now time.Time, rng func(uint64) uint64) {
	m := s.find(id)
	switch {
	case m == nil:
	case m.state == checking && now.Sub(m.checked) < checkFor:
		s.lose(m, now, rng)
	case m.state == down: // whether it counts is known when another answers
		m.lately++
		m.retry = now.Add(s.wait(m, rng))
	default:
		m.state = suspect
		m.lately++
		first, last := firstSuspectOthers, lastSuspectOthers
		if s.isPrimary(m) {
			first, last = firstSuspect, lastSuspect
		}
		m.retry = now.Add(min(first<<min(m.lately-1, 16), last))
	}
}

// lose counts a failure against a guard.
func (s *Set) lose(m *member, now time.Time, rng func(uint64) uint64) {
	m.state, m.lately = down, 0
	m.failures++
	m.retry = now.Add(s.wait(m, rng))
}

// Forgive forgets which guards failed: for when the client's own network was another, or gone. The guards and their order stay.
func (s *Set) Forgive() {
	for _, m := range s.sample {
		if m.state != up {
			m.state = untried
		}
		m.failures, m.lately = 0, 0
	}
}

// wait is how long a guard is left alone after its last failure: half of it and up to as much again by chance.
func (s *Set) wait(m *member, rng func(uint64) uint64) time.Duration {
	first, last := firstOthers, lastOthers
	if s.isPrimary(m) {
		first, last = firstRetry, lastRetry
	}
	d := min(first<<min(max(m.failures-1, 0), 16), last)
	return d/2 + time.Duration(rng(uint64(d/2)))
}

func (s *Set) isPrimary(m *member) bool {
	i := slices.Index(s.order, m)
	return i >= 0 && i < Primary
}

// Used says whether a circuit was ever built through one of the guards, in this run or before.
func (s *Set) Used() bool { return len(s.used) > 0 }

// Info is what there is to tell of a guard.
type Info struct {
	ID      cell.NodeID
	Primary bool
	Used    bool      // a circuit was built through it, in this run or before
	Listed  bool      // the consensus has it, and the configuration allows it
	Up      bool      // it answered last
	Down    bool      // it failed, and others answer
	Suspect bool      // it failed, and perhaps the network did
	Retry   time.Time // when it failed or is left: when it is tried again
	Left    bool      // circuits through it fared badly, and it is not used until Retry
	Counts  Counts
}

// List tells of all guards: those that may be used, the preferred first, then the others.
func (s *Set) List(now time.Time) []Info {
	var infos []Info
	add := func(m *member) {
		i := Info{ID: m.id, Primary: s.isPrimary(m), Used: !m.confirmed.IsZero(), Listed: m.filtered(), Counts: m.counts,
			Up: m.state == up, Down: m.state == down, Suspect: m.state == suspect || m.state == checking, Left: m.left(now)}
		switch {
		case i.Left:
			i.Retry = m.until
		case m.state == suspect || m.state == down:
			i.Retry = m.retry
		}
		infos = append(infos, i)
	}
	for _, m := range s.order {
		add(m)
	}
	for _, m := range s.sample {
		if !m.filtered() {
			add(m)
		}
	}
	return infos
}
