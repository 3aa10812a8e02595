package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/circuit"
	"peel/directory"
	"peel/directory/authority"
	"peel/directory/cache"
)

// How a relay finds out whether others reach it (spec/relay.md, section 11).
const (
	leastHelpers = 3 // other relays that could be asked, else none is
	enoughNo     = 3 // relays that did not reach it, so that it is not reached
	enoughAway   = 2 // relays that see it come from elsewhere, so that authorities are asked
	askedOfThose = 3 // authorities in one test, at a time
	enoughNoOf   = 2 // of them that did not reach it; where there is one, it

	askTimeout  = 25 * time.Second // one of them: link, circuit, and the try
	firstRetest = time.Minute      // after a failure; doubled up to
	lastRetest  = 20 * time.Minute
	spreadTests = time.Minute   // after a new directory, and half a period, those whom nobody could test ask within so long
	leastSilent = 2 * time.Hour // and two periods: after so long without a link that came, it is tested again
)

// relaysAtATime are how many relays are asked at a time in one test, one after another until something is known.
var relaysAtATime = [...]int{2, 3, 3}

// A Verdict is what is known of whether others reach a relay at an address.
type Verdict string

// The verdicts.
const (
	Untested  Verdict = "not tested yet"
	Reached   Verdict = "reached"
	Unreached Verdict = "not reached"
	Unjudged  Verdict = "nobody can tell" // the authorities find out
	Assumed   Verdict = "assumed"         // Config.AssumeReachable
)

// Reach is a verdict on one address of a relay.
type Reach struct {
	Addr      netip.AddrPort
	Verdict   Verdict
	Why       string    // it is Unreached, and what to do, or Unjudged
	At        time.Time // of the test
	Announced bool      // the descriptor has it
}

// tested is what is known of one address.
type tested struct {
	Reach
	next  time.Time // when to test it again
	fails int
}

// doors are a relay's addresses, and what it knows of them.
type doors struct {
	announced atomic.Pointer[announced] // never nil
	none      chan struct{}             // closed when an authority had no consensus
	once      sync.Once                 // closes none
	sooner    chan struct{}             // of one place: a test is due earlier than it was
	bind      bool                      // links for tests are to come from the address they are about, if it is this machine's

	mu    sync.Mutex
	of    map[netip.AddrPort]*tested // guarded by mu, as all below
	newer int                        // directories that came
	heard [2]time.Time               // when a link came by IPv4, and by IPv6
}

// announced are the addresses that the descriptor may have now.
type announced struct {
	of       []netip.AddrPort // what the settings have
	addrs    []netip.AddrPort // those of them where others reach the relay, or nobody can tell
	replaced chan struct{}    // closed when there are others
}

func (a *announced) same(b *announced) bool { return slices.Equal(a.addrs, b.addrs) }

// announcing waits until something may be announced by the settings in use; nil: ctx has ended.
func (r *Relay) announcing(ctx context.Context) *announced {
	for {
		a, s := r.doors.announced.Load(), r.settled.Load()
		if len(a.addrs) > 0 && slices.Equal(a.of, s.Addrs) {
			return a
		}
		select {
		case <-a.replaced:
		case <-s.replaced:
		case <-ctx.Done():
			return nil
		}
	}
}

// noDirectory hears why there is still no directory: where an authority says that there is none, or has none that may still be used, the
// network is young or was away for long, and it needs descriptors to begin.
func (r *Relay) noDirectory(err error) {
	var no *cache.StatusError
	var old *directory.TimeError
	if errors.As(err, &no) && no.Code == http.StatusNotFound || errors.As(err, &old) {
		r.doors.once.Do(func() { close(r.doors.none) })
	}
}

// newDirectory has the addresses tested soon that nobody could test: with another directory somebody may. Not at once, as all relays of a
// young network have it at the same time.
func (r *Relay) newDirectory() {
	r.doors.mu.Lock()
	defer r.doors.mu.Unlock()
	r.doors.newer++
	for _, t := range r.doors.of {
		if t.Verdict != Unjudged {
			continue
		}
		if soon := time.Now().Add(r.spread()); soon.Before(t.next) {
			t.next = soon
			select {
			case r.doors.sooner <- struct{}{}:
			default:
			}
		}
	}
}

// spread is how long after a new directory an address is tested.
func (r *Relay) spread() time.Duration {
	return time.Duration(r.chance(uint64(max(min(spreadTests, r.cfg.Network.WithDefaults().Period/2), 1))))
}

// heardFrom notes that a link came from an address.
func (r *Relay) heardFrom(a netip.Addr) {
	r.doors.mu.Lock()
	defer r.doors.mu.Unlock()
	r.doors.heard[family(a)] = time.Now()
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Reach is what is known of each address in the settings, in their order.
func (r *Relay) Reach() (all []Reach) {
	now := r.settled.Load()
	if now == nil { // an authority's node, which is in no descriptor
		return nil
	}
	told := r.doors.announced.Load().addrs
	r.doors.mu.Lock()
	defer r.doors.mu.Unlock()
	for _, at := range now.Addrs {
		one := Reach{Addr: at, Verdict: Untested}
		if t := r.doors.of[at]; t != nil {
			one = t.Reach
		}
		one.Announced = slices.Contains(told, at)
		all = append(all, one)
	}
	return all
}

// keepReached has others try the relay's addresses, before they are announced and when it has heard from nobody for long.
func (r *Relay) keepReached(ctx context.Context) {
	if !r.cfg.AssumeReachable {
		select {
		case <-r.informed:
		case <-r.doors.none:
		case <-ctx.Done():
			return
		}
	}
	for ctx.Err() == nil {
		s := r.settled.Load()
		if !r.guard("reachability", func() { r.testAll(ctx, s.Addrs) }) { // a bug of ours must not keep the relay out of the network
			r.announce(s.Addrs, s.Addrs)
		}
		select {
		case <-time.After(time.Until(r.nextTest(s.Addrs))):
		case <-r.doors.sooner:
		case <-s.replaced:
		case <-ctx.Done():
		}
	}
}

// nextTest is when the next test is due.
func (r *Relay) nextTest(addrs []netip.AddrPort) time.Time {
	r.doors.mu.Lock()
	defer r.doors.mu.Unlock()
	next := time.Now().Add(lastRetest)
	for _, at := range addrs {
		if t := r.doors.of[at]; t != nil && t.next.Before(next) {
			next = t.next
		}
	}
	return next
}

// testAll tests the addresses that are due, and announces those that may be.
func (r *Relay) testAll(ctx context.Context, addrs []netip.AddrPort) {
	var wg contain.Group
	r.doors.mu.Lock()
	by := r.doors.newer
	r.doors.mu.Unlock()
	for _, at := range r.due(addrs, time.Now()) {
		wg.Go(func(p *contain.Panic) {
			r.panicked("reachability", p)
			r.note(at, Unjudged, "a bug of this program kept it from being tested", by)
		}, func() {
			contain.Point("relay: reachability")
			v, why := r.test(ctx, at)
			if ctx.Err() == nil {
				r.note(at, v, why, by)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	before := r.doors.announced.Load().addrs
	r.doors.mu.Lock()
	var may []netip.AddrPort
	for _, at := range addrs {
		if t := r.doors.of[at]; slices.Contains(before, at) || t != nil && t.Verdict != Unreached {
			may = append(may, at)
		}
	}
	r.doors.mu.Unlock()
	r.announce(addrs, may)
}

// announce lets the descriptor have some of the addresses in the settings.
func (r *Relay) announce(of, addrs []netip.AddrPort) {
	now := r.doors.announced.Load()
	if slices.Equal(now.addrs, addrs) && slices.Equal(now.of, of) {
		return
	}
	r.doors.announced.Store(&announced{of, addrs, make(chan struct{})})
	close(now.replaced)
}

// silent is for how long no link may come before the relay is tested again.
func (r *Relay) silent() time.Duration {
	return max(leastSilent, 2*r.cfg.Network.WithDefaults().Period)
}

// due are the addresses to test now: not one that was reached and by whose family a link came lately. What is known of others is forgotten.
func (r *Relay) due(addrs []netip.AddrPort, now time.Time) (list []netip.AddrPort) {
	r.doors.mu.Lock()
	defer r.doors.mu.Unlock()
	maps.DeleteFunc(r.doors.of, func(at netip.AddrPort, _ *tested) bool { return !slices.Contains(addrs, at) })
	for _, at := range addrs {
		t := r.doors.of[at]
		if t != nil && t.Verdict == Reached {
			if heard := r.doors.heard[family(at.Addr())]; heard.Add(r.silent()).After(t.next) {
				t.next = heard.Add(r.silent())
			}
		}
		if t == nil || !t.next.After(now) {
			list = append(list, at)
		}
	}
	return list
}

// note keeps what came of a test, which began when so many directories had come, and tells the operator if that is news.
func (r *Relay) note(at netip.AddrPort, v Verdict, why string, by int) {
	now := time.Now()
	r.doors.mu.Lock()
	t := r.doors.of[at]
	if t == nil {
		t = &tested{Reach: Reach{Verdict: Untested}}
		r.doors.of[at] = t
	}
	was := t.Verdict
	t.Reach = Reach{Addr: at, Verdict: v, Why: why, At: r.cfg.Now()}
	switch v {
	case Unreached:
		t.next = now.Add(min(firstRetest<<min(t.fails, 8), lastRetest))
		t.fails++
	case Reached:
		t.next, t.fails = now.Add(r.silent()), 0
	default:
		t.next = now.Add(max(r.cfg.Network.WithDefaults().Period, firstRetest))
		if v == Unjudged && r.doors.newer != by { // with the directory that came meanwhile somebody may
			t.next = now.Add(r.spread())
		}
	}
	r.doors.mu.Unlock()
	switch {
	case v == was, v == Unreached && r.draining.Load(): // as it takes no links any more
	case v == Reached:
		r.log.Info("others reach this relay", "address", at)
	case v == Unreached && slices.Contains(r.doors.announced.Load().addrs, at):
		r.log.Warn("others do not reach this relay any more", "address", at, "why", why)
	case v == Unreached:
		r.log.Warn("others do not reach this relay: it does not announce the address until they do", "address", at, "why", why)
	case v == Unjudged:
		r.log.Info("nobody could test whether others reach this relay: it announces the address, and the authorities find out", "address", at, "why", why)
	}
}

// helpers are the relays of a consensus that may be asked about an address: others of other operators and networks that have such an
// address themselves. What is near may reach what others do not.
func (r *Relay) helpers(c *directory.Consensus, at netip.AddrPort) map[cell.NodeID]netip.AddrPort {
	own := r.settled.Load().Settings
	list := make(map[cell.NodeID]netip.AddrPort)
	for i := range c.Entries {
		e := &c.Entries[i]
		if e.ID == r.id || !e.Flags.Has(directory.Running|directory.Valid) || slices.Contains(e.Family, r.id) || slices.Contains(own.Family, e.ID) {
			continue
		}
		if slices.ContainsFunc(e.Addrs, func(a netip.AddrPort) bool {
			return slices.ContainsFunc(own.Addrs, func(o netip.AddrPort) bool { return directory.NetworkOf(a.Addr()) == directory.NetworkOf(o.Addr()) })
		}) {
			continue
		}
		for _, a := range e.Addrs {
			if family(a.Addr()) == family(at.Addr()) {
				list[e.ID] = a
			}
		}
	}
	return list
}

// test has others try one address.
func (r *Relay) test(ctx context.Context, at netip.AddrPort) (Verdict, string) {
	if r.cfg.AssumeReachable {
		return Assumed, "the configuration says so"
	}
	c, _, err := r.cache.Usable(r.cfg.Now())
	if err != nil {
		return r.testAlone(ctx, at, "the network has no directory yet, or none that still holds")
	}
	helpers := r.helpers(c, at)
	if len(helpers) < leastHelpers {
		return r.testAlone(ctx, at, fmt.Sprintf("%d relays are needed that have such an address, and are of other operators and networks; there are %d", leastHelpers, len(helpers)))
	}
	var t tally
	avoid := func(id cell.NodeID) bool { return !helpers[id].IsValid() }
	for _, n := range relaysAtATime {
		if t.no >= enoughNo || t.away >= enoughAway {
			break
		}
		var asks []func(context.Context) error
		for range n {
			if e := cache.Pick(c, avoid, r.chance); e != nil {
				door := helpers[e.ID]
				delete(helpers, e.ID)
				asks = append(asks, func(ctx context.Context) error { return r.askRelay(ctx, e, door, at) })
			}
		}
		if r.askAll(ctx, &t, asks) {
			return Reached, ""
		}
	}
	relays := t.no
	if relays >= enoughNo || t.away > 0 { // relays can lie, and try nothing but where one comes from; authorities have the last word anyway
		if r.askAll(ctx, &t, r.asksOfAuthorities(at)) {
			return Reached, ""
		}
		if relays >= enoughNo || t.no-relays >= min(enoughNoOf, len(r.cfg.Network.Authorities)) {
			return Unreached, t.remedy(at)
		}
	}
	return Unjudged, fmt.Sprintf("of the nodes that were asked, too few answered (%d did not reach it)", t.no)
}

// testAlone has authorities try an address that no relays can be asked about. If they do not reach it that is for the operator to know, but no
// verdict: they find out by themselves, and a network has to begin.
func (r *Relay) testAlone(ctx context.Context, at netip.AddrPort, why string) (Verdict, string) {
	var t tally
	if r.askAll(ctx, &t, r.asksOfAuthorities(at)) {
		return Reached, ""
	}
	if t.no > 0 {
		why += fmt.Sprintf("; authorities that tried it did not reach it (%d): %s", t.no, t.remedy(at))
	}
	return Unjudged, why
}

// asksOfAuthorities are so many of them to be asked about an address, drawn by chance.
func (r *Relay) asksOfAuthorities(at netip.AddrPort) (asks []func(context.Context) error) {
	as := slices.Clone(r.cfg.Network.Authorities)
	for i := len(as) - 1; i > 0; i-- {
		j := int(r.chance(uint64(i + 1)))
		as[i], as[j] = as[j], as[i]
	}
	for _, a := range as[:min(len(as), askedOfThose)] {
		asks = append(asks, func(ctx context.Context) error { return r.askAuthority(ctx, a, at) })
	}
	return asks
}

// A tally is what those who were asked said.
type tally struct {
	no, away int
	why      map[directory.Unreached]int
	seen     netip.Addr // where one of them sees the relay come from, which is not where it says it is
}

// errAway is of a node that sees the relay come from another address.
type errAway struct{ seen netip.Addr }

func (e *errAway) Error() string { return "relay: it is seen to come from another address" }

// add counts an answer. It says whether the relay was reached.
func (t *tally) add(err error) (reached bool) {
	var away *errAway
	var no *cache.StatusError
	switch {
	case err == nil:
		return true
	case errors.As(err, &away):
		t.away++
		t.seen = away.seen
	case errors.As(err, &no) && no.Code == http.StatusForbidden:
		t.away++
	case errors.As(err, &no) && no.Code == http.StatusFailedDependency:
		if u, err := directory.ParseUnreached(no.Text); err == nil {
			if t.why == nil {
				t.why = make(map[directory.Unreached]int)
			}
			t.no++
			t.why[u]++
		}
	}
	return false
}

// askAll asks all at a time and counts the answers, until one has reached the relay.
func (r *Relay) askAll(ctx context.Context, t *tally, asks []func(context.Context) error) (reached bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, len(asks))
	var wg contain.Group
	defer wg.Wait()
	for _, ask := range asks {
		wg.Go(func(p *contain.Panic) {
			r.panicked("reachability", p)
			answers <- p
		}, func() { answers <- ask(ctx) })
	}
	for range asks {
		if t.add(<-answers) {
			cancel()
			return true
		}
	}
	return false
}

// remedy says why an address is not reached, as most said, and what its operator can do.
func (t *tally) remedy(at netip.AddrPort) string {
	most := directory.UnreachedSilent
	for _, u := range []directory.Unreached{directory.UnreachedRefused, directory.UnreachedNoWay, directory.UnreachedOther} {
		if t.why[u] > t.why[most] {
			most = u
		}
	}
	if len(t.why) == 1 && t.why[directory.UnreachedNot] > 0 {
		most = directory.UnreachedNot
	}
	s := map[directory.Unreached]string{
		directory.UnreachedRefused: fmt.Sprintf("connections are refused: let TCP port %d through the firewall, or forward it on the router to where listen says", at.Port()),
		directory.UnreachedSilent:  fmt.Sprintf("nothing answers: let TCP port %d through the firewall of this machine and of its provider, or forward it on the router to where listen says", at.Port()),
		directory.UnreachedNoWay:   "no way leads there: is it the address of this machine, and does that have such an address at all? Else take it out of advertise",
		directory.UnreachedOther:   fmt.Sprintf("what answers there is not this relay: does another program have port %d, or does the router forward it to another machine or port?", at.Port()),
		directory.UnreachedNot:     fmt.Sprintf("let TCP port %d through the firewall of this machine and of its provider, or forward it on the router to where listen says", at.Port()),
	}[most]
	if t.seen.IsValid() {
		s += fmt.Sprintf("; others see this relay come from %v: if that is its address, say so in advertise", t.seen)
	}
	return s
}

// ask is what a node is asked.
func (r *Relay) ask(at netip.AddrPort) []byte {
	q := directory.ReachRequest{ID: r.id, LinkKey: cell.Key(r.cfg.Keys.Link.PublicKey().Bytes()), Addr: at}
	return q.Append(nil)
}

// askRelay asks a relay, as a client would, over a link of its own to one of its addresses: nil: it reached us.
func (r *Relay) askRelay(ctx context.Context, e *directory.Entry, door, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	pool := link.NewPool(link.PoolConfig{Link: link.Config{Network: r.network, Log: r.log, Now: r.cfg.Now, Panicked: r.bug("a link")}, Dial: r.dialFrom(at.Addr())})
	defer pool.Close()
	lc, err := pool.Get(ctx, link.Peer{ID: e.ID, Key: e.LinkKey, Addrs: []netip.AddrPort{door}})
	if err != nil {
		return err
	}
	if seen := lc.Observed(); seen.IsValid() && seen != at.Addr() {
		return &errAway{seen}
	}
	hop := circuit.Hop{ID: e.ID, LinkKey: e.LinkKey, OnionKey: e.OnionKey, Addrs: e.Addrs}
	return cache.Post(ctx, func(ctx context.Context) (net.Conn, error) {
		return circuit.DialDirectory(ctx, lc, circuit.Config{Network: r.network, Log: r.log, Panicked: r.bug("a circuit")}, hop)
	}, authority.PathReach, r.ask(at))
}

// askAuthority asks an authority: nil: it reached us.
func (r *Relay) askAuthority(ctx context.Context, a directory.AuthorityInfo, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return cache.Post(ctx, func(ctx context.Context) (net.Conn, error) { return r.dialAuthority(ctx, a) }, authority.PathReach, r.ask(at))
}

// dialFrom dials from an address, if this machine has it: a machine with several would come from another one else.
func (r *Relay) dialFrom(from netip.Addr) func(context.Context, string, string) (net.Conn, error) {
	if !r.doors.bind {
		return r.cfg.Dial
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		nc, err := d.DialContext(ctx, network, addr)
		var at *net.OpError
		if errors.As(err, &at) && ctx.Err() == nil && !at.Timeout() {
			return r.cfg.Dial(ctx, network, addr)
		}
		return nc, err
	}
}
