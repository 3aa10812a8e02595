package relay

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/authority"
	"peel/directory/cache"
	"peel/directory/dirtest"
)

// listens is a listener that nobody can reach.
type listens string

func (listens) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (listens) Close() error              { return nil }
func (l listens) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(string(l)))
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	p256, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	authority := func(c *Config) { c.Directory, c.ID = http.NotFoundHandler(), cell.NodeID{1} }
	for _, c := range []struct {
		name   string
		change func(c *Config)
		says   string // "": it is taken
	}{
		{"all in order", func(*Config) {}, ""},
		{"no network", func(c *Config) { c.Network = nil }, "no network given"},
		{"a network without authorities", func(c *Config) { c.Network = &directory.Network{Name: "empty"} }, "0 authorities"},
		{"no listener", func(c *Config) { c.Listeners = nil }, "no listener given"},
		{"no keys", func(c *Config) { c.Keys = Keys{} }, "link key is missing"},
		{"no identity", func(c *Config) { c.Keys.Identity = nil }, "identity key is missing"},
		{"half an identity", func(c *Config) { c.Keys.Identity = c.Keys.Identity[:32] }, "no Ed25519 key"},
		{"no onion key", func(c *Config) { c.Keys.Onion = nil }, "onion key is missing"},
		{"a link key of another curve", func(c *Config) { c.Keys.Link = p256 }, "link key is not an X25519 key"},
		{"a previous key of another curve", func(c *Config) { c.Keys.Previous = p256 }, "previous onion key is not an X25519 key"},
		{"one key for both", func(c *Config) { c.Keys.Onion = c.Keys.Link }, "are the same"},
		{"no nickname", func(c *Config) { c.Nickname = "" }, "nickname"},
		{"a nickname of two words", func(c *Config) { c.Nickname = "my relay" }, "nickname"},
		{"only the unspecified address", func(c *Config) { c.Listeners = []net.Listener{listens("0.0.0.0:9001")} }, "address"},
		{"and that which it means", func(c *Config) {
			c.Listeners = []net.Listener{listens("0.0.0.0:9001")}
			c.Addrs = []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:9001")}
		}, ""},
		{"two of a family", func(c *Config) {
			c.Listeners = []net.Listener{listens("198.51.100.1:9001"), listens("198.51.100.2:9001")}
		}, "address"},
		{"one of each family in any order", func(c *Config) {
			c.Listeners = []net.Listener{listens("[2001:db8::1]:9001"), listens("198.51.100.2:9001")}
		}, ""},
		{"negative bounds", func(c *Config) { c.MaxTasks = -1 }, "MaxTasks is -1"},
		{"no memory", func(c *Config) { c.MaxUnread = -1 }, "MaxUnread is -1"},
		{"a policy with its ports the wrong way round", func(c *Config) {
			c.Exit = directory.Policy{{Accept: true, Lo: 80, Hi: 79}}
		}, "port"},
		{"a file for a folder", func(c *Config) { c.Dir = file }, "cache"},
		{"an authority's node", func(c *Config) { authority(c); c.Keys.Identity, c.Keys.Onion, c.Nickname = nil, nil, "" }, ""},
		{"an authority's node without a name", func(c *Config) { authority(c); c.ID = cell.NodeID{} }, "authority's identity"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{
				Network: dirtest.New(1, 0).Network, Keys: someKeys(t),
				Listeners: []net.Listener{listens("198.51.100.1:9001")}, Nickname: "me",
			}
			c.change(&cfg)
			_, err := New(cfg)
			switch {
			case c.says == "" && err != nil:
				t.Error(err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "relay: ")):
				t.Errorf("%v; it should begin with relay: and say %q", err, c.says)
			}
		})
	}
	if n, err := NewAuthority(Config{Network: dirtest.New(1, 0).Network}, authorityConfig()); err == nil || n != nil {
		t.Errorf("an authority without keys: %v", err)
	}
}

// A folder is for one relay or authority: another is refused until Run has ended, and one that is refused for something else leaves the folder free.
func TestAFolderIsForOneNode(t *testing.T) {
	n := dirtest.New(1, 0)
	a := n.Authorities[0]
	relay := Config{Network: n.Network, Keys: someKeys(t), Listeners: []net.Listener{listens("198.51.100.1:9001")}, Nickname: "me", Dir: t.TempDir()}
	node := relay
	node.Keys, node.Dir = Keys{Link: a.Link}, ""
	voter := authority.Config{Certificate: a.Certificate, SigningKey: a.Signing, Now: func() time.Time { return dirtest.ValidAfter }, Dir: t.TempDir()}
	type runs interface{ Run(context.Context) error }
	for what, start := range map[string]func(well bool) (runs, error){
		"a relay": func(well bool) (runs, error) {
			cfg := relay
			if !well {
				cfg.Nickname = "no nickname"
			}
			return New(cfg)
		},
		"an authority": func(well bool) (runs, error) {
			cfg := node
			if !well {
				cfg.Listeners = nil
			}
			return NewAuthority(cfg, voter)
		},
	} {
		for range 2 {
			if _, err := start(false); err == nil || errors.Is(err, cache.ErrInUse) {
				t.Errorf("%s that is wrongly configured: %v", what, err)
			}
			first, err := start(true)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if _, err := start(true); !errors.Is(err, cache.ErrInUse) {
				t.Errorf("%s, a second time: %v", what, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			first.Run(ctx)
		}
	}
}

// An authority whom nobody could reach by the network file does not start.
func TestAnAuthorityHasTheLinkKeyOfTheNetworkFile(t *testing.T) {
	n := dirtest.New(2, 0)
	a, other := n.Authorities[0], n.Authorities[1]
	for _, c := range []struct {
		link *ecdh.PrivateKey
		says string // "": it is made
	}{
		{a.Link, ""},
		{other.Link, "that the network file gives for " + a.Info.Nickname + ", but that of " + other.Info.Nickname + ": nobody could reach"},
		{someKeys(t).Link, "that the network file gives for " + a.Info.Nickname + ": nobody could reach"},
	} {
		_, err := NewAuthority(Config{Network: n.Network, Keys: Keys{Link: c.link}, Listeners: []net.Listener{listens("198.51.100.1:9001")}},
			authority.Config{Certificate: a.Certificate, SigningKey: a.Signing, Now: func() time.Time { return dirtest.ValidAfter }})
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v; want %q", err, c.says)
		}
	}
}

func authorityConfig() authority.Config { return authority.Config{} }

// What an authority refuses is the operator's to hear of; what can be mended by trying again is not.
func TestRefusalsAreTold(t *testing.T) {
	for _, c := range []struct {
		err  error
		want slog.Level
	}{
		{&cache.StatusError{Code: 403}, slog.LevelWarn},
		{&cache.StatusError{Code: 400}, slog.LevelWarn},
		{fmt.Errorf("wrapped: %w", &cache.StatusError{Code: 413}), slog.LevelWarn},
		{&cache.StatusError{Code: 409}, slog.LevelDebug},
		{&cache.StatusError{Code: 503}, slog.LevelDebug},
		{io.EOF, slog.LevelDebug},
	} {
		if got := refusal(c.err); got != c.want {
			t.Errorf("%v: told at %v, want %v", c.err, got, c.want)
		}
	}
}
