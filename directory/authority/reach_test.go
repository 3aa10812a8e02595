package authority

import (
	"context"
	"crypto/ecdh"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/directory/dirtest"
)

// relayAt accepts one link as the relay with the keys and returns how to dial it.
func relayAt(t *testing.T, network cell.NetworkID, id cell.NodeID, key *ecdh.PrivateKey) func(context.Context, string, string) (net.Conn, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			c, err := link.Accept(context.Background(), nc, &link.Config{Network: network, ID: id, Key: key})
			if err == nil {
				_ = c.Serve(nil)
			}
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, ln.Addr().String())
	}
}

// A relay is reached when it proves the link key of its descriptor, for its identity and network.
func TestReachByLink(t *testing.T) {
	n := dirtest.New(4, 2)
	network := n.Network.ID()
	me := n.Authorities[0]
	cfg := link.Config{Network: network, ID: me.Info.ID, Key: me.Link}
	relay, other := n.Relays[0], n.Relays[1]
	for _, c := range []struct {
		name  string
		dial  func(context.Context, string, string) (net.Conn, error)
		there bool
	}{
		{"itself", relayAt(t, network, relay.Descriptor.ID, relay.Link), true},
		{"with another link key", relayAt(t, network, relay.Descriptor.ID, other.Link), false},
		{"with another identity", relayAt(t, network, other.Descriptor.ID, relay.Link), false},
		{"of another network", relayAt(t, cell.NetworkID{1}, relay.Descriptor.ID, relay.Link), false},
		{"nobody", func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }, false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := ReachByLink(cfg, c.dial)(ctx, &relay.Descriptor, relay.Descriptor.Addrs[0])
		cancel()
		if (err == nil) != c.there {
			t.Errorf("a relay %s: %v", c.name, err)
		}
	}
}

func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for _, where := range []string{"", dir} {
		k, err := openKeep(where)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := k.load("x"); b != nil || err != nil {
			t.Errorf("nothing kept: %q, %v", b, err)
		}
		for _, text := range []string{"one", "", "three"} {
			if err := k.save("x", []byte(text)); err != nil {
				t.Fatal(err)
			}
			if b, err := k.load("x"); string(b) != text || b == nil || err != nil {
				t.Errorf("kept %q, got %q, %v", text, b, err)
			}
		}
	}
	info, err := os.Stat(filepath.Join(dir, "x"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: others may read what is kept", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openKeep(filepath.Join(dir, "file", "c")); err == nil || !strings.HasPrefix(err.Error(), "authority: state: ") {
		t.Errorf("a folder that cannot be: %v", err)
	}
}
