package circuit

import "errors"

// errPanic is how a circuit ends whose code panicked.
var errPanic = errors.New("circuit: ended by a bug in this program: please report what its log says")

// survive runs do; false: it panicked, and Config.Panicked was told. Where nobody wants to be told the panic goes on.
func (c *Circuit) survive(do func()) (ok bool) {
	if c.cfg.Panicked == nil {
		do()
		return true
	}
	defer func() {
		if p := recover(); p != nil {
			ok = false
			c.cfg.Panicked(p)
		}
	}()
	do()
	return true
}
