package relay

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"peel/directory"
	"peel/directory/authority"
	"peel/directory/dirtest"
)

// Nobody makes a node of a real network misbehave with what test networks have.
func TestAVillainIsRefusedOutsideTestNetworks(t *testing.T) {
	at := func(addrs ...string) *directory.Network {
		n := new(directory.Network)
		for _, a := range addrs {
			n.Authorities = append(n.Authorities, directory.AuthorityInfo{Addrs: []netip.AddrPort{netip.MustParseAddrPort(a)}})
		}
		return n
	}
	for _, c := range []struct {
		n       *directory.Network
		refused bool
	}{
		{at("127.20.0.1:9001", "10.0.0.1:9001"), false},
		{at("127.20.0.1:9001", "93.184.215.14:9001"), true},
		{at("[2606:2800:21f:cb07::1]:9001"), true},
	} {
		err := new(Villain).check(c.n)
		if (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), "for test networks") {
			t.Errorf("%v: %v", c.n.Authorities, err)
		}
		if err := (*Villain)(nil).check(c.n); err != nil {
			t.Errorf("an honest node: %v", err)
		}
	}
}

// Neither a relay nor an authority can be made to misbehave in a network that people may use.
func TestNobodyMisbehavesInANetworkOfPeople(t *testing.T) {
	for addr, refused := range map[string]bool{"127.20.0.1:9001": false, "93.184.215.14:9001": true} {
		n := dirtest.New(1, 0)
		n.Network.Authorities[0].Addrs = []netip.AddrPort{netip.MustParseAddrPort(addr)}
		a := n.Authorities[0]
		cert, err := directory.Certificate{
			Network: n.Network.ID(), SigningKey: a.Certificate.SigningKey, NotBefore: a.Certificate.NotBefore, NotAfter: a.Certificate.NotAfter,
		}.Certify(a.Identity)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{
			Network: n.Network, Keys: someKeys(t), Listeners: []net.Listener{listens("198.51.100.1:9001")}, Nickname: "me", Villain: new(Villain),
		}
		_, relayErr := New(cfg)
		cfg.Villain, cfg.OneHop = nil, true
		_, hopErr := New(cfg)
		cfg.Villain, cfg.OneHop = new(Villain), false
		cfg.Keys = Keys{Link: a.Link}
		_, authorityErr := NewAuthority(cfg, authority.Config{Certificate: cert, SigningKey: a.Signing, Now: func() time.Time { return dirtest.ValidAfter }})
		for role, err := range map[string]error{"relay": relayErr, "exit of one hop": hopErr, "authority": authorityErr} {
			if (err != nil) != refused || err != nil && !strings.Contains(err.Error(), "for test networks") {
				t.Errorf("%s that misbehaves where an authority is at %s: %v", role, addr, err)
			}
		}
	}
}
