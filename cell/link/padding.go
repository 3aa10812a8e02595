package link

import "time"

// Link padding comes after a silence of so long, drawn anew each time (spec/link.md, section 6).
const (
	silenceLeast = 1500 * time.Millisecond
	silenceMost  = 9500 * time.Millisecond
)

// padding says when a PADDING cell is due: at a random moment of a silence in both directions. Time and chance are
// arguments.
type padding struct{ heard, due time.Time }

// Heard notes that cells went by, in either direction. chance is any random number.
func (p *padding) Heard(now time.Time, chance uint64) {
	p.heard = now
	p.due = now.Add(silenceLeast + time.Duration(chance%uint64(silenceMost-silenceLeast+1)))
}

// Due says whether the silence has lasted long enough.
func (p *padding) Due(now time.Time) bool { return !now.Before(p.due) }

// Wait is how long it lasts still.
func (p *padding) Wait(now time.Time) time.Duration { return p.due.Sub(now) }

// Look is when to look again: when padding is due or, while cells go by, no later than it could be due after the next ones. So who waits
// for it need not wait anew for each of them.
func (p *padding) Look(now time.Time) time.Duration {
	if now.Sub(p.heard) < silenceLeast {
		return min(p.Wait(now), silenceLeast)
	}
	return p.Wait(now)
}
