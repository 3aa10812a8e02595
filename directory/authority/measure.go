package authority

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"peel/cell"
	"peel/directory"
)

// How relays are measured (spec/bandwidth.md).
const (
	samplesKept   = 5   // of each place of a relay in a path
	samplesNeeded = 3   // before they count
	sampleDays    = 5   // after which a sample is too old; as in vote.go, for periods of an hour
	restPeriods   = 4   // of a relay that has enough samples one in so many periods brings one more
	bestPart      = 3   // who goes with the fastest relays: one in so many
	leastPartners = 3   // or so many, if these are more
	fairPartner   = 1.4 // times a sample's rate that a partner has proven, if it is not of these
	partnerDraws  = 32  // before a relay is left out of a period

	leastProbe = 64 << 10 // bytes of one measurement
	mostProbe  = 32 << 20 // at most; a relay serves no more (spec/bandwidth.md, section 2)
)

// A seat is where in a path the relay stands that is measured.
type seat uint8

const (
	seatFirst  seat = iota // of two: it sees who measures, but not that he does
	seatMiddle             // of three: it sees two relays
	seats
)

// sample is what one measurement found.
type sample struct {
	rate uint64 // bytes per second; 0: it failed, and this relay may be why
	at   time.Time
}

// samples is what was measured of all relays. Its owner locks it.
type samples struct {
	period time.Duration
	relays map[cell.NodeID]*track
	full   int // relays, at most
}

// track is what was measured of one relay.
type track struct {
	samples [seats][]sample // the oldest first
	proven  sample          // the most that came through it, whomever it was for
}

func newSamples(period time.Duration) *samples {
	return &samples{period: period, relays: map[cell.NodeID]*track{}, full: maxRelays}
}

// track returns the track of a relay, a new one if need be; nil when there is no place for another.
func (s *samples) track(id cell.NodeID) *track {
	r := s.relays[id]
	if r == nil && len(s.relays) < s.full {
		r = new(track)
		s.relays[id] = r
	}
	return r
}

// proven returns the most that came through a relay lately, bytes per second.
func (s *samples) proven(id cell.NodeID) uint64 {
	if r := s.relays[id]; r != nil {
		return r.proven.rate
	}
	return 0
}

// add takes in a sample of a relay.
func (s *samples) add(id cell.NodeID, from seat, found sample) {
	r := s.track(id)
	if r == nil {
		return
	}
	list := append(r.samples[from], found)
	if len(list) > samplesKept {
		list = slices.Delete(list, 0, 1)
	}
	r.samples[from] = list
}

// take takes in what a probe found. It proves something of all relays of the path. It is a sample of
// the one that was measured unless another may have been the slowest; false: then it is none.
func (s *samples) take(p *probe, rate uint64, now time.Time) bool {
	found := sample{min(rate, directory.MaxBandwidth), now}
	fair := true
	for i, e := range p.path {
		fair = fair && (i == p.target || p.best || float64(s.proven(e.ID)) >= fairPartner*float64(rate))
	}
	for _, e := range p.path {
		if r := s.track(e.ID); r != nil && found.rate >= r.proven.rate {
			r.proven = found
		}
	}
	if fair {
		s.add(p.path[p.target].ID, p.seat, found)
	}
	return fair
}

// expire forgets what is too old, or of a time to come.
func (s *samples) expire(now time.Time) {
	old := func(x sample) bool {
		age := now.Sub(x.at)
		return age > scaled(s.period, sampleDays) || age < -s.period
	}
	for id, r := range s.relays {
		left := 0
		for i := range r.samples {
			r.samples[i] = slices.DeleteFunc(r.samples[i], old)
			left += len(r.samples[i])
		}
		if old(r.proven) {
			r.proven = sample{}
			// What is still known of it proves as much.
			for _, x := range slices.Concat(r.samples[:]...) {
				if x.rate > r.proven.rate {
					r.proven = x
				}
			}
		}
		if left == 0 && r.proven.rate == 0 {
			delete(s.relays, id)
		}
	}
}

// estimate returns a relay's bandwidth, 0 when too little is known: the median of its samples as the
// first relay of a path or of those as a middle one, whichever is less. So a relay that is fast only
// for those whom it takes for a measurer gains nothing.
func (s *samples) estimate(id cell.NodeID) uint64 {
	r := s.relays[id]
	if r == nil {
		return 0
	}
	least, enough := uint64(math.MaxUint64), false
	var all []uint64
	for _, list := range r.samples {
		var rates []uint64
		for _, x := range list {
			rates = append(rates, x.rate)
		}
		all = append(all, rates...)
		if len(rates) >= samplesNeeded {
			least, enough = min(least, lowMedian(rates)), true
		}
	}
	if enough {
		return max(1, least)
	}
	if len(all) >= samplesNeeded {
		return max(1, lowMedian(all))
	}
	return 0
}

// lacks says from which places a relay should be measured now: from each of those of which it has too
// few samples, and from all where it once carried far more than it is thought to, since it was then held up by
// others, or is unsteady. A relay that lacks nothing is measured now and then, where that was longest ago.
func (s *samples) lacks(id cell.NodeID, rng func(uint64) uint64) (list []seat) {
	r := s.relays[id]
	if r == nil {
		r = new(track)
	}
	doubtful := s.estimate(id) < r.proven.rate/2
	oldest, when := seatFirst, time.Time{}
	for from, have := range r.samples {
		if len(have) < samplesKept || doubtful {
			list = append(list, seat(from))
			continue
		}
		if last := have[len(have)-1].at; when.IsZero() || last.Before(when) {
			oldest, when = seat(from), last
		}
	}
	if len(list) == 0 && rng(restPeriods) == 0 {
		list = append(list, oldest)
	}
	return list
}

// A probe is a measurement to be made: data of a length over a path, the last relay of which serves it.
type probe struct {
	at     time.Time
	path   []*directory.Entry
	target int // which of the path is measured
	seat   seat
	best   bool // the others are of the fastest third
	bytes  int64
}

// plan makes the probes of the time from from to to: of each relay that lacks samples, and of some
// of the others, at a moment of its own. rng(n) returns a number below n. A relay is measured together
// with such as have proven to be no slower, or of the fastest third, drawn by what they have proven.
func (s *samples) plan(c *directory.Consensus, from, to time.Time, rng func(uint64) uint64) []probe {
	s.expire(from)
	if !to.After(from) {
		return nil
	}
	var list []proven
	known := 0
	for i := range c.Entries {
		e := &c.Entries[i]
		if !e.Flags.Has(directory.Running|directory.Valid) || len(e.Addrs) == 0 {
			continue
		}
		p := proven{e, s.proven(e.ID)}
		if p.rate > 0 {
			known++
		}
		list = append(list, p)
	}
	slices.SortStableFunc(list, func(a, b proven) int { return cmp.Compare(b.rate, a.rate) })
	best := min(len(list), max(len(list)/bestPart, leastPartners+1))
	sums := make([]uint64, len(list)+1)
	for i, p := range list {
		sums[i+1] = sums[i] + p.rate + 1
	}
	subnets := c.Params.Get(directory.ParamDistinctSubnets) != 0
	var probes []probe
	for i, x := range list {
		for _, seat := range s.lacks(x.entry.ID, rng) {
			p := probe{
				at: from.Add(time.Duration(rng(uint64(to.Sub(from))))), path: []*directory.Entry{x.entry}, seat: seat,
				best: 2*known >= len(list),
			}
			pool := max(best, i) // so many, from the fastest on
			for draws := 0; len(p.path) < 2+int(seat) && draws < partnerDraws; draws++ {
				at := rng(sums[pool])
				k := sort.Search(pool, func(k int) bool { return sums[k+1] > at })
				e := list[k].entry
				if !slices.ContainsFunc(p.path, func(o *directory.Entry) bool { return together(e, o, subnets) }) {
					p.path = append(p.path, e)
					p.best = p.best && k < best && list[k].rate > 0
				}
			}
			if len(p.path) < 2+int(seat) {
				continue // it goes with nobody: all are of its family or network
			}
			if seat == seatMiddle {
				p.path[0], p.path[1] = p.path[1], p.path[0]
				p.target = 1
			}
			// What it carries in half a second to two, as likely to be less than one as more.
			spread := math.Exp2(float64(rng(2001))/1000 - 1)
			value := cmp.Or(s.estimate(x.entry.ID), x.rate, x.entry.Bandwidth)
			p.bytes = int64(max(leastProbe, min(mostProbe, float64(value)*spread)))
			probes = append(probes, p)
		}
	}
	slices.SortStableFunc(probes, func(a, b probe) int { return a.at.Compare(b.at) })
	return probes
}

// proven is a relay and the most that came through it, bytes per second.
type proven struct {
	entry *directory.Entry
	rate  uint64
}

// together reports whether no client would have both relays in a path, so that neither should see it.
func together(a, b *directory.Entry, subnets bool) bool {
	if a.ID == b.ID || slices.Contains(a.Family, b.ID) && slices.Contains(b.Family, a.ID) {
		return true
	}
	return subnets && slices.ContainsFunc(a.Addrs, func(x netip.AddrPort) bool {
		return slices.ContainsFunc(b.Addrs, func(y netip.AddrPort) bool { return directory.NetworkOf(x.Addr()) == directory.NetworkOf(y.Addr()) })
	})
}

// A HopError says that a measurement failed at one of the relays From to To of its path; which of
// them is at fault cannot be told.
type HopError struct {
	From, To int
	Err      error
}

func (e *HopError) Error() string { return fmt.Sprintf("relays %d to %d: %v", e.From+1, e.To+1, e.Err) }

func (e *HopError) Unwrap() error { return e.Err }

// failure is a probe that failed.
type failure struct {
	probe *probe
	err   error
	at    time.Time
}

// blames reports whether the relay that was measured may be why.
func (f *failure) blames() bool {
	var hop *HopError
	return errors.As(f.err, &hop) && hop.From <= f.probe.target && f.probe.target <= hop.To
}

// takeFailed notes which of the probes made in one period failed. Where the relay may be why, that
// counts against it, so that it gains nothing from refusing to be measured; but not when most
// failed, which is more likely our own doing: then it returns false.
func (s *samples) takeFailed(failed []failure, made int) bool {
	if 2*len(failed) > made {
		return false
	}
	for _, f := range failed {
		if f.blames() {
			s.add(f.probe.path[f.probe.target].ID, f.probe.seat, sample{0, f.at})
		}
	}
	return true
}

const samplesTop = "peel-measured 1\n"

// bytes writes the samples as text, a line for each relay: its identity, then place:rate@time of
// each sample, the place behind the last for what is proven.
func (s *samples) bytes() []byte {
	ids := make([]cell.NodeID, 0, len(s.relays))
	for id := range s.relays {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b cell.NodeID) int { return compareID(&a, &b) })
	b := []byte(samplesTop)
	for _, id := range ids {
		r := s.relays[id]
		b = append(b, id.String()...)
		for i, list := range append(r.samples[:], []sample{r.proven}) {
			for _, x := range list {
				b = fmt.Appendf(b, " %d:%d@%d", i, x.rate, max(0, x.at.Unix()))
			}
		}
		b = append(b, '\n')
	}
	return b
}

// load takes in what bytes wrote, all of it or, with an error, nothing.
func (s *samples) load(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	rest, ok := bytes.CutPrefix(text, []byte(samplesTop))
	if !ok {
		return errors.New("authority: measurements: not of this version")
	}
	read := newSamples(s.period)
	n := 1
	for line := range bytes.Lines(rest) {
		n++
		if err := read.loadLine(string(line)); err != nil {
			return fmt.Errorf("authority: measurements, line %d: %w", n, err)
		}
	}
	s.relays = read.relays
	return nil
}

func (s *samples) loadLine(line string) error {
	f := strings.Fields(line)
	if len(f) < 2 || len(f) > 2+int(seats)*samplesKept || !strings.HasSuffix(line, "\n") {
		return errors.New("want an identity and what was measured")
	}
	id, err := cell.ParseNodeID(f[0])
	if err != nil {
		return err
	}
	if s.relays[id] != nil || len(s.relays) >= s.full {
		return errors.New("a relay is there twice, or there are too many")
	}
	r := s.track(id)
	for _, word := range f[1:] {
		from, x, err := parseSample(word)
		switch {
		case err != nil:
			return err
		case from == seats:
			r.proven = x
		case len(r.samples[from]) == samplesKept:
			return errors.New("too many of one place")
		default:
			r.samples[from] = append(r.samples[from], x)
		}
	}
	return nil
}

func parseSample(word string) (seat, sample, error) {
	from, rest, _ := strings.Cut(word, ":")
	rate, at, _ := strings.Cut(rest, "@")
	n, err := strconv.ParseUint(from, 10, 8)
	if err == nil && n > uint64(seats) {
		err = fmt.Errorf("there is no place %d", n)
	}
	r, err2 := strconv.ParseUint(rate, 10, 41)
	unix, err3 := strconv.ParseInt(at, 10, 40)
	return seat(n), sample{r, time.Unix(unix, 0)}, errors.Join(err, err2, err3)
}
