package directory

import (
	"net/netip"
	"testing"
)

// What is not one of the internet is special, whatever its form.
func TestPublicAddresses(t *testing.T) {
	for s, want := range map[string]bool{
		"1.1.1.1": true, "11.0.0.1": true, "198.51.99.1": true, "2a00:1::1": true, "2620:1::1": true,
		"0.1.2.3": false, "10.1.2.3": false, "100.64.0.1": false, "127.0.0.1": false, "169.254.1.1": false,
		"172.16.0.1": false, "172.31.255.255": false, "172.32.0.1": true, "192.0.0.8": false, "192.88.99.1": false,
		"192.168.1.1": false, "198.18.0.1": false, "203.0.113.1": false, "224.0.0.1": false, "240.0.0.1": false,
		"255.255.255.255": false, "::1": false, "::7f00:1": false, "64:ff9b::1": false, "fc00::1": false, "fe80::1": false,
		"2001::1": false, "2001:db8::1": false, "2002:7f00:1::": false, "3fff::1": false, "5f00::1": false, "ff02::1": false,
	} {
		if got := !Special(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s public: %v, want %v", s, got, want)
		}
	}
}
