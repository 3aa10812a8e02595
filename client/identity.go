package client

import (
	"context"
	"fmt"
	"time"

	"peel/circuit/stream"
)

// renewEvery is how often there may be a new identity.
const renewEvery = 10 * time.Second

// NewIdentity has no stream that is asked for after it returns share a circuit with one that was asked for before it was called,
// by this client or any view of it. Streams that are open stay so. Guards stay: they are no secret to exits, and a change of them is a risk.
// Answers that DNS servers of the client have kept, and virtual addresses, are forgotten.
//
// There is one new identity in 10 seconds: an earlier call waits, and calls that wait share one. It fails only if ctx or Run
// ends meanwhile.
func (c *Client) NewIdentity(ctx context.Context) error {
	p := c.pool
	p.mu.Lock()
	before := p.era
	for {
		if p.era != before && !p.closed { // another's call is as good, since it was done after this one began
			p.mu.Unlock()
			return nil
		}
		wait := time.Until(p.renewed.Add(renewEvery))
		if p.closed || p.renewed.IsZero() || wait <= 0 {
			break
		}
		p.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.ended:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("client: waiting for a new identity, of which there is one in %v: %w", renewEvery, stream.Ended(ctx))
		}
		timer.Stop()
		p.mu.Lock()
		select {
		case <-c.ended:
			p.mu.Unlock()
			return ErrClosed
		default:
		}
	}
	if p.closed {
		p.mu.Unlock()
		return ErrClosed
	}
	p.renew(time.Now())
	c.virtual.forget()
	p.unlock()
	c.events.tell(Event{Kind: EventNewIdentity})
	p.kick()
	return nil
}

// renew begins an era: circuits that a stream was put on take no more. The caller holds mu.
func (p *pool) renew(now time.Time) {
	p.era++
	p.renewed = now
	p.dropAside()
	for h := range p.circs {
		if h.taken {
			h.linger()
		} else {
			h.era = p.era // nobody's yet
		}
	}
}

// linger has a circuit take no more streams, as others do at the same time. It ends when it would have: were all closed now, those who run the
// exits of two could tell by the moment that both are of one client. The caller holds the pool's mu.
func (h *held) linger() { h.gone, h.lingers = true, true }

// nowEra is the era that a request belongs to, from when it is made on.
func (p *pool) nowEra() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.era
}
