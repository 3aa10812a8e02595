package linktest

import "peel/cell/link/pipe"

// Options say what lies between two ends.
type Options = pipe.Options

// Conn is one end of a pipe.
type Conn = pipe.Conn

// Pipe makes a connection in memory.
func Pipe(o Options) (a, b *Conn) { return pipe.New(o) }
