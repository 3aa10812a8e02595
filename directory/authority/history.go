package authority

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"peel/cell"
)

// How presence is remembered (spec/voting.md, section 5). What stands in days is for periods of an
// hour, and as many periods in every network.
const (
	decayDays  = 9.75   // after which what was counts by 1/e: 5 % less in half a day
	maxRecords = 40_000 // relays remembered; beyond, those with the least uptime are forgotten
	downPart   = 0.75   // of a period without being reached ends a run
)

// history remembers how much of the time relays were there, and for how long at a stretch. It keeps a
// clock of its own that stands still while no relay at all is reached, so that neither our own
// absence nor a clock that was set counts against anybody. Its owner locks it.
type history struct {
	period  time.Duration
	wall    time.Time // when a relay was last reached, zero: never
	clock   float64   // seconds watched until then
	records map[cell.NodeID]*record
	full    int // records, at most
}

// record is what is remembered of one relay, as of last.
type record struct {
	first   float64 // when it was first reached; all in seconds of the history's clock
	began   float64 // the run under way
	last    float64 // when it was last reached
	up, all float64 // seconds that it was there, and since first, each weighing less the older it is
	runs    float64 // seconds of all runs that are over, weighed so
	ended   float64 // their number, weighed so
}

// standing is what history says of a relay.
type standing struct {
	Uptime float64       // share of the time since it is known that it was there, 0 to 1, of late more than of old
	Run    time.Duration // mean length of its runs
	Known  time.Duration // since it was first reached
}

func newHistory(period time.Duration) *history {
	return &history{period: period, records: map[cell.NodeID]*record{}, full: maxRecords}
}

// scaled returns so many days, or as many periods as they have hours.
func scaled(period time.Duration, days float64) time.Duration {
	return time.Duration(days * 24 * float64(period))
}

func (h *history) downAfter() float64 { return downPart * h.period.Seconds() }

func (h *history) tau() float64 { return scaled(h.period, decayDays).Seconds() }

// at returns the history's clock at now. It goes on for half of what ends a run, and then stands
// still until a relay is reached.
func (h *history) at(now time.Time) float64 {
	passed := now.Sub(h.wall).Seconds()
	if h.wall.IsZero() || passed < 0 || passed > h.downAfter()/2 {
		return h.clock
	}
	return h.clock + passed
}

// reached notes that a relay was reached.
func (h *history) reached(id cell.NodeID, now time.Time) {
	h.clock, h.wall = h.at(now), now
	r := h.records[id]
	if r == nil {
		if len(h.records) >= h.full {
			h.forget()
		}
		h.records[id] = &record{first: h.clock, began: h.clock, last: h.clock}
		return
	}
	r.advance(h.clock, h)
	r.last = h.clock
}

// advance brings a record up to a moment: what has passed since last counts as time that the relay
// was there, unless that is so long that its run ended at last.
func (r *record) advance(clock float64, h *history) {
	passed := clock - r.last
	if passed <= 0 {
		return
	}
	tau := h.tau()
	if passed > h.downAfter() {
		r.runs += r.last - r.began
		r.ended++
		r.began = clock // if it is there again
		r.decay(passed, tau)
		return
	}
	r.decay(passed, tau)
	r.up += tau * -math.Expm1(-passed/tau)
}

// decay lets time pass in which the relay was not there.
func (r *record) decay(passed, tau float64) {
	f := math.Exp(-passed / tau)
	r.up *= f
	r.all = r.all*f + tau*-math.Expm1(-passed/tau)
	r.runs *= f
	r.ended *= f
}

// of returns the standing of a relay.
func (h *history) of(id cell.NodeID, now time.Time) standing {
	r := h.records[id]
	if r == nil {
		return standing{}
	}
	clock := h.at(now)
	c := *r
	c.advance(clock, h)
	s := standing{Known: seconds(clock - c.first)}
	if c.all > 0 {
		s.Uptime = min(1, c.up/c.all)
	} else {
		s.Uptime = 1 // reached just now
	}
	if clock-r.last <= h.downAfter() {
		s.Run = seconds((c.runs + clock - c.began) / (c.ended + 1))
	} else if c.ended > 0 {
		s.Run = seconds(c.runs / c.ended)
	}
	return s
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// forget drops an eighth of the records: those of relays that are not there first, and of these, as of
// the others, those with the least uptime. So new identities, however many, push out each other.
func (h *history) forget() {
	type one struct {
		id    cell.NodeID
		there bool
		up    float64
	}
	all := make([]one, 0, len(h.records))
	for id, r := range h.records {
		there := h.clock-r.last <= h.downAfter()
		c := *r
		c.advance(h.clock, h)
		all = append(all, one{id, there && c.up > h.downAfter(), c.up})
	}
	slices.SortFunc(all, func(a, b one) int {
		if a.there != b.there {
			if b.there {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.up, b.up), compareID(&a.id, &b.id))
	})
	for _, o := range all[:max(1, len(all)/8)] {
		delete(h.records, o.id)
	}
}

const historyTop = "peel-history 1"

// bytes writes the history as text: a line for the clock, and one for each relay.
func (h *history) bytes() []byte {
	number := func(b []byte, v float64) []byte { return strconv.AppendFloat(append(b, ' '), v, 'f', 6, 64) }
	b := append(make([]byte, 0, 128*len(h.records)+64), historyTop...)
	b = strconv.AppendInt(append(b, ' '), h.wall.Unix(), 10)
	b = append(number(b, h.clock), '\n')
	ids := make([]cell.NodeID, 0, len(h.records))
	for id := range h.records {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b cell.NodeID) int { return compareID(&a, &b) })
	for _, id := range ids {
		r := h.records[id]
		b = append(b, id.String()...)
		for _, v := range [...]float64{r.first, r.began, r.last, r.up, r.all, r.runs, r.ended} {
			b = number(b, v)
		}
		b = append(b, '\n')
	}
	return b
}

// load takes in what bytes wrote, all of it or, with an error, nothing.
func (h *history) load(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	records := map[cell.NodeID]*record{}
	var wall time.Time
	var clock float64
	n := 0
	for line := range bytes.Lines(text) {
		n++
		f := bytes.Fields(line)
		bad := func(err error) error { return fmt.Errorf("authority: history, line %d: %w", n, err) }
		if n == 1 {
			if len(f) != 4 || string(f[0])+" "+string(f[1]) != historyTop {
				return bad(errors.New("not a history of this version"))
			}
			unix, err := strconv.ParseInt(string(f[2]), 10, 64)
			if err != nil {
				return bad(err)
			}
			if clock, err = amount(f[3]); err != nil {
				return bad(err)
			}
			if wall = time.Unix(unix, 0); unix < 0 {
				wall = time.Time{} // nobody was reached yet
			}
			continue
		}
		if len(f) != 8 || len(records) == h.full || line[len(line)-1] != '\n' {
			return bad(fmt.Errorf("want an identity and 7 numbers, and at most %d of them", h.full))
		}
		id, err := cell.ParseNodeID(string(f[0]))
		if err != nil {
			return bad(err)
		}
		r := &record{}
		for i, to := range [...]*float64{&r.first, &r.began, &r.last, &r.up, &r.all, &r.runs, &r.ended} {
			if *to, err = amount(f[i+1]); err != nil {
				return bad(err)
			}
		}
		if r.first > r.began || r.began > r.last || r.last > clock || r.up > r.all+1 {
			return bad(errors.New("times out of order"))
		}
		records[id] = r
	}
	h.records, h.wall, h.clock = records, wall, clock
	return nil
}

// amount parses a number of seconds that a history may have: not negative, finite.
func amount(b []byte) (float64, error) {
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return 0, err
	}
	if !(v >= 0 && v < 1e12) {
		return 0, fmt.Errorf("%v is out of bounds", v)
	}
	return v, nil
}
