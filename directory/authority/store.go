package authority

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	sweepPause    = time.Minute      // between searches of a full store for what is out of date
	descriptorTop = "peel-descriptor 1\n"
)

// A refusal is an answer to a request: an HTTP status and, in words, what to do about it.
type refusal struct {
	status int
	reason string
	rule   *Rule // of a list, that says so; nil: none
}

func (r *refusal) Error() string { return r.reason }

func refuse(status int, format string, args ...any) error {
	return &refusal{status: status, reason: fmt.Sprintf(format, args...)}
}

// store holds the newest descriptor of each relay and what we know of the relay ourselves.
type store struct {
	network  cell.NetworkID
	private  bool // addresses need not be public
	lists    atomic.Pointer[Lists]
	perPlace int // relays at one address, at most
	capacity int // descriptors held, at most

	mu     sync.Mutex
	relays map[cell.NodeID]*known           // guarded by mu, as all below
	places map[netip.Prefix]map[*known]bool // who was reached at an address
	failed map[*known]bool                  // whose last handshake failed and who was not reached lately
	lately agenda                           // tries of who was reached lately
	fresh  agenda                           // and of all others
	since  time.Time                        // when the period before this one began
	swept  time.Time                        // when there was last room made of what is out of date
	text   int                              // bytes held
	dirty  bool                             // not saved since it changed
	past   *history                         // of all who were ever reached

	trouble []Troubled // found last; nil: not yet
	looked  time.Time  // when
}

// known is a relay.
type known struct {
	desc   *directory.Descriptor
	text   []byte
	digest directory.Digest

	reached time.Time        // when a handshake with these keys at one of these addresses last succeeded
	there   []netip.AddrPort // the addresses at which it did; each has its place
	failed  int              // tries that failed since
	why     string           // what came of the last try where it failed, in words
	busy    bool             // one is under way
	due     time.Time        // the next one, while it is on an agenda
	on      *agenda          // nil: none is due
	at      int              // where on it
}

func newStore(period time.Duration) *store {
	s := &store{
		past:     newHistory(period),
		capacity: maxRelays,
		relays:   map[cell.NodeID]*known{},
		places:   map[netip.Prefix]map[*known]bool{},
		failed:   map[*known]bool{},
	}
	s.lists.Store(new(Lists))
	return s
}

// take is add that also returns the descriptor, if the text is one.
func (s *store) take(text []byte, now time.Time) (*directory.Descriptor, bool, error) {
	d, err := directory.ParseDescriptor(text)
	if err != nil {
		return nil, false, refuse(http.StatusBadRequest, "%v", err)
	}
	news, err := s.addParsed(d, text, now)
	return d, news, err
}

// add takes a descriptor in, or returns a refusal. It says whether the descriptor is news.
func (s *store) add(text []byte, now time.Time) (bool, error) {
	_, news, err := s.take(text, now)
	return news, err
}

func (s *store) addParsed(d *directory.Descriptor, text []byte, now time.Time) (bool, error) {
	switch {
	case now.Sub(d.Published) > maxAge:
		return false, refuse(http.StatusForbidden, "published %v ago, but at most %v are allowed: is the relay's clock right? It is %s here",
			now.Sub(d.Published).Round(time.Second), maxAge, stamp(now))
	case toCome(d, now):
		return false, refuse(http.StatusForbidden, "published %v in the future: is the relay's clock right? It is %s here",
			d.Published.Sub(now).Round(time.Second), stamp(now))
	}
	if err := certified(d, now); err != nil {
		return false, refuse(http.StatusForbidden, "%v: renew the relay's signing key (peel keys rotate)", err)
	}
	return s.addAnyTime(d, text, now)
}

// addAnyTime is addParsed of one that was in time when it came.
func (s *store) addAnyTime(d *directory.Descriptor, text []byte, now time.Time) (bool, error) {
	if d.Network != s.network {
		return false, refuse(http.StatusForbidden, "descriptor of another network, %v; this is %v", d.Network, s.network)
	}
	if err := s.admit(d); err != nil {
		return false, err
	}
	for _, a := range d.Addrs {
		if !s.private && directory.Special(a.Addr()) {
			return false, refuse(http.StatusForbidden, "address %v is not reachable from the internet: announce a public one", a)
		}
	}
	k := &known{desc: d, text: bytes.Clone(text), digest: directory.DigestOf(text)}

	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.relays[d.ID]
	if old != nil {
		if old.digest == k.digest {
			return false, nil
		}
		if !d.Published.After(old.desc.Published) && !toCome(old.desc, now) {
			return false, refuse(http.StatusConflict, "published %s, but one of %s is known already",
				stamp(d.Published), stamp(old.desc.Published))
		}
	}
	if err := s.makeRoom(k, old, now); err != nil {
		return false, err
	}
	var was known
	if old != nil {
		was = *old
		s.remove(old)
	}
	s.relays[d.ID] = k
	s.text += len(k.text)
	s.dirty = true
	if old == nil || !sameDoor(old.desc, d) {
		s.plan(k, now)
		return true, nil
	}
	k.reached, k.busy = was.reached, was.busy
	s.settle(k, was.there, was.failed)
	switch {
	case was.failed > 0 && !was.busy:
		s.plan(k, now) // it says that it is there again
	case was.on != nil:
		s.plan(k, was.due)
	}
	return true, nil
}

// settle notes at which addresses a relay was reached when it was last tried, and how often it was
// not since.
func (s *store) settle(k *known, there []netip.AddrPort, failed int) {
	for _, a := range k.there {
		p := directory.SourceOf(a.Addr())
		delete(s.places[p], k)
		if len(s.places[p]) == 0 {
			delete(s.places, p)
		}
	}
	for _, a := range there {
		p := directory.SourceOf(a.Addr())
		if s.places[p] == nil {
			s.places[p] = map[*known]bool{}
		}
		s.places[p][k] = true
	}
	k.there, k.failed = there, failed
	delete(s.failed, k)
	if failed > 0 && !s.reachedLately(k) {
		s.failed[k] = true
	}
}

// taken returns how many relays other than k were reached at an address.
func (s *store) taken(a netip.Addr, k *known) int {
	at := s.places[directory.SourceOf(a)]
	if at[k] {
		return len(at) - 1
	}
	return len(at)
}

// makeRoom makes sure that k may come in place of old, which may be nil: where the store is full,
// those that are out of date go, or else one whose last handshake failed and that was not reached
// lately. An address is full when as many relays as may be there were reached there.
func (s *store) makeRoom(k, old *known, now time.Time) error {
	for _, a := range k.desc.Addrs {
		if n := s.taken(a.Addr(), old); n >= s.perPlace {
			return refuse(http.StatusForbidden, "there are %d relays at %v already, which is the limit", n, directory.SourceOf(a.Addr()))
		}
	}
	full := func() bool {
		n, text := len(s.relays), s.text+len(k.text)
		if old != nil {
			n, text = n-1, text-len(old.text)
		}
		return n >= s.capacity || text > maxText
	}
	if full() && now.Sub(s.swept).Abs() >= sweepPause {
		s.swept = now
		s.dropStale(now, old)
	}
	for full() {
		if !s.evict(old) {
			return refuse(http.StatusServiceUnavailable, "no room for another relay: try again in an hour")
		}
	}
	return nil
}

// evict removes one of the relays that may go, but not old.
func (s *store) evict(old *known) bool {
	for k := range s.failed {
		if k != old {
			s.remove(k)
			return true
		}
	}
	return false
}

func stale(k *known, now time.Time) bool { return now.Sub(k.desc.Published).Abs() > maxAge }

// toCome says whether a descriptor is later than relays' clocks may be ahead: one that is held was taken in by a clock that was wrong.
func toCome(d *directory.Descriptor, now time.Time) bool { return d.Published.Sub(now) > maxAhead }

func (s *store) remove(k *known) {
	delete(s.relays, k.desc.ID)
	s.text -= len(k.text)
	s.unplan(k)
	s.settle(k, nil, 0)
	s.dirty = true
}

// expire drops descriptors that are out of date, and those of more than a day from now.
func (s *store) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropStale(now, nil)
}

// dropStale drops descriptors that are out of date, but not old.
func (s *store) dropStale(now time.Time, old *known) {
	for _, k := range s.relays {
		if k != old && stale(k, now) {
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

// load takes in what bytes returned and returns how many descriptors were still good, and how many were not. What is too old by a clock
// that may be wrong at a start goes when a vote is made (expire).
func (s *store) load(text []byte, now time.Time) (good, bad int) {
	for _, part := range split(text, descriptorTop) {
		d, err := directory.ParseDescriptor(part)
		ok := false
		if err == nil {
			ok, err = s.addAnyTime(d, part, now)
		}
		if ok && err == nil {
			good++
		} else {
			bad++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = false
	return good, bad
}

// prove counts the relays of a consensus as reached before it began, unless they have moved since:
// who starts again tries them first.
func (s *store) prove(c *directory.Consensus, reached time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range c.Entries {
		e := &c.Entries[i]
		k := s.relays[e.ID]
		if k == nil || k.on == nil || k.desc.LinkKey != e.LinkKey || !slices.Contains(k.desc.Addrs, e.Addrs[0]) {
			continue
		}
		k.reached = reached
		s.plan(k, k.due)
	}
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

// troubled are the relays that say of themselves that they are, by nickname, at most mostTroubled, as they were less than troubledFor
// ago: anybody may ask, and looking at all relays takes a while.
func (s *store) troubled(now time.Time) []Troubled {
	s.mu.Lock()
	defer s.mu.Unlock()
	if age := now.Sub(s.looked); s.trouble == nil || age < 0 || age >= troubledFor {
		s.trouble, s.looked = s.findTroubled(now), now
	}
	return slices.Clone(s.trouble)
}

// findTroubled looks at all relays. The caller holds mu.
func (s *store) findTroubled(now time.Time) []Troubled {
	var found []*directory.Descriptor
	for _, k := range s.relays {
		if now.Before(k.desc.Paused) || !k.desc.Overloaded.IsZero() {
			found = append(found, k.desc)
		}
	}
	slices.SortFunc(found, func(a, b *directory.Descriptor) int {
		return cmp.Or(strings.Compare(a.Nickname, b.Nickname), bytes.Compare(a.ID[:], b.ID[:]))
	})
	list := []Troubled{}
	for _, d := range found[:min(len(found), mostTroubled)] {
		t := Troubled{Nickname: d.Nickname, Identity: d.ID.String()}
		if now.Before(d.Paused) {
			t.Paused = &d.Paused
		}
		if !d.Overloaded.IsZero() {
			t.Overloaded = &d.Overloaded
		}
		list = append(list, t)
	}
	return list
}

// A candidate is a relay that a vote may list.
type candidate struct {
	desc     *directory.Descriptor
	text     []byte
	there    []netip.AddrPort // the addresses at which it was reached, while it is running
	running  bool             // reached in this period
	past     standing
	marks    directory.Flags // BadExit and MiddleOnly, by our lists
	measured uint64          // by us, bytes per second; 0: not
}

// certified says why the key that signed a descriptor does not count at a time; nil: it does, or the identity signed.
func certified(d *directory.Descriptor, now time.Time) error {
	if d.Certificate == nil {
		return nil
	}
	return d.Certificate.Valid(now)
}

// candidates returns the relays for the vote of a period, by identity.
func (s *store) candidates(since, now time.Time) []candidate {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]candidate, 0, len(s.relays))
	for _, k := range s.sorted() {
		if stale(k, now) || toCome(k.desc, now) {
			continue
		}
		running := len(k.there) > 0 && !k.reached.Before(since) && !now.Before(k.desc.Paused) && certified(k.desc, now) == nil
		marks, _ := s.lists.Load().marks(k.desc)
		list = append(list, candidate{k.desc, k.text, k.there, running, s.past.of(k.desc.ID, now), marks, 0})
	}
	return list
}

// pastBytes returns the history of all relays, to be kept.
func (s *store) pastBytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.past.bytes()
}

// timeFormat is how documents and paths write a time.
const timeFormat = "2006-01-02T15:04:05Z"

// stamp writes a time.
func stamp(t time.Time) string { return t.UTC().Format(timeFormat) }
