package client

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// errPanic is in the error of what a bug ended. What the bug was stands in the log.
var errPanic = errors.New("client: a bug of this program: please report what its log says")

// contain runs do and makes a panic of it an error, so that it ends what was done and not the program that embeds the client.
func (c *core) contain(what string, do func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(what, p)
			err = fmt.Errorf("%w (%s)", errPanic, what)
		}
	}()
	do()
	return nil
}

// panicked counts a panic and logs it. It is called while it unwinds.
func (c *core) panicked(what string, p any) {
	c.panics.Add(1)
	c.log.Error("a bug: please report this", "in", what, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// Panics counts panics that ended a circuit, a stream or Run instead of the program: each is a bug, and in the log.
func (c *Client) Panics() uint64 { return c.panics.Load() }
