package admin

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"peel/cmd/peel/internal/page"
)

// What a node remembers of itself (spec/admin.md, section 6).
const (
	lookEvery  = 10 * time.Second
	fineSlots  = 360 // of 10 s: an hour
	coarseSpan = 5 * time.Minute
	coarse     = 576 // of 5 min: two days
	mostSeries = 64
)

// value is one of a series; NaN: there is none.
type value float32

func (v value) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(v), 'g', 5, 32), nil
}

var none = value(math.NaN())

// A track is a ring of slots of one length; a slot has the mean of what was seen in it. It has no clock.
type track struct {
	every  int64 // seconds
	slots  int
	newest int64 // slot, in every since 1970; 0: nothing was seen
	rows   map[string][]value
	seen   map[string]int // of the newest slot, how often
}

func newTrack(every time.Duration, slots int) *track {
	return &track{every: int64(every / time.Second), slots: slots, rows: make(map[string][]value), seen: make(map[string]int)}
}

func (t *track) at(slot int64) int { return int(slot % int64(t.slots)) }

// reach makes the slot of a time the newest. Those that were skipped have nothing; when the clock was set back, those after it lose
// what they had.
func (t *track) reach(unix int64) {
	slot := unix / t.every
	if slot == t.newest {
		return
	}
	from, to := t.newest+1, slot
	if slot < t.newest {
		from, to = slot, t.newest
	}
	if t.newest == 0 || to-from >= int64(t.slots) {
		from, to = slot, slot+int64(t.slots)-1 // all of them
	}
	for s := from; s <= to; s++ {
		for _, row := range t.rows {
			row[t.at(s)] = none
		}
	}
	t.newest = slot
	clear(t.seen)
}

// add takes what was seen at a time.
func (t *track) add(unix int64, seen map[string]float64) {
	t.reach(unix)
	for name, v := range seen {
		row := t.rows[name]
		if row == nil {
			if len(t.rows) == mostSeries {
				continue
			}
			row = slices.Repeat([]value{none}, t.slots)
			t.rows[name] = row
		}
		n, i := t.seen[name], t.at(t.newest)
		if n == 0 {
			row[i] = value(v)
		} else {
			row[i] += (value(v) - row[i]) / value(n+1)
		}
		t.seen[name] = n + 1
	}
}

// Past is what GET /history answers: series of the same length, the last value of each that of the slot that begins at Newest.
type Past struct {
	Every  int64    `json:"every"`  // seconds
	Newest int64    `json:"newest"` // when the newest slot began, in seconds since 1970
	Series []Series `json:"series"`
}

// Series is how one metric went, or its rate a second if it only rises.
type Series struct {
	Metric string  `json:"metric"`
	Value  string  `json:"value,omitempty"` // of the label
	Values []value `json:"values"`          // null: nothing is known of that time
}

// past is all of a track, from the first slot of which something is known.
func (t *track) past() Past {
	p := Past{Every: t.every, Newest: t.newest * t.every, Series: []Series{}}
	first := t.slots
	for name, row := range t.rows {
		s := Series{Values: make([]value, t.slots)}
		s.Metric, s.Value, _ = strings.Cut(name, " ")
		for i := range s.Values {
			v := row[t.at(t.newest-int64(t.slots-1-i)+int64(t.slots))]
			if s.Values[i] = v; v == v && i < first {
				first = i
			}
		}
		p.Series = append(p.Series, s)
	}
	for i := range p.Series {
		p.Series[i].Values = p.Series[i].Values[first:]
	}
	slices.SortFunc(p.Series, func(a, b Series) int {
		return strings.Compare(a.Metric+" "+a.Value, b.Metric+" "+b.Value)
	})
	return p
}

// history remembers how metrics went. It has no clock and no lock.
type history struct {
	hour, days *track
	last       map[string]float64 // of what only rises
	when       int64
}

func newHistory() *history {
	return &history{hour: newTrack(lookEvery, fineSlots), days: newTrack(coarseSpan, coarse), last: make(map[string]float64)}
}

// look takes what metrics show at a time. What only rises is kept as its rate a second since the last look.
func (h *history) look(unix int64, shown, risen map[string]float64) {
	seen := make(map[string]float64, len(shown)+len(risen))
	for name, v := range shown {
		seen[name] = v
	}
	for name, v := range risen {
		if was, ok := h.last[name]; ok && v >= was && unix > h.when {
			seen[name] = (v - was) / float64(unix-h.when)
		}
	}
	h.last, h.when = risen, unix
	h.hour.add(unix, seen)
	h.days.add(unix, seen)
}

// see looks at the metrics that are kept, as /metrics shows them.
func (s *Server) see(now time.Time) {
	shown, risen := make(map[string]float64), make(map[string]float64)
	for _, m := range s.Metrics() {
		if !m.Keep {
			continue
		}
		into := shown
		if m.Rise {
			into = risen
		}
		if m.Label == "" {
			into[m.Name] = m.rounded(m.Value())
			continue
		}
		for label, v := range m.Values() {
			if len(label) <= mostValue {
				into[m.Name+" "+label] = m.rounded(v)
			}
		}
	}
	s.remembered.Lock()
	defer s.remembered.Unlock()
	s.history.look(now.Unix(), shown, risen)
}

// remember looks again and again, until ctx ends.
func (s *Server) remember(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		s.see(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// historyHandler answers GET /history?span=hour|days.
func (s *Server) historyHandler(w http.ResponseWriter, r *http.Request) {
	s.remembered.Lock()
	defer s.remembered.Unlock()
	var p Past
	switch r.URL.Query().Get("span") {
	case "", "hour":
		p = s.history.hour.past()
	case "days":
		p = s.history.days.past()
	default:
		page.Fail(w, http.StatusBadRequest, "span is hour or days")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(p)
}
