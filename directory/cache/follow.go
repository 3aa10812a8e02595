package cache

import (
	"context"
	"errors"
	"net"
	"time"

	"peel/cell"
	"peel/directory"
)

// Sources says whom to ask for a consensus.
type Sources struct {
	// Authority opens a stream to the directory of an authority: another one each time.
	Authority Dial
	// Relay opens a stream to the directory of a relay that is not one of those, and says which it is,
	// if it can, even when it fails. nil: only authorities are asked.
	Relay func(ctx context.Context, not []cell.NodeID) (net.Conn, cell.NodeID, error)
	// Alone says whether Relay has no way to any relay: then an authority is asked, and as soon as the next consensus may be out. nil: never.
	Alone func() bool
	// Client says that we hand nothing out ourselves: we ask later than relays do, and do not go to an
	// authority only because relays have nothing newer.
	Client bool
}

func (s *Sources) alone() bool { return s.Alone != nil && s.Alone() }

// How long Follow waits after a failure: from the first, doubled up to the last.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Follow keeps the consensus fresh until ctx ends: it fetches when there is none or it is no longer
// fresh, and after that at the moment that When draws; after a failure again, from another source,
// soon and then less often. It calls got, if not nil, with the consensus here at the start (if it
// may still be used) and with each newer one, and failed, if not nil, with each error; both from its
// own goroutine. (spec/directory.md, section 9)
func (c *Cache) Follow(ctx context.Context, from Sources, got func(*directory.Consensus), failed func(error)) {
	if cons, note, err := c.Usable(c.cfg.Now()); err == nil {
		if note != "" && !from.Client { // a client says so itself, also when the one that it has expires
			c.cfg.Log.Warn(note)
		}
		if got != nil {
			got(cons)
		}
	}
	period := c.cfg.Network.WithDefaults().Period
	var t turns
	for {
		var wait time.Duration
		if cons := c.Consensus(); cons != nil && fresh(cons, c.cfg.Now()) {
			t = turns{}
			wait = When(&cons.Header, from.Client, c.cfg.Now(), c.cfg.Chance).Sub(c.cfg.Now())
			if from.alone() {
				wait = min(wait, c.untilNext())
			}
		} else {
			changed, err := c.ask(ctx, from, &t)
			if ctx.Err() != nil {
				return
			}
			if err != nil && failed != nil {
				failed(err)
			}
			if changed {
				if got != nil {
					got(c.Consensus())
				}
				t = turns{}
				if c.cfg.Now().Before(c.Consensus().FreshUntil) {
					continue
				}
				t.stale++ // newer, but there should be a newer one still
			}
			wait = t.pause(period, from.Client, c.cfg.Chance)
			if c.Consensus() == nil || from.alone() { // the next may well be the first there is, or the first of use
				wait = min(wait, c.untilNext())
			}
		}
		if !c.sleep(ctx, wait) {
			return
		}
	}
}

// untilNext is how long it is until the next consensus there may be, and a little more, so that load is spread.
func (c *Cache) untilNext() time.Duration {
	now, s := c.cfg.Now(), c.cfg.Network.WithDefaults()
	return s.Next(now).Sub(now) + time.Duration(c.cfg.Chance(uint64(s.Period/20)))
}

// fresh says that nothing newer is expected yet. One that does not hold yet is none: the clock was set back since it came, and who waited
// for the end of it by that clock could be left with one that is much too old.
func fresh(c *directory.Consensus, now time.Time) bool {
	return now.Before(c.FreshUntil) && !now.Add(directory.MaxSkew).Before(c.ValidAfter)
}

// sleep waits so long by the clock that people have, which goes on while the machine sleeps, and no longer when it is set far back; false: ctx
// ended.
func (c *Cache) sleep(ctx context.Context, d time.Duration) bool {
	due := c.cfg.Now().Add(d).Round(0)
	for {
		left := due.Sub(c.cfg.Now().Round(0))
		if left > d+directory.MaxSkew { // the clock was set back: it may be right now, and what was wrong before be of use
			return true
		}
		left = min(left, d)
		if left <= 0 {
			return true
		}
		left = min(left, sleepMost)
		select {
		case <-time.After(left):
			d -= left
		case <-ctx.Done():
			return false
		}
		if d <= 0 {
			return true
		}
	}
}

const sleepMost = time.Minute

// ask asks whose turn it is, and notes what came of it.
func (c *Cache) ask(ctx context.Context, from Sources, t *turns) (bool, error) {
	cons, live := c.Consensus(), false
	var wrong error // with the one here
	if cons != nil {
		if _, wrong = cons.SignedHeader.Usable(c.cfg.Network, c.cfg.Now()); wrong != nil {
			cons = nil
		} else {
			live = !c.cfg.Now().After(cons.ValidUntil)
		}
	}
	if from.Relay == nil || from.alone() || t.authority(cons != nil, live, from.Client) {
		changed, err := c.fetchFirst(ctx, from, from.Client || cons == nil) // a relay has time, unless it is of no use so far
		if err == nil && !changed {
			err = wrong
		}
		t.note(true, cell.NodeID{}, changed, err)
		t.doubt = t.late >= min(mostDoubt, len(c.cfg.Network.Authorities))
		return changed, err
	}
	var id cell.NodeID
	changed, err := c.Fetch(ctx, func(ctx context.Context) (nc net.Conn, err error) {
		nc, id, err = from.Relay(ctx, t.not) // what one has no diff for is asked of another
		t.avoid(id)
		return nc, err
	})
	t.note(false, id, changed, err)
	return changed, err
}

// When is the moment at which to ask for the consensus after one, drawn so that load is spread: relays
// in the first quarter of the period that begins when it is no longer fresh; clients in the rest of
// that period, when relays have the next. What is due already is due now. rng(n) returns a number
// below n.
func When(h *directory.Header, client bool, now time.Time, rng func(uint64) uint64) time.Time {
	if !now.Before(h.FreshUntil) {
		return now
	}
	period := h.FreshUntil.Sub(h.ValidAfter)
	begin, length := time.Duration(0), period/4
	if client {
		begin, length = period/4, period-period/4
	}
	return h.FreshUntil.Add(begin + time.Duration(rng(max(1, uint64(length)))))
}

// turns is what became of the attempts to get one consensus, and so whose turn is next.
type turns struct {
	asked int           // attempts in all
	fails int           // relays that could not be reached, lied or were too slow, since an authority was asked
	row   int           // of these, the last ones in a row
	stale int           // relays that had nothing newer, since an authority was asked
	quiet bool          // an authority had nothing newer
	late  int           // authorities in a row whose list, or what they left us with, is not of now
	doubt bool          // so many of them that our clock is wrong, or nobody has a list of now
	not   []cell.NodeID // relays asked before; at most maxNot
}

const (
	relaysFirst = 3  // relays that are asked before an authority
	maxNot      = 64 // then all may be asked again
	mostDoubt   = 3  // authorities in a row whose time is wrong; one may be cut off, or lie
)

// authority says whether it is an authority's turn: when no consensus says which relays there are;
// when relays fail one after another, the first one if the consensus has expired, for then many may be
// gone; and for a relay also when others have nothing newer, for somebody has to bring it.
func (t *turns) authority(usable, live, client bool) bool {
	if !usable {
		return true
	}
	n := t.fails + t.stale
	if client && live {
		n = t.row
	}
	if !live {
		return n >= 1
	}
	return n >= relaysFirst
}

// note takes in what came of an attempt.
func (t *turns) note(authority bool, id cell.NodeID, changed bool, err error) {
	t.asked++
	if authority {
		t.fails, t.row = 0, 0
		var at *directory.TimeError
		if t.late++; !errors.As(err, &at) {
			t.late = 0
		}
		if err == nil && !changed {
			t.quiet = true // there is nothing newer anywhere
		}
		t.stale = 0
		return
	}
	switch {
	case id.IsZero() && len(t.not) > 0: // all were asked: all may be asked again; a client has no way to any, or goes on with what it has
		t.not = nil
		t.fails++
	case err != nil && !errors.Is(err, ErrOld):
		t.fails++
		t.row++
	default:
		t.stale++
		t.row = 0
	}
}

// avoid keeps a relay from being asked again before others.
func (t *turns) avoid(id cell.NodeID) {
	if id.IsZero() {
		return
	}
	if len(t.not) == maxNot {
		t.not = nil
	}
	t.not = append(t.not, id)
}

// pause is how long to wait before the next attempt: the second half of a time that doubles with each
// attempt, from 100 ms to 30 s or a quarter of a period. When several have nothing newer, it is not
// out yet, and what is hurried only does harm: then from a 64th to an eighth of a period.
func (t *turns) pause(period time.Duration, client bool, rng func(uint64) uint64) time.Duration {
	d := min(firstRetry<<min(max(t.asked-1, 0), 20), lastRetry, period/4)
	if t.quiet || t.doubt || t.stale >= relaysFirst || client && t.stale > 0 {
		d = max(d, min(period/64<<min(t.asked, 8), period/8))
	}
	return d/2 + time.Duration(rng(uint64(d/2)+1))
}

// Pick draws a relay of a consensus that may be asked for directories, by bandwidth, or one that is
// as good as any if all have none; nil if there is none. rng(n) returns a number below n.
func Pick(c *directory.Consensus, avoid func(cell.NodeID) bool, rng func(uint64) uint64) *directory.Entry {
	fits := func(e *directory.Entry) bool {
		return e.Flags.Has(directory.Running|directory.Valid) && !avoid(e.ID)
	}
	var sum uint64
	for i := range c.Entries {
		if e := &c.Entries[i]; fits(e) {
			sum += e.Bandwidth + 1
		}
	}
	if sum == 0 {
		return nil
	}
	at := rng(sum)
	for i := range c.Entries {
		if e := &c.Entries[i]; fits(e) {
			if at <= e.Bandwidth {
				return e
			}
			at -= e.Bandwidth + 1
		}
	}
	return nil
}
