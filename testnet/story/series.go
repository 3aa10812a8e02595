package story

import (
	"slices"
	"time"
)

// mostPoints is how long the curves may be: when they are full, two points become one, and each new one takes twice the time.
const mostPoints = 600

// mostRates is how many of its last rates a node keeps.
const mostRates = 60

// Series are curves over the whole run, one value a point. A point stands for what came since the one before.
type Series struct {
	T         []float64  `json:"t"`          // seconds since 1970
	Cells     []float64  `json:"cells"`      // cells a second, at all nodes together
	In        []float64  `json:"in"`         // bytes a second that reached the clients' circuits
	Out       []float64  `json:"out"`        // and that left them
	FirstByte []*float64 `json:"first_byte"` // median of the downloads that ended, in milliseconds; null: none did
	Failed    []float64  `json:"failed"`     // downloads that failed
}

// series makes the curves.
type series struct {
	Series
	every  int // samples a point
	have   int // samples in the one being made
	sums   [3]float64
	firsts []float64
	failed float64
	last   time.Time
}

func (s *series) begin(at time.Time) { s.every, s.last = 1, at }

func (s *series) downloaded(d Download) {
	if d.Err != "" {
		s.failed++
	}
	if d.FirstByte > 0 && len(s.firsts) < mostDownloads {
		s.firsts = append(s.firsts, float64(d.FirstByte)/1e6)
	}
}

// add takes one sample in: so much a second.
func (s *series) add(at time.Time, cells, in, out float64) {
	for i, v := range []float64{cells, in, out} {
		s.sums[i] += v
	}
	if s.have++; s.have < s.every {
		return
	}
	n := float64(s.have)
	s.T = append(s.T, float64(at.UnixMilli())/1000)
	s.Cells, s.In, s.Out = append(s.Cells, s.sums[0]/n), append(s.In, s.sums[1]/n), append(s.Out, s.sums[2]/n)
	s.FirstByte, s.Failed = append(s.FirstByte, median(s.firsts)), append(s.Failed, s.failed)
	s.sums, s.have, s.firsts, s.failed = [3]float64{}, 0, s.firsts[:0], 0
	if len(s.T) < mostPoints {
		return
	}
	s.every *= 2
	mean := func(a, b float64) float64 { return (a + b) / 2 }
	s.T = halve(s.T, func(_, b float64) float64 { return b })
	s.Cells, s.In, s.Out = halve(s.Cells, mean), halve(s.In, mean), halve(s.Out, mean)
	s.Failed = halve(s.Failed, func(a, b float64) float64 { return a + b })
	s.FirstByte = halve(s.FirstByte, func(a, b *float64) *float64 {
		switch {
		case a == nil:
			return b
		case b == nil:
			return a
		}
		m := mean(*a, *b)
		return &m
	})
}

func halve[T any](all []T, join func(a, b T) T) []T {
	for i := range len(all) / 2 {
		all[i] = join(all[2*i], all[2*i+1])
	}
	return all[:len(all)/2]
}

func median(all []float64) *float64 {
	if len(all) == 0 {
		return nil
	}
	all = slices.Sorted(slices.Values(all))
	m := (all[(len(all)-1)/2] + all[len(all)/2]) / 2
	return &m
}

func (s Series) clone() Series {
	return Series{
		append([]float64{}, s.T...), append([]float64{}, s.Cells...), append([]float64{}, s.In...), append([]float64{}, s.Out...),
		append([]*float64{}, s.FirstByte...), append([]float64{}, s.Failed...),
	}
}

// counter makes rates of a running total that may begin anew.
type counter struct{ before uint64 }

// rate is what came a second. A total that is smaller than before has begun anew.
func (c *counter) rate(total uint64, span float64) float64 {
	came := total
	if total >= c.before {
		came = total - c.before
	}
	c.before = total
	return float64(came) / span
}

// Carried says how many cells a node has carried since it was started.
func (s *Story) Carried(node string, cells uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.nodes[node]; t != nil {
		t.Cells = cells
	}
}

// longestBuild is when a circuit that is being built is taken to have failed: its client may have ended.
const longestBuild = 5 * time.Minute

// cellBytes is what one cell carries of a stream, at most.
const cellBytes = 1382

// Sample makes rates and the next point of the curves of what was told since the last time.
func (s *Story) Sample(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	span := at.Sub(s.series.last).Seconds()
	if span <= 0 || s.over {
		return
	}
	s.series.last, s.now = at, at
	var cells, in, out float64
	for _, t := range s.nodes {
		t.Rate = t.cells.rate(t.Cells, span)
		t.rates = keep(append(t.rates, t.Rate), mostRates)
		cells += t.Rate
	}
	for k, c := range s.circuits {
		if c.State == Building && at.Sub(c.Begun) > longestBuild {
			s.end(at, k, c, Failed, "nobody told what became of it")
		}
		o, i := c.sent.rate(c.Sent, span), c.got.rate(c.Received, span)
		if c.Ended == nil {
			c.Out, c.In = o, i
		}
		in += i * cellBytes
		out += o * cellBytes
	}
	s.series.add(at, cells, in, out)
}
