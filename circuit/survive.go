package circuit

import (
	"errors"

	"peel/cell/contain"
)

// errPanic is how a circuit ends whose code panicked.
var errPanic = errors.New("circuit: ended by a bug in this program: please report what its log says")

// survive runs do; false: it panicked, which was told.
func (c *Circuit) survive(do func()) (ok bool) {
	p := contain.Do(do)
	switch {
	case p == nil:
		return true
	case c.cfg.Panicked != nil:
		c.cfg.Panicked(p)
	default:
		c.cfg.Log.Error("a bug: please report this", "in", "a circuit", "panic", p.Value, "stack", p.Stack)
	}
	return false
}
