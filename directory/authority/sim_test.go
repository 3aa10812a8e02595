package authority

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

// sim is a network's voters without a network: their events in the order of a virtual time. What
// anybody signs is verified once and for all, so that ten thousand schedules take seconds.
type sim struct {
	t     testing.TB
	name  string // how to repeat it
	net   *dirtest.Net
	good  map[sigKey]bool // signatures over headers that verified
	rng   *rand.Rand
	now   time.Time
	queue simQueue
	seq   int
	nodes []*simNode

	// link says how long a request or its answer takes between two authorities, or that it is lost.
	link func(from, to int) (delay time.Duration, lost bool)
	// crashAt says whether an authority crashes as it saves, before or after the write.
	crashAt func(n *simNode) (before, after bool)

	published map[time.Time]map[directory.Digest]*directory.Consensus // with enough signatures
	signed    map[time.Time]map[int]map[directory.Digest]bool         // by honest authorities
	steps     int
}

type sigKey struct {
	header    directory.Digest
	signature directory.Signature64
}

// simNode is an authority of a sim, up or down.
type simNode struct {
	s         *sim
	i         int
	id        cell.NodeID
	v         *voter // nil: it is down
	life      int
	since     time.Time // when it began
	skew      time.Duration
	kept      map[string][]byte
	votes     map[string]*directory.Vote // those in kept, parsed
	consensus *directory.Consensus       // the newest here
	wakes     time.Time
	evil      *simTraitor // nil: it is honest
}

type simEvent struct {
	at  time.Time
	seq int
	do  func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func newSim(t testing.TB, name string, net *dirtest.Net, seed uint64) *sim {
	s := &sim{
		t: t, name: name, net: net, good: map[sigKey]bool{}, rng: rand.New(rand.NewPCG(seed, 77)), now: hour(0),
		published: map[time.Time]map[directory.Digest]*directory.Consensus{},
		signed:    map[time.Time]map[int]map[directory.Digest]bool{},
		link:      func(int, int) (time.Duration, bool) { return 10 * time.Millisecond, false },
		crashAt:   func(*simNode) (bool, bool) { return false, false },
	}
	for i := range net.Authorities {
		s.nodes = append(s.nodes, &simNode{s: s, i: i, id: net.Authorities[i].Info.ID, kept: map[string][]byte{}, votes: map[string]*directory.Vote{}})
	}
	return s
}

func (s *sim) fatal(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s: %s", fmt.Sprintf(format, args...), s.name)
}

// at lets something happen at a time.
func (s *sim) at(t time.Time, do func()) {
	s.seq++
	heap.Push(&s.queue, simEvent{t, s.seq, do})
}

func (s *sim) after(d time.Duration, do func()) { s.at(s.now.Add(d), do) }

// runUntil lets time go on.
func (s *sim) runUntil(end time.Time) {
	for len(s.queue) > 0 && !s.queue[0].at.After(end) {
		e := heap.Pop(&s.queue).(simEvent)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// random is a secret of the sim's own.
func (s *sim) random() (b [32]byte) {
	for i := 0; i < 32; i += 8 {
		x := s.rng.Uint64()
		for j := range 8 {
			b[i+j] = byte(x >> (8 * j))
		}
	}
	return b
}

// check is Header.CheckSignature, which it asks but once.
func (s *sim) check(h *directory.Header, sig *directory.Signature) error {
	key := sigKey{h.Digest(), sig.Signature}
	if s.good[key] {
		return nil
	}
	err := h.CheckSignature(sig)
	s.good[key] = err == nil
	return err
}

// start lets an authority live, on what its last life kept.
func (n *simNode) start() {
	if n.v != nil || n.evil != nil {
		return
	}
	s := n.s
	n.life, n.since, n.wakes = n.life+1, s.now, time.Time{}
	v := newVoter(s.net.Network, n.id, s.now.Add(n.skew), true)
	v.check, v.secret = s.check, s.random
	a := &s.net.Authorities[n.i]
	v.sign = func(h *directory.Header) (directory.Signature, error) { return h.Sign(a.Certificate, a.Signing) }
	if text := n.kept[keptSigned]; text != nil {
		h, err := directory.ParseSignedHeader(text)
		if err != nil {
			s.fatal("%v", err)
		}
		v.last = &signed{*h, text}
	}
	if text := n.kept[keptRandom]; text != nil {
		if err := v.random.parse(text); err != nil {
			s.fatal("%v", err)
		}
	}
	if c := n.consensus; c != nil {
		v.have, v.random.shared = c.ValidAfter, c.Shared
	}
	var said []heldVote
	for i := range s.net.Authorities {
		for k := range evidenceKept {
			name := voteName(s.net.Authorities[i].Info.ID, k)
			switch vote := n.votes[name]; {
			case vote == nil:
			case i == n.i:
				said = append(said, heldVote{vote: vote, text: n.kept[name]})
			case vote.ValidAfter.Equal(v.round.period.ValidAfter):
				v.round.addVote(vote, n.kept[name])
			}
		}
	}
	for _, h := range slices.Backward(said) {
		v.remember(h)
	}
	n.v = v
	n.feed(ticked{})
}

// crash ends a life; what was not kept is lost.
func (n *simNode) crash() { n.v = nil }

// feed tells the voter of an event and does what it wants done.
func (n *simNode) feed(e event) {
	if n.v == nil {
		return
	}
	n.s.steps++
	life := n.life
	for _, act := range n.v.step(n.s.now.Add(n.skew), e) {
		if n.do(act); n.v == nil || n.life != life {
			return // it crashed
		}
	}
	wake := n.v.wake().Add(-n.skew)
	if wake.Before(n.s.now) {
		wake = n.s.now
	}
	if n.wakes.After(n.s.now) && !n.wakes.After(wake) {
		return
	}
	n.wakes = wake
	n.s.at(wake, func() {
		if n.life == life && n.wakes.Equal(wake) {
			n.wakes = time.Time{}
			n.feed(ticked{})
		}
	})
}

func (n *simNode) do(act action) {
	s := n.s
	switch act := act.(type) {
	case makeVote:
		v, text := s.vote(n, &act)
		n.feed(voteMade{v, text, nil})
	case save:
		before, after := s.crashAt(n)
		if before {
			n.crash()
			return
		}
		n.kept[act.name] = act.text
		if act.name == keptSigned {
			n.noteSigned()
		}
		if len(act.name) > len(keptVote) && act.name[:len(keptVote)] == keptVote {
			n.votes[act.name] = n.voteOf(act.text)
		}
		if after {
			n.crash()
			return
		}
		if act.wait {
			n.feed(saved{act.name, nil})
		}
	case tally:
		c, err := Tally(s.net.Network, act.period, act.votes)
		n.feed(computed{act.period.ValidAfter, c, err})
	case publish:
		n.publish(act.consensus)
	case ask:
		n.ask(act)
	}
}

// voteOf finds the vote that a text is of, which is parsed once.
func (n *simNode) voteOf(text []byte) *directory.Vote {
	for _, held := range n.v.round.votes {
		for _, h := range held {
			if len(h.text) > 0 && &h.text[0] == &text[0] {
				return h.vote
			}
		}
	}
	if v := n.v.voting; v != nil {
		return v.vote
	}
	n.s.fatal("a vote is kept that nobody holds")
	return nil
}

// vote makes a vote of what an authority reached: not the same relays at each.
func (s *sim) vote(n *simNode, m *makeVote) (*directory.Vote, []byte) {
	a := &s.net.Authorities[n.i]
	v := &directory.Vote{
		Network: s.net.Network.ID(), ValidAfter: m.period.ValidAfter, Published: s.now.UTC().Truncate(time.Second), Methods: []int{Method},
		KnownFlags: directory.AllFlags, Shared: m.shared, Commitments: m.commitments, Certificate: a.Certificate,
	}
	for j := range s.net.Relays {
		if s.rng.IntN(8) == 0 {
			continue
		}
		r := &s.net.Relays[j]
		v.Relays = append(v.Relays, directory.VoteEntryOf(&r.Descriptor, r.Text, s.net.Consensus.Entries[j].Flags))
	}
	text, err := v.Sign(a.Signing)
	if err != nil {
		s.fatal("%v", err)
	}
	return v, text
}

// noteSigned remembers what an honest authority signed, and fails if it signed twice.
func (n *simNode) noteSigned() {
	s := n.s
	h, err := directory.ParseSignedHeader(n.kept[keptSigned])
	if err != nil {
		s.fatal("%v", err)
	}
	if s.signed[h.ValidAfter] == nil {
		s.signed[h.ValidAfter] = map[int]map[directory.Digest]bool{}
	}
	by := s.signed[h.ValidAfter]
	if by[n.i] == nil {
		by[n.i] = map[directory.Digest]bool{}
	}
	by[n.i][h.Header.Digest()] = true
	if len(by[n.i]) > 1 {
		s.fatal("authority %d signed two headers for %v", n.i, h.ValidAfter)
	}
	for _, t := range s.nodes {
		if t.evil != nil {
			t.evil.heard(h)
		}
	}
	s.checkSafety(h.ValidAfter)
}

// checkSafety fails if two headers of a period could have enough signatures, since the dishonest sign
// both.
func (s *sim) checkSafety(after time.Time) {
	count := map[directory.Digest]int{}
	for _, digests := range s.signed[after] {
		for d := range digests {
			count[d]++
		}
	}
	valid := 0
	for _, k := range count {
		for _, n := range s.nodes {
			if n.evil != nil {
				k++
			}
		}
		if k >= s.net.Network.Threshold {
			valid++
		}
	}
	if valid > 1 {
		s.fatal("two valid consensuses for %v", after)
	}
}

// publish takes a consensus as one's own if it has enough signatures, and is newer.
func (n *simNode) publish(c *directory.Consensus) {
	s := n.s
	if c == nil || n.consensus != nil && !c.ValidAfter.After(n.consensus.ValidAfter) {
		return
	}
	good := map[cell.NodeID]bool{}
	for i := range c.Signatures {
		if s.check(&c.Header, &c.Signatures[i]) == nil {
			good[c.Signatures[i].Certificate.Identity] = true
		}
	}
	if len(good) < s.net.Network.Threshold {
		return
	}
	if s.published[c.ValidAfter] == nil {
		s.published[c.ValidAfter] = map[directory.Digest]*directory.Consensus{}
	}
	s.published[c.ValidAfter][c.Header.Digest()] = c
	if len(s.published[c.ValidAfter]) > 1 {
		s.fatal("two valid consensuses for %v", c.ValidAfter)
	}
	n.consensus = c
	n.feed(gotConsensus{c.ValidAfter, c.Shared})
}

// ask makes a request. What is lost is noticed when it is given up.
func (n *simNode) ask(q ask) {
	s, life := n.s, n.life
	to := s.nodes[n.peer(q.peer)]
	ours := n.votes[voteName(n.id, 0)]
	there, lost := s.link(n.i, to.i)
	over := false
	end := func(e answered) {
		if !over && n.life == life {
			over = true
			e.id = q.id
			n.feed(e)
		}
	}
	s.at(q.until.Add(-n.skew), func() { end(answered{err: errDown}) })
	if lost {
		return
	}
	s.after(there, func() {
		if over {
			return
		}
		back, lost := s.link(to.i, n.i)
		if lost {
			back = 24 * time.Hour
		}
		if to.v == nil && to.evil == nil {
			s.after(back, func() { end(answered{err: errDown}) })
			return
		}
		take := to.answer(n, &q, ours)
		s.after(back, func() {
			if !over && n.life == life && n.v != nil {
				end(take(n))
			}
		})
	})
}

// peer is the number of an authority among all.
func (n *simNode) peer(i int) int {
	if i >= n.i {
		return i + 1
	}
	return i
}

// answer does what is asked, perhaps with the vote that was sent, and returns what the one who asks does with the answer.
func (n *simNode) answer(from *simNode, q *ask, vote *directory.Vote) func(*simNode) answered {
	if n.evil != nil {
		return n.evil.answer(from, q)
	}
	fail := func(err error) func(*simNode) answered {
		r, ok := err.(*refusal)
		return func(*simNode) answered {
			return answered{err: err, stop: ok && slices.Contains(final, r.status)}
		}
	}
	now := n.s.now.Add(n.skew)
	switch q.kind {
	case sendVote:
		if err := n.v.refuseVote(now, vote.ValidAfter); err != nil {
			return fail(err)
		}
		n.feed(gotVote{0, vote, q.text})
		if n.v == nil {
			return fail(errDown)
		}
		return func(*simNode) answered { return answered{} }
	case sendSignature:
		h, err := directory.ParseSignedHeader(q.text)
		if err == nil {
			err = n.take(h)
		}
		return func(*simNode) answered { return answered{err: err} }
	case askConsensus:
		c := n.consensus
		return func(by *simNode) answered {
			if c == nil {
				return answered{err: errDown}
			}
			by.publish(c)
			return answered{}
		}
	}
	if !q.after.Equal(n.v.round.period.ValidAfter) {
		return fail(refuse(http.StatusNotFound, "another period"))
	}
	switch q.kind {
	case askList:
		var list []listed
		for id, held := range n.v.round.votes {
			for _, h := range held {
				list = append(list, listed{id, h.digest})
			}
		}
		slices.SortFunc(list, func(a, b listed) int { return compareID(&a.authority, &b.authority) })
		return func(*simNode) answered { return answered{list: list} }
	case askSignatures:
		all := n.v.round.allSigned()
		return func(by *simNode) answered {
			for _, h := range all {
				if err := by.take(h); err != nil {
					return answered{err: err}
				}
			}
			return answered{}
		}
	default:
		for _, h := range n.v.round.votes[q.of] {
			if q.digest == nil || h.digest == *q.digest {
				return func(by *simNode) answered {
					by.feed(gotVote{q.id, h.vote, h.text})
					return answered{}
				}
			}
		}
		return fail(refuse(http.StatusNotFound, "no such vote"))
	}
}

// take takes in a header with signatures.
func (n *simNode) take(h *directory.SignedHeader) error {
	if n.v == nil {
		return errDown
	}
	if err := n.v.refuseOther("signature", n.s.now.Add(n.skew), h.ValidAfter); err != nil {
		return err
	}
	g, err := n.v.verify(h)
	if err != nil {
		return err
	}
	n.feed(g)
	return nil
}

// simTraitor is a dishonest authority with good keys. It has two votes for each period, which it sends
// and shows to whom it likes when it likes, and signs every header that anybody signed.
type simTraitor struct {
	n       *simNode
	votes   [2]heldVote
	period  Period
	headers []*directory.SignedHeader // with its signature
}

// betray begins a period: it sends its votes at random moments around the phases' edges.
func (x *simTraitor) betray(p Period) {
	s := x.n.s
	x.period, x.headers = p, nil
	a := &s.net.Authorities[x.n.i]
	for half := range x.votes {
		v, text := s.vote(x.n, &makeVote{period: p})
		if half == 1 || s.rng.IntN(3) > 0 { // else both are the same but for what was reached
			v.Params = directory.Params{"half": int32(half)}
			var err error
			if text, err = v.Sign(a.Signing); err != nil {
				s.fatal("%v", err)
			}
		}
		x.votes[half] = heldVote{vote: v, text: text, digest: directory.DigestOf(text)}
	}
	one := s.rng.IntN(2) == 0 // it sends one vote only, and that perhaps to one only
	late := p.Fetch.Add(-time.Second)
	for _, to := range s.nodes {
		if to == x.n || s.rng.IntN(3) == 0 {
			continue
		}
		vote := x.votes[s.rng.IntN(2)]
		if one {
			vote = x.votes[0]
		}
		when := p.Vote.Add(time.Duration(s.rng.Int64N(int64(p.Sign.Sub(p.Vote)))))
		if s.rng.IntN(2) == 0 {
			when = late.Add(time.Duration(s.rng.Int64N(int64(2 * time.Second))))
		}
		s.at(when, func() { x.send(to, vote) })
	}
}

func (x *simTraitor) send(to *simNode, vote heldVote) {
	if to.v != nil && to.v.refuseVote(x.n.s.now.Add(to.skew), vote.vote.ValidAfter) == nil {
		to.feed(gotVote{0, vote.vote, vote.text})
	}
}

// heard signs a header that somebody signed.
func (x *simTraitor) heard(h *directory.SignedHeader) {
	if !h.ValidAfter.Equal(x.period.ValidAfter) {
		return
	}
	s := x.n.s
	a := &s.net.Authorities[x.n.i]
	sig, err := h.Header.Sign(a.Certificate, a.Signing)
	if err != nil {
		s.fatal("%v", err)
	}
	ours := &directory.SignedHeader{Header: h.Header, Signatures: []directory.Signature{sig}}
	x.headers = append(x.headers, ours)
	for _, to := range s.nodes {
		if s.rng.IntN(2) == 0 {
			s.after(time.Duration(s.rng.Int64N(int64(time.Minute))), func() {
				if to.v != nil {
					_ = to.take(ours) // it may be too late
				}
			})
		}
	}
}

// answer says whatever does most harm: mostly nothing, or something else to each.
func (x *simTraitor) answer(from *simNode, q *ask) func(*simNode) answered {
	rng := x.n.s.rng
	fail := func(*simNode) answered { return answered{err: errDown} }
	if rng.IntN(2) == 0 || !q.after.Equal(x.period.ValidAfter) {
		return fail
	}
	switch q.kind {
	case sendVote, sendSignature:
		return func(*simNode) answered { return answered{} }
	case askVote:
		h := x.votes[rng.IntN(2)]
		return func(by *simNode) answered {
			by.feed(gotVote{q.id, h.vote, h.text})
			return answered{}
		}
	case askList:
		return func(*simNode) answered {
			return answered{list: []listed{{x.n.id, x.votes[rng.IntN(2)].digest}, {from.id, directory.Digest{1}}}}
		}
	case askSignatures:
		all := slices.Clone(x.headers)
		return func(by *simNode) answered {
			for _, h := range all {
				_ = by.take(h) // it may be too late
			}
			return answered{}
		}
	}
	return fail
}
