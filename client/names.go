package client

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"peel/cell"
	"peel/circuit/stream"
	"peel/client/dns"
	"peel/client/socks"
)

// nameError is why a name is told to no exit. To applications it is "no such host", or the code, if they take extended ones.
type nameError struct {
	what string
	code byte
}

func (e *nameError) Error() string { return "client: " + e.what }
func (e *nameError) Unwrap() error { return &stream.EndError{Reason: cell.EndNotFound} }

var (
	errOnion      = &nameError{"names under .onion are addresses of another network: they lead nowhere here", socks.ServiceBadAddress}
	errAlt        = &nameError{"names under .alt are no names of the DNS, and are told to no exit", socks.HostUnreachable}
	errBadService = &nameError{"not the address of a service: that is 56 letters and digits, and .peel.alt", socks.ServiceBadAddress}
	errNoService  = &nameError{"services cannot be visited yet", socks.ServiceNotFound}
	errLocal      = &nameError{"a name of this machine or of the network it is in, which is told to no exit", socks.HostUnreachable}
	errInvalid    = &nameError{"names under .invalid are none (RFC 6761): no exit is asked for them", socks.HostUnreachable}
	errNoHost     = &nameError{"not the name of a host: labels of letters, digits, hyphens and underscores, with dots between them", socks.HostUnreachable}
	errForgotten  = &nameError{"a virtual address that stands for no name, or not any more: look the name up again", socks.HostUnreachable}
)

// serviceSuffix is what names of services end in.
const serviceSuffix = ".peel.alt"

// plain is a name in small letters without a last dot.
func plain(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// localSuffixes are those of names that mean something on one machine or in one network only (RFC 6761, 6762, 8375, 9476,
// and .internal, which ICANN keeps free).
var localSuffixes = []string{"local", "internal", "home.arpa"}

func under(name, suffix string) bool { return name == suffix || strings.HasSuffix(name, "."+suffix) }

// checkHost refuses what no exit may be asked for. Its errors do not name the host.
func checkHost(host string) error {
	if host == "" || len(host) > cell.MaxName || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("client: target host: must be 1 to %d printable ASCII characters without spaces (a name in other letters: its xn-- form)", cell.MaxName)
	}
	a, err := netip.ParseAddr(host)
	if err == nil && a.Zone() != "" {
		return errors.New("client: target host: an address with a zone means something on this machine only")
	}
	name := plain(host)
	switch {
	case err != nil && !dns.IsHost(name): // x.onion:80 is not under onion
		return errNoHost
	case under(name, "onion"):
		return errOnion
	case strings.HasSuffix(name, serviceSuffix) && isService(name):
		return errNoService
	case under(name, "peel.alt"):
		return errBadService
	case under(name, "alt"):
		return errAlt
	case under(name, "invalid"):
		return errInvalid
	}
	for _, s := range localSuffixes {
		if under(name, s) {
			return errLocal
		}
	}
	return nil
}

// checkLookup also refuses names that only this machine can know. To connect to localhost is left to exits, which have one in
// test networks only.
func checkLookup(host string) error {
	if err := checkHost(host); err != nil {
		return err
	}
	if name := plain(host); under(name, "localhost") || !strings.Contains(name, ".") && !strings.Contains(name, ":") {
		return errLocal
	}
	return nil
}

// isService says whether a name in small letters has the shape of a service's: 56 letters of base32, and maybe labels before.
func isService(name string) bool {
	name, ok := strings.CutSuffix(name, serviceSuffix)
	key := name[strings.LastIndexByte(name, '.')+1:]
	return ok && len(key) == 56 && !strings.ContainsFunc(key, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') })
}
