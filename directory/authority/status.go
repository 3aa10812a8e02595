package authority

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"peel/cell"
	"peel/directory"
)

// Status is what an authority knows of the period being voted on, as JSON shows it. Authorities
// stand in it by nickname.
type Status struct {
	Network   string     `json:"network"`
	Authority string     `json:"authority"`
	Now       time.Time  `json:"now"`
	Phase     string     `json:"phase"`
	PhaseEnds time.Time  `json:"phase_ends"`
	Next      time.Time  `json:"next_period"` // when the consensus after the one being voted on begins to hold
	Relays    int        `json:"relays"`      // whose descriptors are here
	Troubled  []Troubled `json:"troubled"`    // those of them that say they are paused or were overloaded, by nickname: mostTroubled at most, looked for once in troubledFor
	Lists     ListCounts `json:"lists"`       // rules in force
	Outcome              // so far
	Before    *Outcome   `json:"before,omitempty"` // the period before
	Consensus *Published `json:"consensus,omitempty"`
	Evidence  []Evidence `json:"evidence"`

	Certificate CertificateStatus `json:"certificate"` // of our own signing key
	Random      Randomness        `json:"shared_random"`
}

// Troubled is a relay whose descriptor says that it takes nothing new, or lately had to refuse what it should take.
type Troubled struct {
	Nickname   string     `json:"nickname"`
	Identity   string     `json:"identity"`
	Paused     *time.Time `json:"paused_until,omitempty"`
	Overloaded *time.Time `json:"overloaded,omitempty"` // in this hour
}

// What bounds Troubled: how many a status shows, and how long it shows the same.
const (
	mostTroubled = 100
	troubledFor  = time.Minute
)

// Randomness is how far the making of the next shared random value came (spec/sharedrandom.md).
type Randomness struct {
	Run       uint64   `json:"run"`
	Round     int      `json:"round"`
	Phase     string   `json:"phase"`             // "commit" or "reveal"
	Committed []string `json:"committed"`         // whose commitment for the next value is known here
	Revealed  []string `json:"revealed"`          // and whose secret
	Changed   []string `json:"changed,omitempty"` // who named another commitment than its first, for this value or the last
	Reveals   int      `json:"current_reveals"`   // how many secrets the value in use was made of; 0: a fallback
}

// status says how far the making of the next value came, in the round of a period.
func (r *random) status(n *directory.Network, validAfter time.Time) Randomness {
	s := Randomness{Phase: "commit", Committed: []string{}, Revealed: []string{}, Reveals: r.shared.Current.Reveals}
	if s.Run, s.Round = n.Schedule.Run(validAfter); s.Round >= directory.CommitRounds {
		s.Phase = "reveal"
	}
	for _, info := range n.Authorities {
		if c, ok := r.commitments[commitKey{s.Run, info.ID}]; ok {
			s.Committed = append(s.Committed, info.Nickname)
			if c.Revealed() {
				s.Revealed = append(s.Revealed, info.Nickname)
			}
		}
		if r.broken[commitKey{s.Run, info.ID}] || r.broken[commitKey{s.Run - 1, info.ID}] {
			s.Changed = append(s.Changed, info.Nickname)
		}
	}
	return s
}

// Outcome is how far the voting of a period came. Period is when its consensus begins to hold.
type Outcome struct {
	Period            time.Time `json:"period"`
	Votes             []string  `json:"votes"` // those whose vote is here
	MissingVotes      []string  `json:"votes_missing"`
	Equivocated       []string  `json:"equivocated,omitempty"`  // those of whom two votes are here: neither counts
	Signatures        []string  `json:"signatures"`             // those who signed what we computed
	MissingSignatures []string  `json:"signatures_missing"`     // those who signed nothing
	Differ            []string  `json:"signed_other,omitempty"` // those who signed another than we computed
	Header            string    `json:"header,omitempty"`       // digest of what we computed
	Needed            int       `json:"signatures_needed"`
	Failed            string    `json:"no_consensus,omitempty"` // why none came of it, or will

	Flags []FlagCounts `json:"flags,omitempty"` // of the votes that are here
}

// FlagCounts says of how many relays an authority votes each flag.
type FlagCounts struct {
	Authority  string `json:"authority"`
	Relays     int    `json:"relays"`
	Running    int    `json:"running"`
	Valid      int    `json:"valid"`
	Guard      int    `json:"guard"`
	Exit       int    `json:"exit"`
	Fast       int    `json:"fast"`
	Stable     int    `json:"stable"`
	HSDir      int    `json:"hsdir"`
	BadExit    int    `json:"badexit"`
	MiddleOnly int    `json:"middleonly"`
	Measured   int    `json:"measured"` // how many it measured the bandwidth of
}

func countFlags(v *directory.Vote) FlagCounts {
	c := FlagCounts{Relays: len(v.Relays)}
	for i := range v.Relays {
		r := &v.Relays[i]
		for _, x := range []struct {
			n    *int
			flag directory.Flags
		}{
			{&c.Running, directory.Running}, {&c.Valid, directory.Valid}, {&c.Guard, directory.Guard}, {&c.Exit, directory.Exit},
			{&c.Fast, directory.Fast}, {&c.Stable, directory.Stable}, {&c.HSDir, directory.HSDir},
			{&c.BadExit, directory.BadExit}, {&c.MiddleOnly, directory.MiddleOnly},
		} {
			if r.Flags.Has(x.flag) {
				*x.n++
			}
		}
		if r.Measured > 0 {
			c.Measured++
		}
	}
	return c
}

// Published is the newest consensus here.
type Published struct {
	ValidAfter time.Time `json:"valid_after"`
	ValidUntil time.Time `json:"valid_until"`
	Relays     int       `json:"relays"`
	Signatures int       `json:"signatures"`
	Header     string    `json:"header"`
}

// Evidence says that an authority signed two different votes or headers for one period, which an
// honest one never does. Both documents are in the file evidence-<kind>-<identity>, and handed out
// (spec/voting.md, section 3).
type Evidence struct {
	Authority  string    `json:"authority"`
	Identity   string    `json:"identity"`
	Kind       string    `json:"kind"` // "votes" or "headers"
	ValidAfter time.Time `json:"valid_after"`
}

type evidenceKey struct {
	authority cell.NodeID
	kind      string
}

// Status returns what the authority knows now.
func (a *Authority) Status() Status {
	now := a.now()
	relays, troubled := a.store.len(), a.store.troubled(now)
	a.mu.Lock()
	defer a.mu.Unlock()
	p := &a.voter.round.period
	phase := p.Phase(now)
	s := Status{
		Network: a.cfg.Network.Name, Authority: a.nickname(a.self), Now: now.UTC(),
		Phase: phase.String(), PhaseEnds: p.End(phase).UTC(),
		Next:   a.schedule.Next(p.ValidAfter).UTC(),
		Relays: relays, Troubled: troubled, Certificate: a.certificateStatus(now), Outcome: *a.voter.round.outcome(a.cfg.Network), Before: a.voter.before,
	}
	if c := a.cache.Consensus(); c != nil {
		s.Consensus = &Published{c.ValidAfter, c.ValidUntil, c.Relays, len(c.Signatures), c.Header.Digest().String()}
	}
	s.Evidence = a.voter.accused()
	s.Random = a.voter.random.status(a.cfg.Network, p.ValidAfter)
	s.Lists = a.store.lists.Load().counts()
	return s
}

// accused lists the evidence, by authority.
func (v *voter) accused() []Evidence {
	list := []Evidence{}
	for _, e := range v.evidence {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Evidence) int {
		return cmp.Or(strings.Compare(a.Authority, b.Authority), strings.Compare(a.Kind, b.Kind))
	})
	return list
}

// outcome says how far the voting of the round came.
func (r *round) outcome(n *directory.Network) *Outcome {
	o := &Outcome{
		Period: r.period.ValidAfter, Needed: n.Threshold,
		Votes: []string{}, MissingVotes: []string{}, Signatures: []string{}, MissingSignatures: []string{},
	}
	if r.result != nil {
		o.Header = r.digest.String()
	}
	if r.why != nil {
		o.Failed = r.why.Error()
	}
	for _, info := range n.Authorities {
		switch len(r.votes[info.ID]) {
		case 0:
			o.MissingVotes = append(o.MissingVotes, info.Nickname)
		case 1:
			o.Votes = append(o.Votes, info.Nickname)
			flags := r.votes[info.ID][0].flags
			flags.Authority = info.Nickname
			o.Flags = append(o.Flags, flags)
		default:
			o.Equivocated = append(o.Equivocated, info.Nickname)
		}
		held := r.headers[info.ID]
		for _, h := range held {
			switch {
			case r.result == nil: // who computed none cannot say who is wrong
			case h.digest == r.digest:
				o.Signatures = append(o.Signatures, info.Nickname)
			default:
				o.Differ = append(o.Differ, info.Nickname)
			}
		}
		if len(held) == 0 {
			o.MissingSignatures = append(o.MissingSignatures, info.Nickname)
		}
	}
	return o
}
