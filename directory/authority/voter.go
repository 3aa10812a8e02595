package authority

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"peel/cell"
	"peel/directory"
)

// A voter is the part of an authority that votes: a state machine without socket, file, goroutine or
// clock. What happens comes in by step, with the time, and what is to be done goes out. It is called
// by one at a time. (spec/voting.md, section 2)
type voter struct {
	self     cell.NodeID
	network  *directory.Network
	schedule directory.Schedule
	peers    []cell.NodeID // the other authorities
	sign     func(*directory.Header) (directory.Signature, error)
	check    func(*directory.Header, *directory.Signature) error // Header.CheckSignature
	secret   func() [32]byte                                     // a random one, never the same again
	random   *random
	started  time.Time
	durable  bool // what it said survives a restart
	lost     bool // but our vote did not: it was found damaged

	round    *round
	phase    Phase      // of the round, that talks are for
	begun    bool       // the phase began here: talks are planned
	have     time.Time  // when the newest consensus here begins to hold; zero: there is none
	last     *signed    // the header we signed last; nil: none yet
	saving   *signed    // and the one that is being saved
	voting   *heldVote  // our vote, while it is being saved
	said     []heldVote // our last votes, mostSaid at most: a clock that is set may lead back to their periods
	before   *Outcome   // of the period before this one; nil: we took no part
	evidence map[evidenceKey]Evidence
	talks    []*talk
	serial   uint64 // of the last request
}

// mostSaid is how many of our own votes are remembered.
const mostSaid = 2

// newVoter makes a voter that knows nothing yet and has no way to sign.
func newVoter(n *directory.Network, self cell.NodeID, started time.Time, durable bool) *voter {
	v := &voter{
		self: self, network: n, schedule: n.Schedule.WithDefaults(), started: started, durable: durable,
		check: (*directory.Header).CheckSignature, random: newRandom(n.ID(), self), evidence: map[evidenceKey]Evidence{},
	}
	for i := range n.Authorities {
		if id := n.Authorities[i].ID; id != self {
			v.peers = append(v.peers, id)
		}
	}
	v.round = newRound(PeriodAt(v.schedule, started))
	return v
}

// An event is what happens to a voter.
type event any

type (
	// ticked: time went on. Only with it a phase begins and a request is made.
	ticked struct{}

	// voteMade answers makeVote.
	voteMade struct {
		vote *directory.Vote
		text []byte
		err  error
	}
	// saved answers save.
	saved struct {
		name string
		err  error
	}
	// computed answers tally.
	computed struct {
		after  time.Time
		result *directory.Consensus
		err    error
	}
	// gotVote: a vote that verified came, as the answer to a request or, if id is 0, by itself.
	gotVote struct {
		id   uint64
		vote *directory.Vote
		text []byte
	}
	// gotHeader: a header of this network came, with signatures of authorities that verified.
	gotHeader struct {
		header     directory.Header
		digest     directory.Digest
		signatures []directory.Signature
	}
	// answered: a request is over. What came was told before.
	answered struct {
		id   uint64
		list []listed // of votes, if it was asked for
		err  error
		stop bool // it is of no use to try again
	}
	// gotConsensus: the newest consensus here is this one.
	gotConsensus struct {
		validAfter time.Time
		shared     directory.SharedRandom
	}
)

// An action is what a voter wants done. Actions are done in order.
type action any

type (
	// newPeriod: this period is being voted on from now on.
	newPeriod struct{ period Period }

	// makeVote: say what we know of the relays, and this of the shared random value, signed.
	makeVote struct {
		period      Period
		shared      directory.SharedRandom
		commitments []directory.Commitment
	}

	// save keeps a text under a name, so that it survives a crash; answered by saved where the voter
	// waits for it.
	save struct {
		name string
		text []byte
		wait bool
	}
	// tally computes a consensus of votes.
	tally struct {
		period Period
		votes  []*directory.Vote
	}
	// publish: a period is over. Without a consensus, why says what was wrong.
	publish struct {
		period    Period
		consensus *directory.Consensus
		why       error
		outcome   *Outcome
	}
	// note is for the operator.
	note struct {
		level slog.Level
		text  string
		args  []any
	}
)

// step takes an event in, and returns what is to be done.
func (v *voter) step(now time.Time, e event) []action {
	switch e := e.(type) {
	case ticked:
		return v.tick(now)
	case voteMade:
		return v.voteMade(e)
	case saved:
		return v.saved(now, e)
	case computed:
		return v.computed(e)
	case gotVote:
		return v.gotVote(e)
	case gotHeader:
		return v.gotHeader(e)
	case answered:
		return v.answered(now, e)
	case gotConsensus:
		if e.validAfter.After(v.have) {
			v.have, v.random.shared = e.validAfter, e.shared
		}
	}
	return nil
}

// tick begins periods and phases and makes the requests that are due. A clock that was set leads to
// another period: what is left undone of the old one is dropped.
func (v *voter) tick(now time.Time) []action {
	var acts []action
	if p := PeriodAt(v.schedule, now); !p.ValidAfter.Equal(v.round.period.ValidAfter) {
		if !now.Before(v.round.period.ValidAfter) {
			acts = append(acts, v.publish())
		}
		v.round, v.begun, v.voting = newRound(p), false, nil
		v.recall()
		if now.Before(v.started) {
			v.started = now // the clock was ahead then
		}
		acts = append(acts, newPeriod{p})
	}
	if phase := v.round.period.Phase(now); !v.begun || phase != v.phase {
		v.phase, v.begun = phase, true
		acts = append(acts, v.begin(now)...)
	}
	return append(acts, v.talk(now)...)
}

// remember notes a vote of ours, so that there is no other for its period.
func (v *voter) remember(h heldVote) {
	if v.said = append(v.said, h); len(v.said) > mostSaid {
		v.said = v.said[1:]
	}
	v.recall()
}

// recall takes our vote for this period into the round, if we have made one.
func (v *voter) recall() {
	for _, h := range v.said {
		if h.vote.ValidAfter.Equal(v.round.period.ValidAfter) {
			v.round.addVote(h.vote, h.text)
		}
	}
}

// wake returns when the next tick is due.
func (v *voter) wake() time.Time {
	if !v.begun {
		return time.Time{}
	}
	due := v.round.period.End(v.phase)
	for _, t := range v.talks {
		if t.busy == 0 && t.next.Before(due) {
			due = t.next
		}
	}
	return due
}

// length is how long the phase is.
func (v *voter) length() time.Duration {
	return v.round.period.End(v.phase).Sub(v.round.period.Begin(v.phase))
}

// begin plans the talks of a phase, and starts what it starts with.
func (v *voter) begin(now time.Time) []action {
	r, p := v.round, &v.round.period
	v.talks = v.talks[:0]
	switch v.phase {
	case Collect:
		if len(v.peers) > 0 && !p.Collect.Before(v.schedule.Start) {
			v.plan(talk{kind: askConsensus, next: now})
		} // else there was none yet
	case Vote:
		for i := range v.peers {
			v.plan(talk{kind: askVote, peer: i, next: p.Vote.Add(v.length() / 2)})
		}
		if held := r.votes[v.self]; len(held) > 0 {
			v.postVote(now)
			return nil
		}
		if (!v.durable || v.lost) && v.started.After(p.Vote) {
			return warn("no vote this period: started while voting was under way, and what was said before is not known", "valid-after", stamp(p.ValidAfter))
		}
		run, round := v.schedule.Run(p.ValidAfter)
		var acts []action
		if v.random.prepare(run, round, v.secret) {
			acts = append(acts, save{keptRandom, v.random.text(), false}) // it is of no use to commit to what a crash may take
		}
		return append(acts, makeVote{*p, v.random.shared, v.random.lines(run, round)})
	case Fetch:
		for i := range v.peers {
			v.plan(talk{kind: askList, peer: i, next: now})
		}
	case Sign:
		for i := range v.peers {
			v.plan(talk{kind: askSignatures, peer: i, next: p.Sign.Add(v.length() / 3)})
		}
		r.tallied = r.counted(v.self, len(v.network.Authorities))
		return []action{tally{*p, r.tallied}}
	}
	return nil
}

func warn(text string, args ...any) []action { return []action{note{slog.LevelWarn, text, args}} }
func fault(text string, args ...any) []action {
	return []action{note{slog.LevelError, text, args}}
}

// voteMade has our vote saved: it is on the disk before anybody sees it.
func (v *voter) voteMade(e voteMade) []action {
	p := &v.round.period
	if e.err != nil {
		return fault("no vote this period", "valid-after", stamp(p.ValidAfter), "why", e.err)
	}
	if !e.vote.ValidAfter.Equal(p.ValidAfter) || len(v.round.votes[v.self]) > 0 {
		return nil // the clock was set meanwhile, or there is one
	}
	v.voting = &heldVote{vote: e.vote, text: e.text, digest: directory.DigestOf(e.text)}
	var acts []action
	if n := len(v.said); n > 0 { // this one may be of a wrong clock
		acts = append(acts, save{voteName(v.self, 1), v.said[n-1].text, false})
	}
	return append(acts, save{voteName(v.self, 0), e.text, true})
}

// saved lets out what waited for it.
func (v *voter) saved(now time.Time, e saved) []action {
	p := &v.round.period
	switch {
	case e.name == voteName(v.self, 0) && v.voting != nil:
		held := v.voting
		v.voting = nil
		if e.err != nil {
			return fault("no vote this period", "valid-after", stamp(p.ValidAfter), "why", e.err)
		}
		v.remember(*held)
		v.postVote(now)
	case e.name == keptSigned && v.saving != nil:
		s := v.saving
		v.saving = nil
		if e.err != nil {
			return fault("not signed", "valid-after", stamp(s.ValidAfter), "why", e.err)
		}
		v.last = s
		v.postSignature(now)
	}
	return nil
}

// postVote sends our vote to all, if it is their time.
func (v *voter) postVote(now time.Time) {
	if v.phase != Vote {
		return
	}
	for i := range v.peers {
		v.plan(talk{kind: sendVote, peer: i, next: now, text: v.round.votes[v.self][0].text})
	}
}

// postSignature counts the signature made last, and sends it to all, if it is their time.
func (v *voter) postSignature(now time.Time) {
	s := v.last
	if !s.ValidAfter.Equal(v.round.period.ValidAfter) {
		return
	}
	v.round.addHeader(s.Header, s.Header.Digest(), s.Signatures[0])
	if v.phase != Sign {
		return
	}
	for i := range v.peers {
		v.plan(talk{kind: sendSignature, peer: i, next: now, text: s.text})
	}
}

// computed signs the header of the consensus that was computed, once for each period, whatever
// happens, and has the signature saved before anybody sees it.
func (v *voter) computed(e computed) []action {
	r, p := v.round, &v.round.period
	if !e.after.Equal(p.ValidAfter) || r.result != nil || r.why != nil {
		return nil
	}
	if r.why = e.err; e.err == nil {
		r.result, r.digest = e.result, e.result.Header.Digest()
	}
	return append(v.learn(), v.signResult()...)
}

// learn takes in what the votes that counted say of the shared random value.
func (v *voter) learn() []action {
	if v.round.result == nil {
		return nil
	}
	run, round := v.schedule.Run(v.round.period.ValidAfter)
	var acts []action
	for _, id := range v.random.learn(run, round, honest(v.network), v.round.tallied) {
		acts = append(acts, warn("an authority changed what it had committed to for the shared random value: its secret will not count", "authority", nickname(v.network, id), "run", run)...)
	}
	return append(acts, save{keptRandom, v.random.text(), false})
}

// signResult signs the header of the consensus that was computed, if nothing was signed yet.
func (v *voter) signResult() []action {
	r, p := v.round, &v.round.period
	switch {
	case v.last != nil && v.last.ValidAfter.Equal(p.ValidAfter):
		v.postSignature(p.Sign)
		return nil
	case v.last != nil && v.last.ValidAfter.After(p.ValidAfter):
		return fault("not signed: a later consensus was signed before; if a clock that was ahead had it sign that, end it, remove the file "+keptSigned+" in its state folder and start it after the next full period", "valid-after", stamp(p.ValidAfter), "signed", stamp(v.last.ValidAfter))
	case r.result == nil || v.saving != nil:
		return nil
	case !v.durable && v.started.After(p.Sign):
		return warn("not signed: started while signing was under way, and what was signed before is not known", "valid-after", stamp(p.ValidAfter))
	}
	sig, err := v.sign(&r.result.Header)
	if err == nil {
		err = v.check(&r.result.Header, &sig)
	}
	if err != nil {
		return fault("not signed", "valid-after", stamp(p.ValidAfter), "why", err)
	}
	s := &signed{SignedHeader: directory.SignedHeader{Header: r.result.Header, Signatures: []directory.Signature{sig}}}
	s.text = s.Append(nil)
	v.saving = s
	return []action{save{keptSigned, s.text, true}}
}

// gotVote takes in a vote for this period. One that was asked for counts only while it is waited for:
// its author must not choose the moment.
func (v *voter) gotVote(e gotVote) []action {
	id := e.vote.Certificate.Identity
	if e.id != 0 && v.waiting(e.id) == nil || !e.vote.ValidAfter.Equal(v.round.period.ValidAfter) || !v.round.addVote(e.vote, e.text) {
		return nil
	}
	held := v.round.votes[id]
	acts := []action{save{voteName(id, len(held)-1), e.text, false}}
	if len(held) > 1 {
		acts = append(acts, v.accuse(id, directory.TwoVotes, held[0].text, held[1].text)...)
	}
	return acts
}

// gotHeader takes in signatures over a header of this period.
func (v *voter) gotHeader(e gotHeader) []action {
	if !e.header.ValidAfter.Equal(v.round.period.ValidAfter) {
		return nil
	}
	var acts []action
	for _, sig := range e.signatures {
		id := sig.Certificate.Identity
		if !v.round.addHeader(e.header, e.digest, sig) || len(v.round.headers[id]) < 2 {
			continue
		}
		var proof [][]byte
		for _, h := range v.round.headers[id] {
			one := directory.SignedHeader{Header: h.header, Signatures: []directory.Signature{h.signature}}
			proof = append(proof, one.Append(nil))
		}
		acts = append(acts, v.accuse(id, directory.TwoHeaders, proof...)...)
	}
	return acts
}

// accuse keeps the proof that an authority signed two things for one period.
func (v *voter) accuse(id cell.NodeID, kind string, proof ...[]byte) []action {
	after := v.round.period.ValidAfter
	v.evidence[evidenceKey{id, kind}] = Evidence{nickname(v.network, id), id.String(), kind, after}
	return append(
		fault("an authority signed two different "+kind+" for one period: tell the other operators", "authority", nickname(v.network, id), "valid-after", stamp(after)),
		save{evidenceName(kind, id), slices.Concat(proof...), false})
}

// refuseVote returns why a vote that was posted is not taken, nil if it is.
func (v *voter) refuseVote(now, after time.Time) error {
	p := &v.round.period
	if p.Phase(now) > Vote {
		return refuse(http.StatusConflict, "votes for %s were taken until %s; it is %s here", stamp(p.ValidAfter), stamp(p.Fetch), stamp(now))
	}
	return v.refuseOther("vote", now, after)
}

// refuseOther refuses a document for another period than the one being voted on.
func (v *voter) refuseOther(what string, now, after time.Time) error {
	p := &v.round.period
	but := ", but"
	switch after.Compare(p.ValidAfter) {
	case 0:
		return nil
	case -1:
		but = " came too late:"
	}
	return refuse(http.StatusConflict, "%s for %s%s %s is being voted on; it is %s here", what, stamp(after), but, stamp(p.ValidAfter), stamp(now))
}

// verify returns the signatures over a header that are news, or why the document is refused.
func (v *voter) verify(s *directory.SignedHeader) (gotHeader, error) {
	g := gotHeader{header: s.Header, digest: s.Header.Digest()}
	if id := v.network.ID(); s.Network != id {
		return g, &directory.NetworkError{Document: "signature", Have: s.Network, Want: id}
	}
	for i := range s.Signatures {
		sig := &s.Signatures[i]
		id := sig.Certificate.Identity
		if _, ok := v.network.Authority(id); !ok {
			return g, fmt.Errorf("authority: signature of %v, which is no authority", id)
		}
		if v.round.holdsHeader(id, g.digest) {
			continue
		}
		if err := v.check(&s.Header, sig); err != nil {
			return g, err
		}
		g.signatures = append(g.signatures, *sig)
	}
	return g, nil
}

// publish ends the period: with the consensus, if we computed one, and what signatures it has.
func (v *voter) publish() action {
	r := v.round
	done := publish{period: r.period, why: r.why, outcome: r.outcome(v.network)}
	v.before = done.outcome
	switch {
	case r.result != nil:
		done.consensus = &directory.Consensus{Entries: r.result.Entries}
		done.consensus.Header = r.result.Header
		if s := r.signed(r.digest); s != nil {
			done.consensus.SignedHeader = *s
		}
	case r.why == nil:
		done.why = errors.New("no part was taken in the voting")
		done.outcome.Failed = done.why.Error()
	}
	if n := len(done.outcome.Signatures); r.result != nil && n < v.network.Threshold {
		done.outcome.Failed = fmt.Sprintf("%d of the %d signatures that are needed came", n, v.network.Threshold)
	}
	return done
}
