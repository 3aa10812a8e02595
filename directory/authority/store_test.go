package authority

import (
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

// shelf is a store, and relays that may publish to it.
type shelf struct {
	t   *testing.T
	net *dirtest.Net
	now time.Time
	*store
}

func newShelf(t *testing.T, relays int) *shelf {
	s := &shelf{t: t, net: dirtest.New(3, relays), now: dirtest.ValidAfter, store: newStore(time.Hour)}
	s.network, s.perPlace = s.net.Network.ID(), 2
	return s
}

// publish posts relay i's descriptor, changed, and wants an HTTP status (204: taken).
func (s *shelf) publish(i int, want int, says string, change func(*directory.Descriptor)) *directory.Descriptor {
	s.t.Helper()
	d := s.net.Relays[i].Descriptor
	if change != nil {
		change(&d)
	}
	text, err := d.Sign(s.net.Relays[i].Identity)
	if err != nil {
		s.t.Fatal(err)
	}
	s.post(text, want, says)
	return &d
}

func (s *shelf) post(text []byte, want int, says string) {
	s.t.Helper()
	code := http.StatusNoContent
	_, err := s.add(text, s.now)
	var r *refusal
	if errors.As(err, &r) {
		code = r.status
	} else if err != nil {
		s.t.Fatalf("an error that is no refusal: %v", err)
	}
	if code != want || err != nil && !strings.Contains(err.Error(), says) {
		s.t.Errorf("%d %v, want %d that says %q", code, err, want, says)
	}
}

// reached and missed note how a try of a relay at all its addresses went.
func (s *shelf) reached(d *directory.Descriptor) {
	s.tried(d, slices.Clone(d.Addrs), s.now, time.Hour)
}
func (s *shelf) missed(d *directory.Descriptor) { s.tried(d, nil, s.now, time.Hour) }

// running are the relays that were reached now or later, by identity.
func (s *shelf) running() (ids []cell.NodeID) {
	for _, c := range s.candidates(s.now, s.now) {
		if c.running {
			ids = append(ids, c.desc.ID)
		}
	}
	return ids
}

func addr(s string) []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(s)} }

func TestDescriptorsThatAreRefused(t *testing.T) {
	s := newShelf(t, 4)
	published := func(d time.Duration) func(*directory.Descriptor) {
		return func(r *directory.Descriptor) { r.Published = s.now.Add(d) }
	}
	s.publish(0, 204, "", nil)
	s.publish(0, 204, "", nil) // the same again
	s.publish(0, 409, "is known already", published(-2*time.Hour))
	s.publish(0, 409, "is known already", func(d *directory.Descriptor) { d.Contact = "another of the same second" })
	s.publish(0, 204, "", published(0))
	s.publish(1, 403, "24h0m1s ago", published(-24*time.Hour-time.Second))
	s.publish(1, 403, "in the future", published(10*time.Minute+time.Second))
	s.publish(1, 204, "", published(10*time.Minute))
	s.publish(2, 403, "another network", func(d *directory.Descriptor) { d.Network = cell.NetworkID{1} })
	for _, a := range []string{"10.0.0.1:1", "127.0.0.1:1", "100.64.0.1:1", "[fd00::1]:1", "[2001:db8::1]:1", "[64:ff9b::808:808]:1", "[2002:808:808::1]:1"} {
		s.publish(2, 403, "not reachable from the internet", func(d *directory.Descriptor) { d.Addrs = addr(a) })
	}
	forged := append([]byte(nil), s.net.Relays[2].Text...)
	forged[strings.Index(string(forged), "nickname ")+9] ^= 1
	s.post(forged, 400, "signature")
	s.post(s.net.Relays[2].Text[:50], 400, "")
	s.post(nil, 400, "")
	s.post(make([]byte, directory.MaxDescriptor+1), 400, "at most")
	s.store.lists.Load().name([]cell.NodeID{s.net.Relays[3].Descriptor.ID})
	s.publish(2, 403, "not on this network's list", nil)
	s.publish(3, 204, "", nil)
	s.store.lists.Store(new(Lists))
	s.store.private = true
	s.publish(2, 204, "", func(d *directory.Descriptor) { d.Addrs = addr("127.0.0.1:1") })
	if n := s.len(); n != 4 {
		t.Errorf("%d relays known, want 4", n)
	}
}

// Who was reached at an address has a place there. Who only says that it is there takes none.
func TestTwoRelaysAnAddress(t *testing.T) {
	for _, c := range []struct{ name, a, b, c, d, other string }{
		{"IPv4", "11.0.0.9:1", "11.0.0.9:2", "11.0.0.9:3", "11.0.0.9:4", "11.0.0.8:1"},
		{"IPv6 /64", "[2a00:1:2:3::1]:1", "[2a00:1:2:3::2]:1", "[2a00:1:2:3:4::3]:1", "[2a00:1:2:3:5::3]:1", "[2a00:1:2:4::1]:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShelf(t, 5)
			there := func(a string) func(*directory.Descriptor) {
				return func(d *directory.Descriptor) { d.Addrs = addr(a) }
			}
			first := s.publish(0, 204, "", there(c.a))
			second := s.publish(1, 204, "", there(c.b))
			third := s.publish(2, 204, "", there(c.c))
			s.publish(3, 204, "", there(c.other))
			s.reached(first)
			s.reached(second)
			s.reached(third) // no place was left
			if got := s.running(); !slices.Equal(got, []cell.NodeID{first.ID, second.ID}) {
				t.Errorf("running %v, want the two that were reached first", got)
			}
			s.publish(4, 403, "which is the limit", there(c.d))
			s.publish(0, 204, "", func(d *directory.Descriptor) { d.Addrs, d.Published = addr(c.a), s.now })

			// Who is not reached any more gives its place up.
			s.missed(second)
			s.publish(4, 204, "", there(c.d))
			s.reached(third)
			s.publish(4, 403, "which is the limit", func(d *directory.Descriptor) { d.Addrs, d.Published = addr(c.d), s.now })

			// Who moves away makes room.
			s.publish(0, 204, "", func(d *directory.Descriptor) { d.Addrs, d.Published = addr("11.1.1.1:1"), s.now.Add(time.Second) })
			s.publish(4, 204, "", func(d *directory.Descriptor) { d.Addrs, d.Published = addr(c.d), s.now })
		})
	}
}

// Relays that name another's address beside their own do not keep it out, nor are they listed there.
func TestAddressOfAnotherIsNotTaken(t *testing.T) {
	s := newShelf(t, 3)
	victim := netip.MustParseAddrPort("[2a00:1:2:3::1]:1")
	var liars []*directory.Descriptor
	for i := range 2 {
		liars = append(liars, s.publish(i, 204, "", func(d *directory.Descriptor) {
			d.Addrs = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, 0, 0, byte(i)}), 1), victim}
		}))
	}
	for _, d := range liars {
		s.tried(d, d.Addrs[:1:1], s.now, time.Hour)
	}
	honest := s.publish(2, 204, "", func(d *directory.Descriptor) { d.Addrs = []netip.AddrPort{victim} })
	s.reached(honest)
	for _, e := range entries(s.candidates(s.now, s.now), time.Hour, defaultMaxBandwidth) {
		if !e.Flags.Has(directory.Running) {
			t.Errorf("%v was reached but is not running", e.ID)
		}
		if slices.Contains(e.Addrs, victim) != (e.ID == honest.ID) {
			t.Errorf("%v is listed at %v", e.ID, e.Addrs)
		}
	}
}

func TestFullStore(t *testing.T) {
	s := newShelf(t, 6)
	s.capacity = 3
	for i := range 3 {
		s.publish(i, 204, "", nil)
	}
	s.publish(3, 503, "no room", nil)
	s.publish(0, 204, "", func(d *directory.Descriptor) { d.Published = s.now }) // in its own place
	s.missed(&s.net.Relays[1].Descriptor)
	s.publish(3, 204, "", nil)
	s.publish(4, 503, "no room", nil)

	// Who was reached lately keeps its place though it is away, but not for ever.
	s.reached(&s.net.Relays[3].Descriptor)
	s.missed(&s.net.Relays[3].Descriptor)
	s.publish(4, 503, "no room", nil)
	s.newPeriod(PeriodAt(directory.Schedule{}, s.now.Add(time.Hour)))
	s.publish(4, 503, "no room", nil)
	s.newPeriod(PeriodAt(directory.Schedule{}, s.now.Add(3*time.Hour)))
	s.publish(4, 204, "", nil)

	s.now = s.now.Add(23*time.Hour + time.Minute)
	s.publish(5, 204, "", func(d *directory.Descriptor) { d.Published = s.now })
	if n := s.len(); n != 2 {
		t.Errorf("%d relays, want the one that published last and the one that did now", n)
	}
}

func TestStaleDescriptorsAreNotVotedOn(t *testing.T) {
	s := newShelf(t, 3)
	for i := range 3 {
		s.publish(i, 204, "", func(d *directory.Descriptor) { d.Published = s.now.Add(-time.Duration(i) * 12 * time.Hour) })
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{0, 3}, {time.Second, 2}, {12*time.Hour + time.Second, 1}, {25 * time.Hour, 0}} {
		n := len(s.candidates(s.now, s.now.Add(c.after)))
		if s.expire(s.now.Add(c.after)); n != c.want || s.len() != n {
			t.Errorf("%v later: %d relays, want %d", c.after, n, c.want)
		}
	}
	if len(s.places) != 0 || s.text != 0 {
		t.Errorf("an empty store has %d addresses and %d bytes", len(s.places), s.text)
	}
}

// A relay that says it is paused is not Running until then, though it is reached. An operator sees it, and who was overloaded.
func TestPausedRelaysAreNotRunning(t *testing.T) {
	s := newShelf(t, 2)
	for i := range 2 {
		s.reached(s.publish(i, 204, "", func(d *directory.Descriptor) {
			if i == 0 {
				d.Paused = s.now.Add(time.Hour)
			}
			d.Overloaded = s.now.Truncate(time.Hour) // which changes nothing
		}))
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {time.Hour - troubledFor, 1}, {time.Hour, 2}} {
		n := 0
		for _, x := range s.candidates(s.now, s.now.Add(c.after)) {
			if x.running {
				n++
			}
		}
		if n != c.want {
			t.Errorf("%v later %d are running, want %d", c.after, n, c.want)
		}
		paused := 0
		told := s.troubled(s.now.Add(c.after))
		for _, x := range told {
			if x.Paused != nil {
				paused++
			}
		}
		if len(told) != 2 || told[0].Overloaded == nil || told[1].Overloaded == nil || paused != 2-c.want {
			t.Errorf("%v later these are told of: %+v", c.after, told)
		}
	}
}

// Who asks for the status has the authority look at all its relays once a minute, and is shown a bounded number.
func TestTroubledRelaysAreLookedForNowAndThen(t *testing.T) {
	s := newShelf(t, mostTroubled+2)
	trouble := func(d *directory.Descriptor) { d.Overloaded = s.now.Truncate(time.Hour) }
	s.publish(0, 204, "", trouble)
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {troubledFor - 1, 1}, {troubledFor, 2}, {-time.Second, 3}, {0, 3}, {troubledFor, mostTroubled}} { // once it was set back
		told := s.troubled(s.now.Add(c.after))
		if len(told) != c.want || !slices.IsSortedFunc(told, func(a, b Troubled) int { return strings.Compare(a.Nickname, b.Nickname) }) {
			t.Errorf("%v later: %d, want %d: %+v", c.after, len(told), c.want, told)
		}
		switch c.after {
		case 0:
			s.publish(1, 204, "", trouble)
		case troubledFor:
			s.publish(2, 204, "", trouble)
		case -time.Second:
			for i := 3; i < mostTroubled+2; i++ {
				s.publish(i, 204, "", trouble)
			}
		}
	}
}

func TestStoreComesBackFromItsBytes(t *testing.T) {
	s := newShelf(t, 20)
	for i := range 20 {
		s.publish(i, 204, "", nil)
	}
	text, changed := s.bytes()
	if !changed {
		t.Fatal("nothing to keep")
	}
	if _, changed = s.bytes(); changed {
		t.Error("kept twice")
	}
	again := newShelf(t, 20)
	if n, bad := again.load(text, s.now); n != 20 || bad != 0 {
		t.Errorf("%d of 20 descriptors loaded, %d not", n, bad)
	}
	if _, changed = again.bytes(); changed {
		t.Error("what was loaded would be kept again")
	}
	old := newShelf(t, 20)
	if n, bad := old.load(text, s.now.Add(48*time.Hour)); n != 20 || bad != 0 || len(old.candidates(s.now, s.now.Add(48*time.Hour))) > 0 {
		t.Errorf("of descriptors of two days ago, by a clock that may be wrong, %d were loaded and %d not", n, bad)
	}
	damaged := newShelf(t, 20)
	middle := len(text) / 2
	text[middle+strings.Index(string(text[middle:]), "nickname ")] ^= 0x80
	if n, bad := damaged.load(text[:len(text)-10], s.now); n != 18 || bad != 2 {
		t.Errorf("%d descriptors loaded from a damaged file, %d not, want 18 and 2", n, bad)
	}
}

// A relay is tried at once when it publishes, then again after a while that grows as it fails; every
// 20 minutes when it answers, and in each period.
func TestWhenRelaysAreTried(t *testing.T) {
	s := newShelf(t, 2)
	d := s.publish(0, 204, "", func(d *directory.Descriptor) { d.Published = s.now.Add(-time.Minute) })
	if got := s.takeDue(s.now, 9, 9); len(got) != 1 || got[0].desc.ID != d.ID {
		t.Fatalf("due after publishing: %d", len(got))
	}
	if got := s.takeDue(s.now, 9, 9); len(got) != 0 {
		t.Error("tried twice at a time")
	}
	for _, want := range []time.Duration{time.Hour / 64, time.Hour / 32, time.Hour / 16, time.Hour / 8, time.Hour / 8} {
		s.missed(d)
		if due, ok := s.nextDue(1, 1); !ok || due.Sub(s.now) != want {
			t.Errorf("after a failure tried again in %v, want %v", due.Sub(s.now), want)
		}
		if _, ok := s.nextDue(1, 0); ok {
			t.Error("a try is due for which there is no worker")
		}
		if got := s.takeDue(s.now.Add(want), 9, 9); len(got) != 1 {
			t.Error("not due when it should be")
		}
	}
	s.reached(d)
	for range 3 {
		due, ok := s.nextDue(1, 1)
		if first := s.now; !ok || !due.After(first) || due.After(first.Add(20*time.Minute)) {
			t.Errorf("a relay that was reached is tried again in %v, want at most 20 minutes", due.Sub(first))
		}
		s.newPeriod(PeriodAt(directory.Schedule{}, due))
		if again, ok := s.nextDue(1, 1); !ok || again != due {
			t.Errorf("a new period moves a try from %v to %v", due, again)
		}
		s.now = due
		if len(s.takeDue(due, 9, 9)) != 1 {
			t.Error("not due when it should be")
		}
		s.reached(d)
	}

	// What is tried of an old descriptor says nothing of the same relay somewhere else.
	moved := s.publish(0, 204, "", func(r *directory.Descriptor) { r.Published, r.Addrs = s.now.Truncate(time.Second), addr("11.9.9.9:1") })
	s.reached(d)
	if len(s.running()) != 0 {
		t.Error("a relay that moved counts as running before it was reached there")
	}
	s.reached(moved)
	if len(s.running()) != 1 {
		t.Error("a relay that was reached does not count as running")
	}
}

// However many relays there are that were never reached, those that were reached in the last period
// are tried first, and have workers of their own.
func TestRelaysReachedLatelyAreTriedFirst(t *testing.T) {
	s := newShelf(t, 30)
	old := map[cell.NodeID]bool{}
	for i := range 30 {
		d := s.publish(i, 204, "", nil)
		if i >= 20 {
			s.reached(d)
			old[d.ID] = true
		}
	}
	next := PeriodAt(directory.Schedule{}, s.now.Add(time.Hour))
	s.newPeriod(next)
	got := s.takeDue(next.Vote, 12, 4)
	for i, try := range got {
		if try.fresh == old[try.desc.ID] || try.fresh != (i >= 10) {
			t.Errorf("try %d is of a relay that was reached: %v", i, old[try.desc.ID])
		}
	}
	if len(got) != 12 {
		t.Errorf("%d tries, want 12", len(got))
	}
	if got := s.takeDue(next.Vote, 100, 4); len(got) != 4 {
		t.Errorf("%d tries of relays that were never reached, want 4", len(got))
	}

	// The consensus tells an authority that starts whom others reached.
	again := newShelf(t, 30)
	for i := range 30 {
		again.publish(i, 204, "", nil)
	}
	c := *again.net.Consensus
	c.Entries = slices.DeleteFunc(slices.Clone(c.Entries), func(e directory.Entry) bool { return !old[e.ID] })
	again.prove(&c, s.now.Add(-time.Hour))
	for i, try := range again.takeDue(s.now, 30, 30) {
		if try.fresh == old[try.desc.ID] || try.fresh != (i >= 10) {
			t.Errorf("after a start try %d is of a relay of the consensus: %v", i, old[try.desc.ID])
		}
	}
	if len(again.running()) != 0 {
		t.Error("a relay of the consensus counts as running before it was tried")
	}
}

// A relay that cannot be reached is given up after three tries in ten minutes or more; one that was
// reached is not.
func TestRelayNeverReachedIsDropped(t *testing.T) {
	s := newShelf(t, 2)
	never := s.publish(0, 204, "", func(d *directory.Descriptor) { d.Published = s.now })
	once := s.publish(1, 204, "", func(d *directory.Descriptor) { d.Published = s.now })
	s.reached(once)
	for i, wait := range []time.Duration{0, time.Minute, time.Minute, 7 * time.Minute, time.Minute} {
		s.now = s.now.Add(wait)
		s.missed(never)
		s.missed(once)
		if want := 2 - i/4; s.len() != want {
			t.Errorf("%d relays after %d tries in %v, want %d", s.len(), i+1, s.now.Sub(never.Published), want)
		}
	}
	if len(s.failed)+len(s.places)+len(s.fresh)+len(s.lately) != 1 {
		t.Error("something of a relay that was dropped stays behind")
	}
	s.publish(0, 204, "", func(d *directory.Descriptor) { d.Published = never.Published })
}

// The operator of a relay hears what an authority knows of it.
func TestOperatorHearsOfHisRelay(t *testing.T) {
	s := newShelf(t, 3)
	d := &s.net.Relays[0].Descriptor
	want := func(what string) {
		t.Helper()
		if got := s.knows(d.ID, s.now); !strings.Contains(got, what) || strings.Contains(got, "\n") || len(got) > 300 {
			t.Errorf("said %q, want %q", got, what)
		}
	}
	want("no descriptor of it is here")
	d = s.publish(0, 204, "", nil)
	want("not tried yet")
	s.missed(d)
	s.explain(d, "11.0.0.1:9001: connection refused"+strings.Repeat(" and so on", 100))
	want("not reached, 1 times in a row; 11.0.0.1:9001: connection refused")
	want("so on and...") // whole words
	s.reached(d)
	s.explain(d, "")
	want("reached at [" + d.Addrs[0].String() + "], 0s ago")
}

func TestStatusOfARelayIsServed(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		sleepUntil(minute(30))
		id := w.net.Relays[0].Descriptor.ID.String()
		if code, text := w.nodes[0].do("GET", pathRelay+id, nil); code != http.StatusOK || !strings.HasPrefix(text, "reached at ") {
			t.Errorf("%d %q", code, text)
		}
		if code, _ := w.nodes[0].do("GET", pathRelay+"x", nil); code != http.StatusBadRequest {
			t.Errorf("no identity: %d", code)
		}
	})
}

// A relay whose signing key's certificate has ended is not Running any more, and its descriptors are refused.
func TestCertifiedKeysCountUntilTheyEnd(t *testing.T) {
	s := newShelf(t, 1)
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	end := s.now.Add(time.Hour)
	r := &s.net.Relays[0]
	d := r.Descriptor
	d.Published = s.now
	cert, err := directory.Certificate{
		Relay: true, Network: d.Network, SigningKey: directory.SigningKey(pub), NotBefore: s.now.Add(-time.Hour), NotAfter: end,
	}.Certify(r.Identity)
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.SignBy(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.add(text, s.now); err != nil {
		t.Fatal(err)
	}
	s.reached(&d)
	for after, want := range map[time.Duration]bool{0: true, time.Hour: true, time.Hour + time.Second: false} {
		if c := s.candidates(s.now, s.now.Add(after)); len(c) != 1 || c[0].running != want {
			t.Errorf("%v later: %+v", after, c)
		}
	}
	s = newShelf(t, 1)
	s.now = end.Add(time.Second)
	s.post(text, 403, "peel keys rotate")
}
