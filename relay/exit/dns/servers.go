package dns

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	systemPath  = "/etc/resolv.conf"
	systemFresh = 5 * time.Second // how long the file is not looked at again
	systemMost  = 64 << 10        // bytes of it that are read
	// MostServers is how many servers are asked.
	MostServers = 8
)

// ErrNoServers says that nobody is there to be asked.
var ErrNoServers = errors.New(`no DNS server is known: name some in the configuration, as in resolvers = ["192.0.2.53"]`)

// ParseServer reads the address of a server, with a port or without: 192.0.2.53, 192.0.2.53:5353, 2001:db8::53 or
// [2001:db8::53]:5353.
func ParseServer(s string) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("%q is not the address of a DNS server, such as 192.0.2.53 or [2001:db8::53]:5353", s)
		}
		at = netip.AddrPortFrom(a, 53)
	}
	a := at.Addr()
	if at.Port() == 0 || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() {
		return netip.AddrPort{}, fmt.Errorf("%q: no DNS server can be there", s)
	}
	return at, nil
}

// system knows the DNS servers that the machine is set up with, as its file says or said a few seconds ago.
type system struct {
	path string

	mu      sync.Mutex
	servers []netip.AddrPort
	err     error
	looked  time.Time
}

func (s *system) get(now time.Time) ([]netip.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looked.IsZero() || now.Sub(s.looked) >= systemFresh {
		s.looked = now
		s.servers, s.err = readSystem(s.path)
	}
	return s.servers, s.err
}

func readSystem(path string) ([]netip.AddrPort, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w (the system's are not known either: %w)", ErrNoServers, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, systemMost))
	if err != nil {
		return nil, fmt.Errorf("%w (the system's are not known either: %w)", ErrNoServers, err)
	}
	var servers []netip.AddrPort
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, ";")
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(servers) == MostServers {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			servers = append(servers, netip.AddrPortFrom(a, 53))
		}
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("%w (%s names none either)", ErrNoServers, path)
	}
	return servers, nil
}
