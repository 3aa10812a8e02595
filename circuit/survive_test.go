package circuit

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"peel/cell/contain"
	"peel/circuit/layer"
)

// A bug in a circuit's own code ends that circuit and its streams. The link and its other circuits go on.
func TestPanicEndsItsCircuitOnly(t *testing.T) {
	for name, spoil := range map[string]func(c *Circuit){
		"while it receives": func(c *Circuit) {
			c.recv.Lock()
			c.hops[0].backward = new(layer.Layer)
			c.recv.Unlock()
		},
		"while it sends": func(c *Circuit) {
			c.send.Lock()
			c.hops[0].forward = new(layer.Layer)
			c.send.Unlock()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3)
			told := make(chan *contain.Panic, 1)
			w.panicked = func(p *contain.Panic) { told <- p }
			other, c := w.mustBuild(), w.mustBuild()
			s := open(t, c, "echo")
			spoil(c)
			s.Write([]byte("text"))
			if _, err := io.ReadAll(s); !errors.Is(err, errPanic) {
				t.Errorf("%s: the stream ended with %v", name, err)
			}
			if err := ended(t, c); !errors.Is(err, errPanic) {
				t.Errorf("%s: the circuit ended with %v", name, err)
			}
			if p := <-told; p == nil {
				t.Errorf("%s: told of nothing", name)
			}
			exchange(t, other, 10000)
			if w.link.Err() != nil {
				t.Errorf("%s: it took the link with it: %v", name, w.link.Err())
			}
		})
	}
}
