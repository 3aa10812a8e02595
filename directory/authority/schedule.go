package authority

import (
	"fmt"
	"time"

	"peel/directory"
)

// A Phase is what an authority does at a moment of a period (spec/voting.md, section 2).
type Phase uint8

const (
	Collect Phase = iota // relays publish their descriptors and are tried
	Vote                 // votes are made, sent, and asked for from their authors
	Fetch                // votes that are missing are asked for from those who hold them
	Sign                 // headers are signed and signatures exchanged, until the consensus is published
)

var phaseNames = [...]string{"collect", "vote", "fetch", "sign"}

func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

// A Period is one round of voting and the life of its consensus. Each phase lasts until the next;
// Sign ends when the consensus begins to hold.
type Period struct {
	Collect    time.Time
	Vote       time.Time
	Fetch      time.Time
	Sign       time.Time
	ValidAfter time.Time
	FreshUntil time.Time // the next consensus is due
	ValidUntil time.Time
}

// lifetime is how many periods a consensus holds.
const lifetime = 3

// PeriodAt returns the period whose consensus is made at now, in UTC. Before the schedule's start it
// is the one whose consensus holds from the start. The voting time belongs in equal parts to Vote,
// Fetch and Sign.
func PeriodAt(s directory.Schedule, now time.Time) Period {
	s = s.WithDefaults()
	after := s.Start
	if since := now.Sub(s.Start); since >= 0 {
		after = s.Start.Add((since/s.Period + 1) * s.Period)
	}
	return Period{
		Collect:    after.Add(-s.Period),
		Vote:       after.Add(-s.Voting),
		Fetch:      after.Add(-s.Voting + s.Voting/3),
		Sign:       after.Add(-s.Voting + 2*(s.Voting/3)),
		ValidAfter: after,
		FreshUntil: after.Add(s.Period),
		ValidUntil: after.Add(lifetime * s.Period),
	}
}

// Phase returns the phase of the period at now; what lies before the period is Collect.
func (p *Period) Phase(now time.Time) Phase {
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

// Begin returns when a phase of the period begins, End when it ends.
func (p *Period) Begin(phase Phase) time.Time {
	return [...]time.Time{p.Collect, p.Vote, p.Fetch, p.Sign}[phase]
}

// End returns when a phase of the period ends.
func (p *Period) End(phase Phase) time.Time {
	return [...]time.Time{p.Vote, p.Fetch, p.Sign, p.ValidAfter}[phase]
}
