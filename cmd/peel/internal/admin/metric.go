package admin

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"peel/cmd/peel/internal/page"
)

// Metric is a number, or a family of them by one label, that a node shows.
type Metric struct {
	Name string // peel_…, in the manner of Prometheus: the unit last, counters end in _total
	Help string
	Rise bool // a counter, which only rises; else a gauge

	// Round is the step that values are rounded down to, so that one person's doings do not show. 0 shows them as they are:
	// only for what nobody's traffic moves.
	Round float64

	Keep bool // in the history; then Round says how much of the last two days shows

	Label  string                    // one of Labels; "": none, and then Value counts
	Value  func() float64            // called by many goroutines at any time
	Values func() map[string]float64 // by value of the label

	// Bounds, in order, and Classes make a histogram, without Label, Value and Values: Classes are how many were at most each
	// bound and more than the one before, then those beyond all, and the sum of all. Round is that of the counts.
	Bounds  []float64
	Classes func() (counts []uint64, sum float64)
}

// Labels are those there may be. None says who or where; the values of each come from a list in the code or the network file.
var Labels = []string{"authority", "direction", "document", "flag", "key", "kind", "phase", "queue", "reason", "result", "stage"}

const (
	mostValues = 64 // of a label; the rest is left out
	mostValue  = 64 // bytes of one
)

var metricName = regexp.MustCompile(`^peel_[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// Metric adds numbers to /metrics. A name or label that the rules of the house do not allow, or a name that is there, is a mistake
// in the program: it panics.
func (s *Server) Metric(all ...Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range all {
		if err := m.check(); err != nil {
			panic(fmt.Sprintf("admin: metric %q: %v", m.Name, err))
		}
		if slices.ContainsFunc(s.metrics, func(o Metric) bool { return o.Name == m.Name }) {
			panic(fmt.Sprintf("admin: metric %q is there twice", m.Name))
		}
		s.metrics = append(s.metrics, m)
	}
}

func (m *Metric) check() error {
	switch {
	case !metricName.MatchString(m.Name):
		return fmt.Errorf("the name is not as %v", metricName)
	case m.Help == "":
		return fmt.Errorf("no help")
	case m.Rise != strings.HasSuffix(m.Name, "_total"):
		return fmt.Errorf("the names of counters, and of nothing else, end in _total")
	case m.Bounds != nil:
		if m.Classes == nil || m.Value != nil || m.Values != nil || m.Label != "" || m.Rise || m.Keep || !slices.IsSorted(m.Bounds) {
			return fmt.Errorf("a histogram has Bounds and Classes, and nothing else")
		}
	case m.Label == "" && (m.Value == nil || m.Values != nil), m.Label != "" && (m.Values == nil || m.Value != nil):
		return fmt.Errorf("a Value goes without a label, Values with one")
	case m.Label != "" && !slices.Contains(Labels, m.Label):
		return fmt.Errorf("no label may be called %q", m.Label)
	case !(m.Round >= 0):
		return fmt.Errorf("rounded to %v", m.Round)
	}
	return nil
}

// Metrics are those there are.
func (s *Server) Metrics() []Metric {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.metrics)
}

// histogram is the metric as its classes are now. Each count is rounded by itself, so they stay in order.
func (m *Metric) histogram() prometheus.Metric {
	counts, sum := m.Classes()
	buckets, n := make(map[float64]uint64, len(m.Bounds)), uint64(0)
	for i, c := range counts {
		n += c
		if i < len(m.Bounds) {
			buckets[m.Bounds[i]] = uint64(m.rounded(float64(n)))
		}
	}
	return prometheus.MustNewConstHistogram(prometheus.NewDesc(m.Name, m.Help, nil, nil), uint64(m.rounded(float64(n))), math.Floor(sum), buckets)
}

// rounded is a value as it is shown.
func (m *Metric) rounded(v float64) float64 {
	if m.Round == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	return math.Floor(v/m.Round) * m.Round
}

// collector shows a server's metrics to a registry. It describes none, since more may be added at any time.
type collector struct{ s *Server }

func (collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(out chan<- prometheus.Metric) {
	for _, m := range c.s.Metrics() {
		if m.Bounds != nil {
			out <- m.histogram()
			continue
		}
		kind := prometheus.GaugeValue
		if m.Rise {
			kind = prometheus.CounterValue
		}
		if m.Label == "" {
			out <- prometheus.MustNewConstMetric(prometheus.NewDesc(m.Name, m.Help, nil, nil), kind, m.rounded(m.Value()))
			continue
		}
		desc := prometheus.NewDesc(m.Name, m.Help, []string{m.Label}, nil)
		n := 0
		for value, v := range m.Values() {
			if n++; n > mostValues {
				break
			}
			if len(value) <= mostValue {
				out <- prometheus.MustNewConstMetric(desc, kind, m.rounded(v), strings.ToValidUTF8(value, "?"))
			}
		}
	}
}

// Gatherer gives what GET /metrics answers.
func (s *Server) Gatherer() prometheus.Gatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{s})
	return r
}

func (s *Server) metricsHandler() http.Handler {
	return promhttp.HandlerFor(s.Gatherer(), promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: page.ReadWithin, EnableOpenMetrics: true})
}

// processMetrics are those of every node. What grows with each stream is rounded.
func processMetrics(started time.Time) []Metric {
	all := []Metric{
		{Name: "peel_start_time_seconds", Help: "When the node started, in seconds since 1970.", Value: func() float64 { return float64(started.Unix()) }},
		{Name: "peel_goroutines", Help: "Goroutines, rounded down to 16.", Round: 16, Keep: true, Value: sampled("/sched/goroutines:goroutines")},
		{Name: "peel_heap_bytes", Help: "Memory of live and dead objects, rounded down to 1 MiB.", Round: 1 << 20, Keep: true, Value: sampled("/memory/classes/heap/objects:bytes")},
		{Name: "peel_memory_bytes", Help: "Memory that the Go runtime has from the system, rounded down to 1 MiB.", Round: 1 << 20, Value: sampled("/memory/classes/total:bytes")},
		{Name: "peel_gc_cycles_total", Help: "Garbage collections, rounded down to 16.", Rise: true, Round: 16, Value: sampled("/gc/cycles/total:gc-cycles")},
	}
	for _, m := range []struct {
		name, help string
		round      float64
		look       func() (float64, bool)
	}{
		{"peel_open_files", "Files and connections that are open, rounded down to 16.", 16, openFiles},
		{"peel_open_files_most", "How many there may be.", 0, mostFiles},
		{"peel_resident_bytes", "Memory of the machine that the process has, rounded down to 1 MiB.", 1 << 20, resident},
	} {
		if _, ok := m.look(); ok {
			all = append(all, Metric{Name: m.name, Help: m.help, Round: m.round, Keep: m.round > 0, Value: func() float64 { n, _ := m.look(); return n }})
		}
	}
	return all
}

// sampled reads a number of the Go runtime.
func sampled(name string) func() float64 {
	var mu sync.Mutex
	s := []metrics.Sample{{Name: name}}
	return func() float64 {
		mu.Lock()
		defer mu.Unlock()
		metrics.Read(s)
		if s[0].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return float64(s[0].Value.Uint64())
	}
}
