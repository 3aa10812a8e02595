package link

import "time"

// Link padding comes after a silence of so long, drawn anew each time (spec/link.md, section 6).
const (
	silenceLeast = 1500 * time.Millisecond
	silenceMost  = 9500 * time.Millisecond
)

// padding says when a PADDING cell is due: at a random moment of a silence in both directions. Time and chance are
// arguments.
type padding struct{ due time.Time }

// Heard notes that cells went by, in either direction. chance is any random number.
func (p *padding) Heard(now time.Time, chance uint64) {
	p.due = now.Add(silenceLeast + time.Duration(chance%uint64(silenceMost-silenceLeast+1)))
}

// Due says whether the silence has lasted long enough.
func (p *padding) Due(now time.Time) bool { return !now.Before(p.due) }

// Wait is how long it lasts still.
func (p *padding) Wait(now time.Time) time.Duration { return p.due.Sub(now) }
