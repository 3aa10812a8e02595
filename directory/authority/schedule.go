package authority

import (
	"errors"
	"fmt"
	"time"
)

// A Phase is what an authority does at a moment of a period (spec/voting.md, section 2).
type Phase uint8

const (
	Collect Phase = iota // relays publish their descriptors and are tried
	Vote                 // votes are made, sent, and asked for from their authors
	Fetch                // votes that are missing are asked for from those who hold them
	Sign                 // headers are signed and signatures exchanged, until the consensus is published
)

func (p Phase) String() string {
	switch p {
	case Collect:
		return "collect"
	case Vote:
		return "vote"
	case Fetch:
		return "fetch"
	case Sign:
		return "sign"
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

// LongestVoting bounds the time that the voting phases take together.
const LongestVoting = 10 * time.Minute

// A Schedule says when a network votes. A consensus becomes valid at Start and at every whole number
// of Periods after it; the Voting time before that moment belongs in equal parts to the phases Vote,
// Fetch and Sign, the rest of the period to Collect.
type Schedule struct {
	Start  time.Time     // when the first consensus becomes valid; zero: at the Unix epoch
	Period time.Duration // from one consensus to the next: whole seconds
	Voting time.Duration // 0: half a Period, at most LongestVoting
}

// Check says what is wrong with a schedule, if anything is.
func (s Schedule) Check() error {
	switch {
	case s.Period < time.Second || s.Period%time.Second != 0:
		return fmt.Errorf("authority: period %v: must be a positive number of whole seconds", s.Period)
	case s.Voting < 0 || s.Voting > s.Period:
		return fmt.Errorf("authority: voting time %v: must lie between 0 and the period, %v", s.Voting, s.Period)
	case s.Voting != 0 && s.Voting < 3*time.Millisecond:
		return fmt.Errorf("authority: voting time %v: too short for three phases", s.Voting)
	case !s.Start.IsZero() && s.Start.Nanosecond() != 0:
		return errors.New("authority: the start must be a whole second")
	}
	return nil
}

// A Period is one round of voting and the life of its consensus.
type Period struct {
	Begin      time.Time // Collect
	Vote       time.Time // the phases that follow, each until the next
	Fetch      time.Time
	Sign       time.Time
	ValidAfter time.Time // the consensus is published
	FreshUntil time.Time // the next one is due
	ValidUntil time.Time
}

// At returns the period whose consensus is made at now. Before the first period it is the first.
func (s Schedule) At(now time.Time) Period {
	start := s.Start
	if start.IsZero() {
		start = time.Unix(0, 0)
	}
	n := time.Duration(0)
	if !now.Before(start) {
		n = now.Sub(start)/s.Period + 1
	}
	voting := s.Voting
	if voting == 0 {
		voting = min(s.Period/2, LongestVoting)
	}
	after := start.Add(n * s.Period).UTC()
	return Period{
		Begin:      after.Add(-s.Period),
		Vote:       after.Add(-voting),
		Fetch:      after.Add(-voting + voting/3),
		Sign:       after.Add(-voting + 2*(voting/3)),
		ValidAfter: after,
		FreshUntil: after.Add(s.Period),
		ValidUntil: after.Add(3 * s.Period),
	}
}

// Phase returns the phase of the period at now; what lies before the period is Collect.
func (p Period) Phase(now time.Time) Phase {
	switch {
	case now.Before(p.Vote):
		return Collect
	case now.Before(p.Fetch):
		return Vote
	case now.Before(p.Sign):
		return Fetch
	}
	return Sign
}

// Next returns when the phase after that of now begins.
func (p Period) Next(now time.Time) time.Time {
	switch p.Phase(now) {
	case Collect:
		return p.Vote
	case Vote:
		return p.Fetch
	case Fetch:
		return p.Sign
	}
	return p.ValidAfter
}
