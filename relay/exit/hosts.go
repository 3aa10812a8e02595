package exit

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"peel/relay/exit/dns"
)

const (
	hostsPath  = "/etc/hosts"
	hostsFresh = 5 * time.Second // how long the file is not looked at again
)

// system is the machine's DNS servers without its hosts file, from which they may answer: what is in that says how the operator calls his machines, and
// is no client's business. Names and addresses in it are answered as if there were no such host.
type system struct {
	dns Resolver
	own *hosts
}

func newSystem() (system, error) {
	servers, err := dns.New(dns.Config{})
	return system{dns: servers, own: &hosts{path: hostsPath, now: time.Now}}, err
}

func (s system) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if s.own.has(strings.ToLower(strings.TrimSuffix(host, "."))) {
		return nil, errNotFound
	}
	return s.dns.LookupNetIP(ctx, network, host)
}

func (s system) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	if s.own.has(addr) {
		return nil, errNotFound
	}
	return s.dns.LookupAddr(ctx, addr)
}

// hosts knows the names and addresses in a hosts file, as it was a few seconds ago at most.
type hosts struct {
	path string
	now  func() time.Time

	mu      sync.Mutex
	entries map[string]bool // names in lower case without a final dot, addresses as netip writes them
	looked  time.Time
	changed time.Time
	size    int64
}

func (h *hosts) has(entry string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.now(); now.Sub(h.looked) >= hostsFresh || h.looked.IsZero() {
		h.looked = now
		h.refresh()
	}
	return h.entries[entry]
}

// refresh reads the file if it has changed. One that is not there, or cannot be read, has no entries: who answers from it
// cannot read it either.
func (h *hosts) refresh() {
	info, err := os.Stat(h.path)
	if err != nil {
		h.entries, h.changed, h.size = nil, time.Time{}, 0
		return
	}
	if h.entries != nil && info.ModTime().Equal(h.changed) && info.Size() == h.size {
		return
	}
	h.entries, h.changed, h.size = make(map[string]bool), info.ModTime(), info.Size()
	text, err := os.ReadFile(h.path)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		for i, field := range strings.Fields(line) {
			if addr, err := netip.ParseAddr(field); i == 0 && err == nil {
				field = addr.Unmap().WithZone("").String()
			}
			h.entries[strings.ToLower(strings.TrimSuffix(field, "."))] = true
		}
	}
}
