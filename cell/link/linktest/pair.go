// Package linktest joins two links in memory, for tests, over a pipe (cell/link/pipe), and has a listener of connections in memory.
package linktest

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"net"
	"sync"
	"testing"

	"peel/cell"
	"peel/cell/link"
)

// Key makes a link key.
func Key(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Public is the public half of a link key.
func Public(k *ecdh.PrivateKey) cell.Key { return cell.Key(k.PublicKey().Bytes()) }

// Config is the configuration of a relay with a fresh link key and the NodeID that begins with name.
func Config(t testing.TB, name string) *link.Config {
	t.Helper()
	c := &link.Config{Key: Key(t)}
	copy(c.ID[:], name)
	return c
}

// Peer is how others know the node configured so.
func Peer(c *link.Config) link.Peer { return link.Peer{ID: c.ID, Key: Public(c.Key)} }

// Handlers take the circuits that the other end opens; nil: it may open none.
type Handlers struct{ A, B link.Handler }

// Pair joins two nodes: a, a client if it has no key, dials b, which is given a key if it has none. Both links are served,
// and closed when the test ends.
func Pair(t testing.TB, a, b *link.Config, h Handlers, o Options) (la, lb *link.Conn) {
	t.Helper()
	na, nb := Pipe(o)
	return Join(t, na, nb, a, b, h)
}

// Join is Pair over a connection there is.
func Join(t testing.TB, na, nb net.Conn, a, b *link.Config, h Handlers) (la, lb *link.Conn) {
	t.Helper()
	if b.Key == nil {
		with := *b
		with.Key = Key(t)
		b = &with
	}
	la, lb, erra, errb := Shake(na, nb, a, b, Peer(b))
	if erra != nil || errb != nil {
		t.Fatalf("linktest: Dial: %v; Accept: %v", erra, errb)
	}
	Serve(t, la, h.A)
	Serve(t, lb, h.B)
	return la, lb
}

// Shake does both sides of a handshake: a dials peer, and finds b.
func Shake(na, nb net.Conn, a, b *link.Config, peer link.Peer) (la, lb *link.Conn, erra, errb error) {
	var wg sync.WaitGroup
	wg.Go(func() { lb, errb = link.Accept(context.Background(), nb, b) })
	la, erra = link.Dial(context.Background(), na, a, peer)
	wg.Wait()
	return la, lb, erra, errb
}

// Serve serves a link until the test ends.
func Serve(t testing.TB, l *link.Conn, h link.Handler) {
	var wg sync.WaitGroup
	wg.Go(func() { l.Serve(h) })
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
}
