package authority

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/cache"
)

// step does the work of the phase that it is, until the phase is over. A clock that was set leads
// to another period: what is left undone of the old one is dropped.
func (a *Authority) step(ctx context.Context) {
	now := a.now()
	a.mu.Lock()
	r := a.round
	a.mu.Unlock()
	if p := PeriodAt(a.schedule, now); p.ValidAfter != r.period.ValidAfter {
		if !now.Before(r.period.ValidAfter) {
			a.publish(r)
		}
		a.mu.Lock()
		a.round = newRound(p)
		a.mu.Unlock()
		a.store.planTries(p)
		a.tryAgain()
		return
	}
	phase := r.period.Phase(now)
	length := r.period.End(phase).Sub(r.period.Begin(phase))
	pctx, cancel := context.WithTimeout(ctx, min(r.period.End(phase).Sub(now), maxStep))
	defer cancel()
	switch phase {
	case Collect:
		a.catchUp(pctx, r, length)
	case Vote:
		a.vote(pctx, r, length)
	case Fetch:
		a.fetchVotes(pctx, r, length)
	case Sign:
		a.sign(pctx, r, length)
	}
	<-pctx.Done()
}

// maxStep is how long a phase goes on before the clock is looked at again: a machine that slept does
// not notice otherwise.
const maxStep = 5 * time.Minute

// vote makes our vote, sends it to all, and asks those for theirs who did not send it by half time.
func (a *Authority) vote(ctx context.Context, r *round, length time.Duration) {
	text := a.ownVote(r)
	half := r.period.Vote.Add(length / 2).Sub(a.now())
	a.each(func(p *peer) {
		var wg sync.WaitGroup
		defer wg.Wait()
		if text != nil {
			wg.Go(func() { a.send(ctx, p, pathVote, text, length) })
		}
		if !sleep(ctx, half) {
			return
		}
		retry(ctx, length, func(ctx context.Context) bool {
			a.mu.Lock()
			have := len(r.votes[p.info.ID]) > 0
			a.mu.Unlock()
			if have {
				return true
			}
			err := a.getVote(ctx, p, r, p.info.ID, nil)
			return err == nil
		})
	})
}

// ownVote returns the text of our vote for the period, which it makes and keeps if there is none
// yet; nil if we do not vote.
func (a *Authority) ownVote(r *round) []byte {
	a.mu.Lock()
	held := r.votes[a.self]
	a.mu.Unlock()
	if len(held) > 0 {
		return held[0].text
	}
	if !a.durable && a.started.After(r.period.Vote) {
		a.log.Warn("no vote this period: started while voting was under way, and what was said before is not known", "valid-after", stamp(r.period.ValidAfter))
		return nil
	}
	now := a.now()
	v := &directory.Vote{
		Network: a.network, ValidAfter: r.period.ValidAfter, Published: now.UTC().Truncate(time.Second),
		Methods: []int{Method}, KnownFlags: knownFlags, Params: a.cfg.Params, Certificate: a.cfg.Certificate,
		Relays: entries(a.store.candidates(r.period.Collect, now), a.schedule.Period, a.cfg.MaxBandwidth),
	}
	text, err := v.Sign(a.cfg.SigningKey)
	if err == nil {
		err = v.Verify(a.cfg.Network)
	}
	if err == nil {
		err = a.keep.save(voteName(a.self, 0), text)
	}
	if err != nil {
		a.log.Error("no vote this period", "valid-after", stamp(r.period.ValidAfter), "why", err)
		return nil
	}
	a.mu.Lock()
	r.addVote(v, text)
	a.mu.Unlock()
	return text
}

// takeVote takes in a vote for the period of r, and keeps it.
func (a *Authority) takeVote(r *round, v *directory.Vote, text []byte) error {
	id := v.Certificate.Identity
	a.mu.Lock()
	news := r.addVote(v, text)
	held := r.votes[id]
	a.mu.Unlock()
	if !news {
		return nil
	}
	if len(held) > 1 {
		a.accuse(id, "votes", r.period, append(bytes.Clone(held[0].text), held[1].text...))
	}
	return a.keep.save(voteName(id, len(held)-1), text)
}

// fetchVotes asks all again and again which votes they hold, and for those that we do not.
func (a *Authority) fetchVotes(ctx context.Context, r *round, length time.Duration) {
	a.each(func(p *peer) {
		poll(ctx, length, length/4, func(ctx context.Context) bool { return a.fetchFrom(ctx, p, r) == nil })
	})
}

// fetchFrom asks one authority for what it holds and we do not. Its own vote is not asked for here:
// who was late must not choose now, after seeing others' votes, who gets to know its own
// (spec/voting.md, section 3).
func (a *Authority) fetchFrom(ctx context.Context, p *peer, r *round) error {
	text, err := p.get(ctx, pathVotes+stamp(r.period.ValidAfter), maxList)
	if err != nil {
		return err
	}
	list, err := parseList(text)
	if err != nil {
		return err
	}
	for _, l := range list {
		if _, ok := a.cfg.Network.Authority(l.authority); !ok || l.authority == p.info.ID {
			continue
		}
		a.mu.Lock()
		have := r.holdsVote(l.authority, l.digest)
		if held := r.votes[a.self]; l.authority == a.self && len(held) > 0 && held[0].digest == l.digest {
			r.vouched = true
		}
		a.mu.Unlock()
		if !have {
			err = errors.Join(err, a.getVote(ctx, p, r, l.authority, &l.digest))
		}
	}
	return err
}

// getVote fetches a vote of an authority from another, or from itself, and takes it in.
func (a *Authority) getVote(ctx context.Context, p *peer, r *round, of cell.NodeID, digest *directory.Digest) error {
	path := pathVote + "/" + stamp(r.period.ValidAfter) + "/" + of.String()
	if digest != nil {
		path += "/" + digest.String()
	}
	text, err := p.get(ctx, path, directory.MaxVote)
	if err != nil {
		return err
	}
	v, err := a.parseVote(text)
	switch {
	case err != nil:
	case v.Certificate.Identity != of || !v.ValidAfter.Equal(r.period.ValidAfter) || digest != nil && directory.DigestOf(text) != *digest:
		err = errors.New("authority: another vote than was asked for")
	default:
		return a.takeVote(r, v, text)
	}
	a.log.Warn("malformed vote", "of", a.nickname(of), "from", p.info.Nickname, "why", err)
	return err
}

// sign computes the consensus, signs its header, sends the signature to all, and from a third of the
// phase on asks for theirs.
func (a *Authority) sign(ctx context.Context, r *round, length time.Duration) {
	text := a.ownSignature(r)
	third := r.period.Sign.Add(length / 3).Sub(a.now())
	a.each(func(p *peer) {
		var wg sync.WaitGroup
		defer wg.Wait()
		if text != nil {
			wg.Go(func() { a.send(ctx, p, pathSignature, text, length) })
		}
		if !sleep(ctx, third) {
			return
		}
		poll(ctx, length, length/6, func(ctx context.Context) bool { return a.getSignatures(ctx, p, r) == nil })
	})
}

// ownSignature returns our signature for the period as it is sent, nil if we do not sign. It is on
// the disk before anybody sees it, and there is one for each period, whatever happens.
func (a *Authority) ownSignature(r *round) []byte {
	a.compute(r)
	a.mu.Lock()
	last, result := a.last, r.result
	a.mu.Unlock()
	after := r.period.ValidAfter
	switch {
	case last != nil && last.ValidAfter.Equal(after):
		a.mu.Lock()
		r.addHeader(last.Header, last.Signatures[0])
		a.mu.Unlock()
		return last.text
	case last != nil && last.ValidAfter.After(after):
		a.log.Error("not signed: a later consensus was signed before; was the clock set back?", "valid-after", stamp(after), "signed", stamp(last.ValidAfter))
		return nil
	case result == nil:
		return nil
	case !a.durable && a.started.After(r.period.Sign):
		a.log.Warn("not signed: started while signing was under way, and what was signed before is not known", "valid-after", stamp(after))
		return nil
	}
	sig, err := result.Header.Sign(a.cfg.Certificate, a.cfg.SigningKey)
	if err == nil {
		err = result.Header.CheckSignature(&sig)
	}
	var s signed
	if err == nil {
		s.Header = result.Header
		s.Add(sig)
		s.text = s.Append(nil)
		err = a.keep.save(keptSigned, s.text)
	}
	if err != nil {
		a.log.Error("not signed", "valid-after", stamp(after), "why", err)
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = &s
	r.addHeader(s.Header, sig)
	return s.text
}

// compute makes the consensus of the votes that count, once for a round.
func (a *Authority) compute(r *round) {
	a.mu.Lock()
	votes, done := r.counted(a.self, len(a.cfg.Network.Authorities)), r.result != nil || r.why != nil
	a.mu.Unlock()
	if done {
		return
	}
	result, err := Tally(a.cfg.Network, r.period, votes)
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.why = err; err == nil {
		r.result, r.digest = result, result.Header.Digest()
	}
}

// getSignatures asks one authority for all signatures it knows.
func (a *Authority) getSignatures(ctx context.Context, p *peer, r *round) error {
	text, err := p.get(ctx, pathSignatures+stamp(r.period.ValidAfter), maxSignatures)
	if err != nil {
		return err
	}
	for _, part := range split(text, headerTop) {
		if e := a.takeSignatures(r, part); e != nil {
			err = errors.Join(err, e)
			a.log.Warn("malformed signature", "from", p.info.Nickname, "why", e)
		}
	}
	return err
}

// takeSignatures takes in a header with signatures of the period of r.
func (a *Authority) takeSignatures(r *round, text []byte) error {
	s, err := directory.ParseSignedHeader(text)
	switch {
	case err != nil:
		return err
	case s.Network != a.network:
		return &directory.NetworkError{Document: "signature", Have: s.Network, Want: a.network}
	case !s.ValidAfter.Equal(r.period.ValidAfter):
		return fmt.Errorf("authority: signature for %s, but %s is being voted on", stamp(s.ValidAfter), stamp(r.period.ValidAfter))
	}
	digest := s.Header.Digest()
	for i := range s.Signatures {
		sig := &s.Signatures[i]
		id := sig.Certificate.Identity
		if _, ok := a.cfg.Network.Authority(id); !ok {
			return fmt.Errorf("authority: signature of %v, which is no authority", id)
		}
		a.mu.Lock()
		known := r.holdsHeader(id, digest)
		a.mu.Unlock()
		if known {
			continue
		}
		if err := s.Header.CheckSignature(sig); err != nil {
			return err
		}
		a.mu.Lock()
		r.addHeader(s.Header, *sig)
		held := r.headers[id]
		a.mu.Unlock()
		if len(held) > 1 {
			var proof []byte
			for _, h := range held {
				one := directory.SignedHeader{Header: h.header, Signatures: []directory.Signature{h.signature}}
				proof = one.Append(proof)
			}
			a.accuse(id, "headers", r.period, proof)
		}
	}
	return nil
}

// publish puts the consensus of a period together, if enough authorities signed the header that we
// computed; else the one before stays.
func (a *Authority) publish(r *round) {
	a.mu.Lock()
	out := r.outcome(a.cfg.Network)
	var c *directory.Consensus
	if r.result != nil {
		c = &directory.Consensus{Entries: r.result.Entries}
		c.Header = r.result.Header
		if s := r.signed(r.digest); s != nil {
			c.SignedHeader = *s
		}
	}
	a.before = out
	why := r.why
	a.mu.Unlock()
	for _, name := range out.Differ {
		a.log.Warn("an authority signed another consensus", "authority", name, "valid-after", stamp(r.period.ValidAfter))
	}
	if c == nil {
		if why == nil {
			why = errors.New("no part was taken in the voting")
		}
		a.log.Warn("no consensus computed", "valid-after", stamp(r.period.ValidAfter), "why", why,
			"missing-votes", out.MissingVotes)
		return
	}
	text, err := c.Encode()
	if err == nil {
		_, err = a.cache.Put(text, a.now())
	}
	if err != nil {
		a.log.Warn("no consensus published", "valid-after", stamp(c.ValidAfter), "why", err, "missing-signatures", out.MissingSignatures)
		return
	}
	a.log.Info("consensus published", "valid-after", stamp(c.ValidAfter), "relays", c.Relays,
		"signatures", len(c.Signatures), "missing-signatures", out.MissingSignatures)
}

// catchUp fetches the consensus that holds now from other authorities, if it is not here: we were
// away, or late, or of another opinion.
func (a *Authority) catchUp(ctx context.Context, r *round, length time.Duration) {
	current := func() bool {
		c := a.cache.Consensus()
		return c != nil && !c.ValidAfter.Before(r.period.Collect)
	}
	if r.period.Collect.Before(a.schedule.Start) {
		return // there was none yet
	}
	retry(ctx, length, func(ctx context.Context) bool {
		for _, p := range a.peers {
			if current() {
				return true
			}
			news, err := a.cache.Fetch(ctx, p.stream)
			switch {
			case errors.Is(err, cache.ErrSplit):
				a.log.Error("two consensuses for one period, both with enough signatures", "from", p.info.Nickname)
			case err != nil:
				a.log.Debug("no consensus from another authority", "from", p.info.Nickname, "why", err)
			case news:
				a.log.Info("consensus fetched", "from", p.info.Nickname)
			}
		}
		return current() || len(a.peers) == 0
	})
}
