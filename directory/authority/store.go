package authority

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"peel/cell"
	"peel/directory"
)

// Limits of the store (spec/voting.md, section 4).
const (
	maxRelays     = 20000    // descriptors held
	maxText       = 64 << 20 // bytes of their text
	maxAge        = 24 * time.Hour
	maxAhead      = 10 * time.Minute // that a relay's clock may be ahead of ours
	descriptorTop = "peel-descriptor 1\n"
)

// A refusal is an answer to a request: an HTTP status and, in words, what to do about it.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return r.reason }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// store holds the newest descriptor of each relay and what we know of the relay ourselves.
type store struct {
	network  cell.NetworkID
	allow    map[cell.NodeID]bool // nil: everybody
	private  bool                 // addresses need not be public
	perPlace int                  // relays at one address, at most
	capacity int                  // descriptors held, at most

	mu     sync.Mutex
	relays map[cell.NodeID]*known           // guarded by mu, as all below
	places map[netip.Prefix]map[*known]bool // who is at an address
	text   int                              // bytes held
	dirty  bool                             // not saved since it changed
}

// known is a relay.
type known struct {
	desc   *directory.Descriptor
	text   []byte
	digest directory.Digest

	reached time.Time // when a handshake with these keys at these addresses last succeeded
	failed  int       // handshakes that failed since
	due     time.Time // the next one
	busy    bool      // one is under way
	streak  int       // votes in a row that found it running
}

func newStore() *store {
	return &store{
		capacity: maxRelays,
		relays:   map[cell.NodeID]*known{},
		places:   map[netip.Prefix]map[*known]bool{},
	}
}

// add takes a descriptor in, or returns a refusal. It says whether the descriptor is news.
func (s *store) add(text []byte, now time.Time) (bool, error) {
	d, err := directory.ParseDescriptor(text)
	if err != nil {
		return false, refuse(http.StatusBadRequest, "%v", err)
	}
	switch {
	case d.Network != s.network:
		return false, refuse(http.StatusForbidden, "descriptor of another network, %v; this is %v", d.Network, s.network)
	case now.Sub(d.Published) > maxAge:
		return false, refuse(http.StatusForbidden, "published %v ago, but at most %v are allowed: is the relay's clock right? It is %s here",
			now.Sub(d.Published).Round(time.Second), maxAge, stamp(now))
	case d.Published.Sub(now) > maxAhead:
		return false, refuse(http.StatusForbidden, "published %v in the future: is the relay's clock right? It is %s here",
			d.Published.Sub(now).Round(time.Second), stamp(now))
	case s.allow != nil && !s.allow[d.ID]:
		return false, refuse(http.StatusForbidden, "relay %v is not on this network's list: ask its authorities to add it", d.ID)
	}
	for _, a := range d.Addrs {
		if !s.private && !public(a.Addr()) {
			return false, refuse(http.StatusForbidden, "address %v is not reachable from the internet: announce a public one", a)
		}
	}
	k := &known{desc: d, text: bytes.Clone(text), digest: directory.DigestOf(text), due: now}

	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.relays[d.ID]
	if old != nil {
		if old.digest == k.digest {
			return false, nil
		}
		if !d.Published.After(old.desc.Published) {
			return false, refuse(http.StatusConflict, "published %s, but one of %s is known already",
				stamp(d.Published), stamp(old.desc.Published))
		}
	}
	if err := s.makeRoom(k, old, now); err != nil {
		return false, err
	}
	if old != nil {
		s.remove(old)
		k.streak = old.streak
		if sameDoor(old.desc, d) {
			k.reached, k.failed, k.due, k.busy = old.reached, old.failed, old.due, old.busy
			if old.failed > 0 {
				k.due = now // it says that it is there again
			}
		}
	}
	s.relays[d.ID] = k
	s.text += len(k.text)
	for _, a := range d.Addrs {
		p := place(a.Addr())
		if s.places[p] == nil {
			s.places[p] = map[*known]bool{}
		}
		s.places[p][k] = true
	}
	s.dirty = true
	return true, nil
}

// makeRoom makes sure that k may come in place of old, which may be nil: of relays that take the
// room, one that is out of date goes, or else one whose last handshake failed.
func (s *store) makeRoom(k, old *known, now time.Time) error {
	for _, a := range k.desc.Addrs {
		n := 0
		var others []*known
		for o := range s.places[place(a.Addr())] {
			if o != old {
				n++
				others = append(others, o)
			}
		}
		if n >= s.perPlace && !s.evict(others, now) {
			return refuse(http.StatusForbidden, "there are %d relays at %v already, which is the limit", n, place(a.Addr()))
		}
	}
	full := func() bool {
		n, text := len(s.relays), s.text+len(k.text)
		if old != nil {
			n, text = n-1, text-len(old.text)
		}
		return n >= s.capacity || text > maxText
	}
	if !full() {
		return nil
	}
	var others []*known
	for _, o := range s.relays {
		if o != old {
			others = append(others, o)
		}
	}
	for full() {
		if !s.evict(others, now) {
			return refuse(http.StatusServiceUnavailable, "no room for another relay: try again in an hour")
		}
	}
	return nil
}

// evict removes one of the relays that may go, the least identity first.
func (s *store) evict(from []*known, now time.Time) bool {
	slices.SortFunc(from, func(a, b *known) int { return bytes.Compare(a.desc.ID[:], b.desc.ID[:]) })
	for _, k := range from {
		if s.relays[k.desc.ID] == k && (k.failed > 0 || stale(k, now)) {
			s.remove(k)
			return true
		}
	}
	return false
}

func stale(k *known, now time.Time) bool { return now.Sub(k.desc.Published) > maxAge }

func (s *store) remove(k *known) {
	delete(s.relays, k.desc.ID)
	s.text -= len(k.text)
	for _, a := range k.desc.Addrs {
		p := place(a.Addr())
		delete(s.places[p], k)
		if len(s.places[p]) == 0 {
			delete(s.places, p)
		}
	}
	s.dirty = true
}

// expire drops descriptors that are out of date.
func (s *store) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.relays {
		if stale(k, now) {
			s.remove(k)
		}
	}
}

// bytes returns all descriptors, by identity, when they changed since the last call.
func (s *store) bytes() (text []byte, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return nil, false
	}
	s.dirty = false
	text = make([]byte, 0, s.text)
	for _, k := range s.sorted() {
		text = append(text, k.text...)
	}
	return text, true
}

// load takes in what bytes returned and returns how many descriptors were still good.
func (s *store) load(text []byte, now time.Time) int {
	n := 0
	for _, part := range split(text, descriptorTop) {
		if ok, err := s.add(part, now); ok && err == nil {
			n++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = false
	return n
}

func (s *store) sorted() []*known {
	all := make([]*known, 0, len(s.relays))
	for _, k := range s.relays {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *known) int { return bytes.Compare(a.desc.ID[:], b.desc.ID[:]) })
	return all
}

// len returns how many relays are known.
func (s *store) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.relays)
}

// A candidate is a relay that a vote may list.
type candidate struct {
	desc    *directory.Descriptor
	text    []byte
	running bool // reached in this period
	streak  int  // votes in a row, with this one, that found it running
}

// candidates returns the relays for the vote of a period, by identity, and counts the vote in
// their streaks: call it once a period.
func (s *store) candidates(since, now time.Time) []candidate {
	s.expire(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]candidate, 0, len(s.relays))
	for _, k := range s.sorted() {
		running := !k.reached.IsZero() && !k.reached.Before(since)
		if running {
			k.streak++
		} else {
			k.streak = 0
		}
		list = append(list, candidate{k.desc, k.text, running, k.streak})
	}
	return list
}

// timeFormat is how documents and paths write a time.
const timeFormat = "2006-01-02T15:04:05Z"

// stamp writes a time.
func stamp(t time.Time) string { return t.UTC().Format(timeFormat) }
