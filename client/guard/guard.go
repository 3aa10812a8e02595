// Package guard keeps the few relays by which a client enters the network, for months: which they are, in which order they
// are preferred, and what becomes of them when they fail. Pure: time and chance are arguments (spec/guard.md).
package guard

import (
	"slices"
	"time"

	"peel/cell"
)

// What bounds a set (spec/guard.md, sections 2 to 5).
const (
	MaxSample = 60 // guards of a set, those that are not listed now included
	MinSample = 20 // guards that may be used which a set tries to have
	Share     = 20 // percent of the network's guards, in number and in weight, that a set larger than MinSample may hold
	Primary   = 3  // guards that come first, and are tried again sooner

	day          = 24 * time.Hour
	Lifetime     = 120 * day // after it was first used a guard is given up
	UnusedLife   = 60 * day  // after it was drawn a guard that was never used is given up
	UnlistedLife = 20 * day  // after it left the consensus a guard is given up
	blurred      = 10        // dates are moved back by up to a tenth of the life that they measure
)

// Relay is one that may be a guard now, and its weight there.
type Relay struct {
	ID     cell.NodeID
	Weight uint64
}

// List is who may be a guard by one consensus. Any number of sets may use it.
type List struct {
	relays []Relay
	sums   []uint64 // sums[k] is the weight of relays[:k+1]
	at     map[cell.NodeID]int
}

// NewList makes a list; each relay must be there once, and the sum of all weights be below 2^63.
func NewList(relays []Relay) *List {
	l := &List{relays: relays, sums: make([]uint64, len(relays)), at: make(map[cell.NodeID]int, len(relays))}
	var sum uint64
	for i, r := range relays {
		sum += r.Weight
		l.sums[i] = sum
		l.at[r.ID] = i
	}
	return l
}

func (l *List) weight(id cell.NodeID) uint64 {
	if i, ok := l.at[id]; ok {
		return l.relays[i].Weight
	}
	return 0
}

func (l *List) total() uint64 {
	if len(l.sums) == 0 {
		return 0
	}
	return l.sums[len(l.sums)-1]
}

// state is what is known of a guard in this run.
type state uint8

const (
	untried  state = iota
	up             // it answered last
	suspect        // it failed, and perhaps it was the network
	checking       // it was a suspect when another answered: it is to be tried again
	down           // it failed while the network was there
)

// member is one guard of a set.
type member struct {
	id        cell.NodeID
	added     time.Time // when it was drawn, blurred
	confirmed time.Time // when the first circuit was built through it, blurred; zero: never
	unlisted  time.Time // since when it is not listed, blurred; zero: it is
	counts    Counts
	leaves    int       // how often it was left, lately
	until     time.Time // it is, or was, left until this day; zero: never

	allowed  bool // by the configuration
	state    state
	failures int       // that counted, since it answered
	lately   int       // those since then, or since another answered, that did not count yet
	retry    time.Time // suspect or down: when it may be tried again
	checked  time.Time // checking: since when
	told     bias      // the worst that was said of it
	doubts   [len(doubts)]doubt
}

// filtered says whether the guard may be used, if it answers.
func (m *member) filtered() bool { return m.allowed && m.unlisted.IsZero() }

// waits says whether the guard failed and is not to be tried yet.
func (m *member) waits(now time.Time) bool {
	return (m.state == suspect || m.state == down) && now.Before(m.retry)
}

// Set is a client's guards. It is for one goroutine at a time.
type Set struct {
	network cell.NetworkID
	sample  []*member // in the order in which they were drawn
	used    []*member // the confirmed ones, in the order in which they first carried a circuit
	order   []*member // those that may be used, the preferred first: the used ones, then the sample
	changed bool
}

// New makes an empty set for a network. Update fills it.
func New(network cell.NetworkID) *Set { return &Set{network: network} }

// Changed says whether the set is to be written to disk: whether something changed since the last call.
func (s *Set) Changed() bool {
	changed := s.changed
	s.changed = false
	return changed
}

// Update makes the set follow a consensus: guards that are too old or gone for too long leave, and others are drawn in
// their place. allowed says which relays the configuration allows; nil: all. rng(n) must return a number below n, each as
// likely as any other, that nobody can foresee.
func (s *Set) Update(l *List, allowed func(cell.NodeID) bool, now time.Time, rng func(uint64) uint64) {
	for _, m := range s.sample {
		m.allowed = allowed == nil || allowed(m.id)
		s.list(m, l, now, rng)
	}
	if keep := func(m *member) bool { return !m.expired(now) }; !all(s.sample, keep) {
		s.sample = slices.DeleteFunc(s.sample, func(m *member) bool { return !keep(m) })
		s.used = slices.DeleteFunc(s.used, func(m *member) bool { return !keep(m) })
		s.changed = true
	}
	s.fill(l, allowed, now, rng)
	s.sort()
	s.takeBack(nil, now) // one that was left may be back
}

func all(ms []*member, ok func(*member) bool) bool {
	return !slices.ContainsFunc(ms, func(m *member) bool { return !ok(m) })
}

// list notes whether a guard is listed. Dates that have not come yet are of a clock that was wrong: they become now.
func (s *Set) list(m *member, l *List, now time.Time, rng func(uint64) uint64) {
	for _, t := range []*time.Time{&m.added, &m.confirmed, &m.unlisted} {
		if t.After(now) {
			*t, s.changed = toDay(now), true
		}
	}
	s.soberLeave(m, now)
	_, listed := l.at[m.id]
	switch {
	case listed && !m.unlisted.IsZero():
		m.unlisted, s.changed = time.Time{}, true
	case !listed && m.unlisted.IsZero():
		m.unlisted, s.changed = blur(now, UnlistedLife, rng), true
	}
}

// expired says whether a guard has done its time.
func (m *member) expired(now time.Time) bool {
	switch {
	case !m.unlisted.IsZero() && now.Sub(m.unlisted) >= UnlistedLife:
		return true
	case m.confirmed.IsZero():
		return now.Sub(m.added) >= UnusedLife
	}
	return now.Sub(m.confirmed) >= Lifetime
}

// blur moves a date back by up to a tenth of a life, so that what is kept does not tell when the client ran.
func blur(now time.Time, life time.Duration, rng func(uint64) uint64) time.Time {
	return toDay(now.Add(-time.Duration(rng(uint64(life / blurred)))))
}

func toDay(t time.Time) time.Time { return t.UTC().Truncate(day) }

// fill draws guards until the set has enough that may be used, or holds as many as it may.
func (s *Set) fill(l *List, allowed func(cell.NodeID) bool, now time.Time, rng func(uint64) uint64) {
	filtered := 0
	for _, m := range s.sample {
		if m.filtered() {
			filtered++
		}
	}
	for ; filtered < MinSample && len(s.sample) < MaxSample; filtered++ {
		// What is beyond its share is drawn only when there would be too few for the first places.
		if filtered >= Primary && len(s.sample) >= MinSample && s.hasShare(l) {
			return
		}
		r, ok := s.draw(l, allowed, rng)
		if !ok {
			return
		}
		s.sample = append(s.sample, &member{id: r.ID, added: blur(now, UnusedLife, rng), allowed: true})
		s.changed = true
	}
}

// hasShare says whether the set holds as much of the network's guards as it may.
func (s *Set) hasShare(l *List) bool {
	var weight uint64
	for _, m := range s.sample {
		weight += l.weight(m.id)
	}
	return 100*(len(s.sample)+1) > Share*len(l.relays) || weight > l.total()/100*Share
}

// draw draws a relay that is not in the set, by weight; when all of these have weight 0, each is as likely as any other.
func (s *Set) draw(l *List, allowed func(cell.NodeID) bool, rng func(uint64) uint64) (Relay, bool) {
	fits := func(r Relay) bool { return s.find(r.ID) == nil && (allowed == nil || allowed(r.ID)) }
	if total := l.total(); total > 0 {
		for range 32 {
			at := rng(total)
			i, _ := slices.BinarySearchFunc(l.sums, at, func(sum, at uint64) int {
				if sum > at {
					return 1
				}
				return -1
			})
			if r := l.relays[i]; fits(r) {
				return r, true
			}
		}
	}
	// Drawing from those that fit has the same chances as drawing until one fits.
	var left []Relay
	var sum uint64
	for _, r := range l.relays {
		if fits(r) {
			left = append(left, r)
			sum += r.Weight
		}
	}
	switch {
	case len(left) == 0:
		return Relay{}, false
	case sum == 0:
		return left[rng(uint64(len(left)))], true
	}
	at := rng(sum)
	for _, r := range left {
		if at < r.Weight {
			return r, true
		}
		at -= r.Weight
	}
	return Relay{}, false // not reached: at was below the sum
}

// find returns a guard of the set, nil if it is none.
func (s *Set) find(id cell.NodeID) *member {
	for _, m := range s.sample {
		if m.id == id {
			return m
		}
	}
	return nil
}

// sort makes the order of preference: those that were used before others, so that as few as can be are ever used.
func (s *Set) sort() {
	s.order = s.order[:0]
	for _, m := range s.used {
		if m.filtered() {
			s.order = append(s.order, m)
		}
	}
	for _, m := range s.sample {
		if m.filtered() && m.confirmed.IsZero() {
			s.order = append(s.order, m)
		}
	}
}
