package authority

import (
	"errors"
	"slices"
	"time"

	"peel/cell"
	"peel/directory"
)

// A talk is something that is asked of another authority, or sent to it, again and again until it is
// done or the phase over. At most one request of it is under way.
type talk struct {
	kind  askKind
	peer  int           // in voter.peers
	next  time.Time     // the next request is due
	pause time.Duration // after a failure of the next one
	busy  uint64        // the number of the request that is under way; 0: none
	text  []byte        // that is sent
	queue []listed      // votes to be asked for before the next list
}

// askKind is what a request is about.
type askKind uint8

const (
	sendVote askKind = iota
	sendSignature
	askVote // the peer's own
	askList // which votes it holds, and those of others that we lack
	askHeld // one of these
	askSignatures
	askConsensus
)

// ask is a request to another authority, answered by answered, at the latest when it is given up.
type ask struct {
	id     uint64
	peer   int // in voter.peers
	kind   askKind
	after  time.Time // the period
	of     cell.NodeID
	digest *directory.Digest // of the vote asked for; nil: whichever it is
	text   []byte            // that is sent
	until  time.Time         // then it is given up
}

// plan adds a talk, with the first pause that is due after a failure.
func (v *voter) plan(t talk) {
	t.pause = v.length() / 32
	v.talks = append(v.talks, &t)
}

// waiting returns the talk whose request is under way, or nil if nobody waits for it any more.
func (v *voter) waiting(id uint64) *talk {
	for _, t := range v.talks {
		if t.busy == id {
			return t
		}
	}
	return nil
}

// talk makes the requests that are due.
func (v *voter) talk(now time.Time) []action {
	var acts []action
	v.talks = slices.DeleteFunc(v.talks, func(t *talk) bool { return v.done(t) })
	for _, t := range v.talks {
		if t.busy != 0 || now.Before(t.next) {
			continue
		}
		v.serial++
		t.busy = v.serial
		a := ask{id: t.busy, peer: t.peer, kind: t.kind, after: v.round.period.ValidAfter, text: t.text}
		switch t.kind {
		case askVote:
			a.of = v.peers[t.peer]
		case askList:
			if len(t.queue) > 0 {
				a.kind, a.of, a.digest = askHeld, t.queue[0].authority, &t.queue[0].digest
			}
		}
		a.until = now.Add(v.patience(t, a.kind))
		if end := v.round.period.End(v.phase); end.Before(a.until) {
			a.until = end
		}
		acts = append(acts, a)
	}
	return acts
}

// patience is how long a request may take before it is given up for lost: an eighth of the phase, a
// quarter for a vote that another holds, and twice as much after each failure, up to half of the phase.
// A phase may be so short that less than some seconds is too little for it.
func (v *voter) patience(t *talk, kind askKind) time.Duration {
	limit := 4 * t.pause
	switch kind {
	case askHeld:
		limit *= 2
	case askConsensus:
		limit = time.Minute
	}
	return min(max(limit, 5*time.Second), v.length()/2)
}

// done says whether a talk has nothing to ask for.
func (v *voter) done(t *talk) bool {
	switch t.kind {
	case askVote:
		return t.busy == 0 && len(v.round.votes[v.peers[t.peer]]) > 0
	case askConsensus:
		return !v.have.Before(v.round.period.Collect)
	}
	return false
}

// answered ends a request, and says when the next of its talk is due.
func (v *voter) answered(now time.Time, e answered) []action {
	t := v.waiting(e.id)
	if t == nil || e.id == 0 {
		return nil
	}
	t.busy = 0
	switch t.kind {
	case askList:
		v.listed(now, t, &e)
		return nil
	case askSignatures:
		t.next = now.Add(pollAgain(v.length()/6, e.err))
		return nil
	case askConsensus:
		t.peer++
		if t.peer < len(v.peers) {
			return nil // the next one at once
		}
		t.peer = 0
		e.err = errors.New("none has it")
	}
	if e.err == nil || e.stop {
		v.talks = slices.DeleteFunc(v.talks, func(o *talk) bool { return o == t })
		return nil
	}
	t.next = now.Add(t.pause)
	t.pause = min(2*t.pause, v.length()/4)
	return nil
}

// pollAgain is when something is asked for again that may change: sooner after a failure.
func pollAgain(pause time.Duration, err error) time.Duration {
	if err != nil {
		return pause / 4
	}
	return pause
}

// listed goes on after a list of votes, or one of them: the votes that we lack are asked for, one
// after another. Its own vote is not asked for here: who was late must not choose now, after seeing
// others' votes, who gets to know its own (spec/voting.md, section 3).
func (v *voter) listed(now time.Time, t *talk, e *answered) {
	pause := v.length() / 4
	if len(t.queue) > 0 {
		if e.err != nil {
			t.queue, t.next = nil, now.Add(pause/4)
			return
		}
		t.queue = t.queue[1:]
	}
	for _, l := range e.list {
		if l.authority == v.self {
			if held := v.round.votes[v.self]; len(held) > 0 && held[0].digest == l.digest {
				v.round.vouched = true
			}
		}
		if _, ok := v.network.Authority(l.authority); ok && l.authority != v.peers[t.peer] {
			t.queue = append(t.queue, l)
		}
	}
	for len(t.queue) > 0 && v.round.holdsVote(t.queue[0].authority, t.queue[0].digest) {
		t.queue = t.queue[1:]
	}
	t.next = now
	if len(t.queue) == 0 {
		t.next = now.Add(pollAgain(pause, e.err))
	}
}
