package client

import (
	"errors"
	"fmt"

	"peel/cell/contain"
)

// errPanic is in the error of what a bug ended. What the bug was stands in the log.
var errPanic = errors.New("client: a bug of this program: please report what its log says")

// contain runs do and makes a panic of it an error, so that it ends what was done and not the program that embeds the client.
func (c *core) contain(what string, do func()) error {
	p := contain.Do(do)
	if p == nil {
		return nil
	}
	c.panicked(what, p)
	return fmt.Errorf("%w (%s)", errPanic, what)
}

// panicked counts a panic and logs it.
func (c *core) panicked(what string, p *contain.Panic) {
	c.panics.Add(1)
	c.log.Error("a bug: please report this", "in", what, "panic", p.Value, "stack", p.Stack)
}

// bug tells of panics of what.
func (c *core) bug(what string) func(*contain.Panic) {
	return func(p *contain.Panic) { c.panicked(what, p) }
}

// Panics counts panics that ended a circuit, a stream or Run instead of the program: each is a bug, and in the log.
func (c *Client) Panics() uint64 { return c.panics.Load() }
