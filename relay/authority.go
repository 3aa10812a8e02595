package relay

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"fmt"
	"net"
	"net/netip"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/directory"
	"peel/directory/authority"
	"peel/directory/cache"
)

// Authority is the node of a directory authority: the authority itself, and a relay at which every circuit ends and
// whose directory streams reach it.
type Authority struct {
	relay     *Relay
	authority *authority.Authority
}

// NewAuthority makes the node. In cfg only Network, Keys.Link, Listeners and the hooks count; ac needs the authority's
// certificate and signing key. The authority reaches the others, and tries relays, over this node's own links. It takes the folder
// ac.Dir until Run ends, and starts nothing.
func NewAuthority(cfg Config, ac authority.Config) (*Authority, error) {
	n := new(Authority)
	ac.Network = cfg.Network
	ac.Dial = func(ctx context.Context, a directory.AuthorityInfo) (net.Conn, error) {
		return n.relay.dialAuthority(ctx, a)
	}
	if ac.Now == nil {
		ac.Now = cfg.Now
	}
	cfg.Now = ac.Now
	if ac.Write == nil {
		ac.Write = cfg.Write
	}
	cfg.Write, ac.Write = ac.Write, n.written(ac.Write)
	ac.Reach = authority.ReachByLink(link.Config{Network: cfg.Network.ID(), Log: cfg.Log, Now: cfg.Now}, cfg.dialer())
	if cfg.Measure {
		ac.Measure = measurement(cfg.Network.ID(), cfg.measureDialer(), cfg.Log)
	}
	ac.Log = cfg.Log
	var err error
	if n.authority, err = authority.New(ac); err != nil {
		return nil, err
	}
	cfg.Directory = n.authority
	cfg.ID = n.authority.ID()
	if err = CheckAuthorityLink(cfg.Network, cfg.ID, cfg.Keys.Link); err == nil {
		n.relay, err = New(cfg)
	}
	if err != nil {
		n.authority.Close()
		return nil, err
	}
	return n, nil
}

// CheckAuthorityLink says what is wrong with the link key of an authority, if the network file gives another one for it: who dials it by that
// file gets no answer, while the authority itself can dial the others, and seems to be well.
func CheckAuthorityLink(n *directory.Network, id cell.NodeID, key *ecdh.PrivateKey) error {
	at, ok := n.Authority(id)
	if !ok || key == nil || key.Curve() != ecdh.X25519() { // which is told elsewhere
		return nil
	}
	have := cell.Key(key.PublicKey().Bytes())
	if have == at.LinkKey {
		return nil
	}
	whose := ""
	for _, a := range n.Authorities {
		if a.LinkKey == have {
			whose = ", but that of " + a.Nickname
		}
	}
	return fmt.Errorf("authority: the link key is not the one that the network file gives for %s%s: nobody could reach this authority; get the key from a backup (peel keys import), or give all nodes a network file with this one",
		at.Nickname, whose)
}

// written is write, and counts what could not be written with the node's other counters.
func (n *Authority) written(write func(string, []byte) error) func(string, []byte) error {
	if write == nil {
		write = cache.WriteFile
	}
	return func(name string, b []byte) error {
		err := write(name, b)
		if err != nil && n.relay != nil { // it is made before Run
			n.relay.stats.Unwritten.Add(1)
		}
		return err
	}
}

// measureDialer is how links are dialled to measure.
func (cfg *Config) measureDialer() func(context.Context, string, string) (net.Conn, error) {
	if cfg.Dial != nil || !cfg.MeasureFrom.IsValid() {
		return cfg.dialer()
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(cfg.MeasureFrom, 0))}
	return d.DialContext
}

// Reload reads lists and takes up who may join; with an error what was before stays (authority.Reload).
func (n *Authority) Reload(lists []string, allow []cell.NodeID) error {
	return n.authority.Reload(lists, allow)
}

// ID is the authority's identity, which is also its name on links.
func (n *Authority) ID() cell.NodeID { return n.relay.ID() }

// Stats are the counters of the node's relay.
func (n *Authority) Stats() *Stats { return n.relay.Stats() }

// Status is what the authority knows now.
func (n *Authority) Status() authority.Status { return n.authority.Status() }

// Renew makes the authority sign with another key from now on.
func (n *Authority) Renew(cert directory.Certificate, key ed25519.PrivateKey) error {
	return n.authority.Renew(cert, key)
}

// Run works until ctx ends, or until a listener fails for good or is closed by another, which is the error, and returns when the last
// goroutine of the node is gone. An authority runs once: a second call is an error, and harms nothing.
func (n *Authority) Run(ctx context.Context) error {
	if !n.relay.ran.CompareAndSwap(false, true) {
		return errRan
	}
	defer n.authority.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg contain.Group
	var err error
	wg.Go(func(p *contain.Panic) {
		n.relay.panicked("authority", p)
		err = &partError{"authority", p}
	}, func() {
		defer cancel()
		err = n.authority.Run(ctx)
	})
	e := n.relay.run(ctx)
	cancel()
	wg.Wait()
	return cmp.Or(err, e)
}

// Gauges are those of the node's relay.
func (n *Authority) Gauges() Gauges { return n.relay.Gauges() }
