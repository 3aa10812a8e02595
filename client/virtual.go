package client

import (
	"container/list"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"peel/directory/cache"
)

// Virtual addresses stand for names that have no others (spec/dns.md, section 4).
var (
	virtual4 = netip.MustParsePrefix("198.18.0.0/15") // RFC 2544: of no host; torsocks refuses those of 127.0.0.0/8
	places   = uint32(1<<17 - 2)                      // in virtual4, its first and last address left out
)

// mostVirtual bounds the names that have addresses. With eight times as many places, those of a name that was forgotten are
// given to another only long after.
const mostVirtual = 16384

// virtual gives names addresses, and finds names by them. A name that is used keeps its addresses; of too many names
// the one that was left for longest loses them.
type virtual struct {
	prefix6 netip.Prefix // a /48 in fd00::/8, of this installation

	mu      sync.Mutex
	byName  map[string]*list.Element
	byPlace map[uint32]*list.Element
	order   list.List // of *stand, the one used last first
	next    uint32    // place
}

type stand struct {
	name  string
	place uint32
}

// newVirtual begins at a place of its own, so that an address from the run before hardly means another name.
func newVirtual(prefix6 netip.Prefix, start uint32) *virtual {
	return &virtual{
		prefix6: prefix6, next: start % places,
		byName: make(map[string]*list.Element), byPlace: make(map[uint32]*list.Element),
	}
}

// addrs are the addresses of a name, given to it now if it had none.
func (v *virtual) addrs(name string) (netip.Addr, netip.Addr) {
	v.mu.Lock()
	defer v.mu.Unlock()
	el := v.byName[name]
	if el == nil {
		if len(v.byName) >= mostVirtual {
			old := v.order.Remove(v.order.Back()).(*stand)
			delete(v.byName, old.name)
			delete(v.byPlace, old.place)
		}
		for v.byPlace[v.next] != nil {
			v.next = (v.next + 1) % places
		}
		el = v.order.PushFront(&stand{name, v.next})
		v.byName[name], v.byPlace[v.next] = el, el
		v.next = (v.next + 1) % places
	}
	v.order.MoveToFront(el)
	return v.at(el.Value.(*stand).place)
}

// forget takes all names their addresses.
func (v *virtual) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.byName)
	clear(v.byPlace)
	v.order.Init()
}

// at are the addresses of a place.
func (v *virtual) at(place uint32) (netip.Addr, netip.Addr) {
	a4 := virtual4.Addr().As4()
	binary.BigEndian.PutUint32(a4[:], binary.BigEndian.Uint32(a4[:])+place+1)
	a6 := v.prefix6.Addr().As16()
	binary.BigEndian.PutUint32(a6[12:], place+1)
	return netip.AddrFrom4(a4), netip.AddrFrom16(a6)
}

// contains says whether an address is virtual, whether it stands for a name or not.
func (v *virtual) contains(a netip.Addr) bool { return virtual4.Contains(a) || v.prefix6.Contains(a) }

// name is the name that a virtual address stands for.
func (v *virtual) name(a netip.Addr) (string, bool) {
	var place uint32
	if a.Is4() {
		b, first := a.As4(), virtual4.Addr().As4()
		place = binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(first[:]) - 1
	} else {
		b := a.As16()
		place = binary.BigEndian.Uint32(b[12:]) - 1
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	el := v.byPlace[place]
	if el == nil {
		return "", false
	}
	if a4, a6 := v.at(place); a != a4 && a != a6 {
		return "", false
	}
	v.order.MoveToFront(el)
	return el.Value.(*stand).name, true
}

// virtualFile keeps the prefix of virtual IPv6 addresses between runs, so that routes and rules for it stay right.
const virtualFile = "virtual-prefix"

// loadPrefix reads the installation's prefix, or draws one and keeps it; "" keeps it nowhere.
func loadPrefix(dir string) (netip.Prefix, error) {
	ours := netip.MustParsePrefix("fd00::/8")
	if dir != "" {
		text, err := cache.ReadFile(filepath.Join(dir, virtualFile), 256)
		if p, perr := netip.ParsePrefix(strings.TrimSpace(string(text))); err == nil && perr == nil && p.Bits() == 48 && p == p.Masked() && ours.Contains(p.Addr()) {
			return p, nil
		}
	}
	a := [16]byte{0xFD}
	rand.Read(a[1:6])
	p := netip.PrefixFrom(netip.AddrFrom16(a), 48)
	if dir == "" {
		return p, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return p, fmt.Errorf("client: %w", err)
	}
	if err := cache.WriteFile(filepath.Join(dir, virtualFile), []byte(p.String()+"\n")); err != nil {
		return p, fmt.Errorf("client: keeping the prefix of virtual addresses: %w", err)
	}
	return p, nil
}
