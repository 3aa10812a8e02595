package authority

import (
	"context"
	"errors"
	"fmt"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/directory"
	"peel/directory/cache"
)

// maxStep is how long the voter sleeps at most before the clock is looked at again: a machine that
// slept does not notice otherwise.
const maxStep = 5 * time.Minute

// vote lets the voter have the time, and does what it wants done, until ctx ends.
func (a *Authority) vote(ctx context.Context) {
	var wg contain.Group
	defer wg.Wait()
	for ctx.Err() == nil {
		now := a.now()
		acts, wake := a.step(now, ticked{})
		for _, act := range acts {
			if q, ok := act.(ask); ok {
				wg.Go(a.bug("asking an authority"), func() { a.request(ctx, q, q.until.Sub(now)) })
			} else {
				a.do(act) // an error is the voter's to hear of
			}
		}
		t := time.NewTimer(min(wake.Sub(now), maxStep))
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-a.turn:
		}
		t.Stop()
	}
}

// step lets the voter have an event, and says when it wants the time next.
func (a *Authority) step(now time.Time, e event) ([]action, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	acts := a.voter.step(now, e)
	return acts, a.voter.wake()
}

// feed tells the voter of an event other than the time, and does what it wants done. The error is of
// what could not be saved.
func (a *Authority) feed(e event) error {
	acts, _ := a.step(a.now(), e)
	var err error
	for _, act := range acts {
		err = errors.Join(err, a.do(act))
	}
	select {
	case a.turn <- struct{}{}:
	default:
	}
	return err
}

// do does what a voter wants done, except for requests.
func (a *Authority) do(act action) error {
	switch act := act.(type) {
	case newPeriod:
		a.store.newPeriod(act.period)
		a.tryAgain()
	case makeVote:
		v, text, err := a.makeVote(&act)
		return a.feed(voteMade{v, text, err})
	case save:
		err := a.keep.save(act.name, act.text)
		if act.wait {
			return a.feed(saved{act.name, err})
		}
		if err != nil {
			a.log.Error("not kept", "file", act.name, "why", err)
		}
		return err
	case tally:
		c, err := Tally(a.cfg.Network, act.period, act.votes)
		return a.feed(computed{act.period.ValidAfter, c, err})
	case publish:
		a.publish(act)
	case note:
		a.log.Log(context.Background(), act.level, act.text, act.args...)
	}
	return nil
}

// makeVote makes our vote for a period.
func (a *Authority) makeVote(m *makeVote) (*directory.Vote, []byte, error) {
	now, p := a.now(), &m.period
	if _, note, err := a.cache.Usable(now); err == nil && note == "" { // it holds still: so the clock is right, and what is old by it may go
		a.store.expire(now)
		a.expireMeasured(now)
	}
	if err := a.certifyAnew(now); err != nil {
		return nil, nil, err
	}
	c := a.credentials.Load()
	list := a.store.candidates(p.Collect, now)
	a.addMeasured(list)
	v := &directory.Vote{
		Network: a.network, ValidAfter: p.ValidAfter, Published: now.UTC().Truncate(time.Second),
		Methods: []int{Method}, KnownFlags: directory.AllFlags, Params: a.cfg.Params, Shared: m.shared, Commitments: m.commitments, Certificate: c.cert,
		Relays: entries(list, a.schedule.Period, a.cfg.MaxBandwidth),
	}
	var left int
	if v.Relays, left = fit(v.Relays, list); left > 0 {
		a.log.Warn("the vote would be longer than it may be: relays were left out of it, first those that are not running", "left-out", left, "valid-after", stamp(p.ValidAfter))
	}
	text, err := v.Sign(c.key)
	if err == nil {
		err = v.Verify(a.cfg.Network)
	}
	return v, text, err
}

// publish puts the consensus of a period out, if enough authorities signed the header that we
// computed; else the one before stays.
func (a *Authority) publish(p publish) {
	after, out := stamp(p.period.ValidAfter), p.outcome
	for _, name := range out.Differ {
		a.log.Warn("an authority signed another consensus", "authority", name, "valid-after", after)
	}
	c := p.consensus
	if c == nil {
		a.log.Warn("no consensus computed", "valid-after", after, "why", p.why, "missing-votes", out.MissingVotes)
		return
	}
	text, err := c.Encode()
	if err == nil {
		_, err = a.cache.Put(text, a.now())
	}
	if err != nil {
		a.log.Warn("no consensus published", "valid-after", after, "why", err, "missing-signatures", out.MissingSignatures)
		return
	}
	a.log.Info("consensus published", "valid-after", after, "relays", c.Relays,
		"signatures", len(c.Signatures), "missing-signatures", out.MissingSignatures)
	a.tellConsensus()
}

// tellConsensus tells the voter of the newest consensus here.
func (a *Authority) tellConsensus() {
	if c := a.cache.Consensus(); c != nil {
		_ = a.feed(gotConsensus{c.ValidAfter, c.Shared}) // saves nothing
	}
}

// request asks another authority for something, tells the voter what came, and then that it is over.
func (a *Authority) request(ctx context.Context, q ask, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	p := a.peers[q.peer]
	e := answered{id: q.id}
	after := stamp(q.after)
	switch q.kind {
	case sendVote:
		e.err, e.stop = a.send(ctx, p, pathVote, q.text)
	case sendSignature:
		e.err, e.stop = a.send(ctx, p, pathSignature, q.text)
	case askVote, askHeld:
		e.err = a.getVote(ctx, p, &q)
	case askList:
		var text []byte
		if text, e.err = p.get(ctx, pathVotes+after, maxList); e.err == nil {
			e.list, e.err = parseList(text)
		}
	case askSignatures:
		var text []byte
		if text, e.err = p.get(ctx, pathSignatures+after, maxSignatures); e.err == nil {
			e.err = a.takeSignatures(p, text)
		}
	case askConsensus:
		e.err = a.getConsensus(ctx, p)
	}
	if e.err != nil {
		a.log.Debug("another authority did not do what was asked", "authority", p.info.Nickname, "why", e.err)
	}
	_ = a.feed(e) // saves nothing
}

// getVote fetches a vote of an authority from another, or from itself, and takes it in.
func (a *Authority) getVote(ctx context.Context, p *peer, q *ask) error {
	path := pathVote + "/" + stamp(q.after) + "/" + q.of.String()
	if q.digest != nil {
		path += "/" + q.digest.String()
	}
	text, err := p.get(ctx, path, directory.MaxVote)
	if err != nil {
		return err
	}
	v, err := a.parseVote(text)
	if err == nil {
		err = q.fits(v, text)
	}
	if err != nil {
		a.log.Warn("malformed vote", "of", a.nickname(q.of), "from", p.info.Nickname, "why", err)
		return err
	}
	return a.feed(gotVote{q.id, v, text})
}

// fits returns an error unless a vote is the one that was asked for.
func (q *ask) fits(v *directory.Vote, text []byte) error {
	if v.Certificate.Identity != q.of || !v.ValidAfter.Equal(q.after) || q.digest != nil && directory.DigestOf(text) != *q.digest {
		return errors.New("authority: another vote than was asked for")
	}
	return nil
}

// takeSignatures takes in what another authority knows of signatures.
func (a *Authority) takeSignatures(p *peer, text []byte) error {
	var err error
	for _, part := range split(text, headerTop) {
		e := a.takeSigned(part)
		var other *refusal
		switch {
		case e == nil:
		case errors.As(e, &other): // of another period
			a.log.Info("signature not taken", "from", p.info.Nickname, "why", e)
		default:
			a.log.Warn("malformed signature", "from", p.info.Nickname, "why", e)
		}
		err = errors.Join(err, e)
	}
	return err
}

// takeSigned takes in a header with signatures.
func (a *Authority) takeSigned(text []byte) error {
	s, err := directory.ParseSignedHeader(text)
	if err != nil {
		return err
	}
	a.mu.Lock()
	err = a.voter.refuseOther("signature", a.now(), s.ValidAfter)
	g := gotHeader{}
	if err == nil {
		g, err = a.voter.verify(s)
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	return a.feed(g)
}

// getConsensus fetches the consensus from another authority: we were away, or late, or of another
// opinion.
func (a *Authority) getConsensus(ctx context.Context, p *peer) error {
	news, err := a.cache.Fetch(ctx, p.stream)
	switch {
	case errors.Is(err, cache.ErrSplit):
		a.log.Error("two consensuses for one period, both with enough signatures", "from", p.info.Nickname)
	case err != nil:
		a.log.Debug("no consensus from another authority", "from", p.info.Nickname, "why", err)
	case news:
		a.log.Info("consensus fetched", "from", p.info.Nickname)
	}
	a.tellConsensus()
	return err
}

// Names in keep. A vote has the identity and a number behind it.
const (
	keptDescriptors = "descriptors"
	keptHistory     = "history"
	keptMeasured    = "measured"
	keptVote        = "vote-"
	keptSigned      = "signed"
	keptRandom      = "shared-random"
	keptEvidence    = "evidence-"
)

func voteName(id cell.NodeID, n int) string { return fmt.Sprintf("%s%v-%d", keptVote, id, n) }

func evidenceName(kind string, id cell.NodeID) string {
	return keptEvidence + kind + "-" + id.String()
}
