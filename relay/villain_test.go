package relay

import (
	"net/netip"
	"strings"
	"testing"

	"peel/directory"
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
