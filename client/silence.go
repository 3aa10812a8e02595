package client

import (
	"context"
	"time"

	"peel/circuit"
)

// mostSilent is how many circuits on which nothing comes any more are asked at a time.
const mostSilent = 4

// silence is what is known of a circuit that was used and on which nothing comes: a host may have nothing to say, or a relay sends nothing on.
type silence struct {
	cells  uint64    // that had gone and come
	since  time.Time // then that changed last, or nobody waited for any
	asking bool      // its last relay is asked
	asked  bool      // it was; once is enough to tell, for what is taken out of a circuit nobody can put right
}

// askSilent has the last relays of circuits answer that have a stream and on which nothing came for a while. The caller holds mu.
func (p *pool) askSilent(now time.Time) {
	d := &p.doubts
	for _, u := range d.spoken {
		c, s := u.h.circuit, &u.silence
		if sent, received := c.Cells(); sent+received != s.cells || u.h.idle() {
			s.cells, s.since = sent+received, now
		}
		if s.asked || d.silent == mostSilent || p.ctx == nil || c.Err() != nil || now.Sub(s.since) < silent {
			continue
		}
		s.asking, s.asked = true, true
		d.silent++
		ctx := p.ctx
		p.running.Go(p.core.bug("asking a last relay"), func() {
			gone := false
			p.core.contain("asking a last relay", func() { gone = isSilent(ctx, c) })
			p.wasSilent(u, gone)
		})
	}
}

// wasSilent notes what came of asking the last relay of a circuit.
func (p *pool) wasSilent(u *used, gone bool) {
	p.mu.Lock()
	defer p.unlock()
	u.silence.asking = false
	p.doubts.silent--
	if gone {
		u.silent, u.h.gone = true, true
	}
}

// isSilent says whether nothing comes on a circuit, although its last relay is asked for something, and its link is there.
func isSilent(ctx context.Context, c *circuit.Circuit) bool {
	ctx, cancel := context.WithTimeout(ctx, askMost+answerWithin)
	defer cancel()
	came, err := question(ctx, c, answerWithin)
	return err == nil && came == 0 && c.Err() == nil
}
