package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A Figure is one thing that is measured. Its key is what it is called in JSON, and is never given another meaning.
type Figure struct {
	Key  string
	Text string // in the table
	Unit string
	Base string // the key of the figure without a network that it is set against; "": there is none
	Most bool   // a distribution, given as its median and its 95th percentile
}

// Figures are all figures, in the order of the table. docs/performance.md explains each.
var Figures = []Figure{
	{Key: "direct_MBps", Text: "download, no network", Unit: "MB/s"},
	{Key: "direct_upload_MBps", Text: "upload, no network", Unit: "MB/s"},
	{Key: "one_hop_MBps", Text: "download, one hop, no SOCKS", Unit: "MB/s", Base: "direct_MBps"},
	{Key: "library_MBps", Text: "download, three hops, no SOCKS", Unit: "MB/s", Base: "direct_MBps"},
	{Key: "download_MBps", Text: "download", Unit: "MB/s", Base: "direct_MBps"},
	{Key: "upload_MBps", Text: "upload", Unit: "MB/s", Base: "direct_upload_MBps"},
	{Key: "parallel10_MBps", Text: "10 downloads, one circuit", Unit: "MB/s", Base: "direct_MBps"},
	{Key: "parallel10_isolated_MBps", Text: "10 downloads, 10 circuits", Unit: "MB/s", Base: "direct_MBps"},
	{Key: "parallel50_MBps", Text: "50 downloads, one circuit", Unit: "MB/s", Base: "direct_MBps"},
	{Key: "parallel50_isolated_MBps", Text: "50 downloads, 50 circuits", Unit: "MB/s", Base: "direct_MBps"},
	{Key: "direct_ttfb_ms", Text: "first byte, no network", Unit: "ms", Most: true},
	{Key: "ttfb_warm_ms", Text: "first byte, warm circuit", Unit: "ms", Base: "direct_ttfb_ms", Most: true},
	{Key: "ttfb_early_ms", Text: "first byte, answered early", Unit: "ms", Base: "direct_ttfb_ms", Most: true},
	{Key: "ttfb_library_ms", Text: "first byte, warm circuit, no SOCKS", Unit: "ms", Base: "direct_ttfb_ms", Most: true},
	{Key: "ttfb_isolated_ms", Text: "first byte, new isolation", Unit: "ms", Base: "direct_ttfb_ms", Most: true},
	{Key: "ttfb_fresh_ms", Text: "first byte, fresh circuit", Unit: "ms", Base: "direct_ttfb_ms", Most: true},
	{Key: "circuits_per_s", Text: "circuits built", Unit: "1/s"},
	{Key: "direct_cpu_ns_per_byte", Text: "CPU, no network, both ends", Unit: "ns/B"},
	{Key: "relay_cpu_ns_per_byte", Text: "CPU, a relay", Unit: "ns/B", Base: "direct_cpu_ns_per_byte"},
	{Key: "guard_cpu_ns_per_byte", Text: "CPU, guard, no SOCKS", Unit: "ns/B", Base: "direct_cpu_ns_per_byte"},
	{Key: "middle_cpu_ns_per_byte", Text: "CPU, middle, no SOCKS", Unit: "ns/B", Base: "direct_cpu_ns_per_byte"},
	{Key: "exit_cpu_ns_per_byte", Text: "CPU, exit, no SOCKS", Unit: "ns/B", Base: "direct_cpu_ns_per_byte"},
	{Key: "client_cpu_ns_per_byte", Text: "CPU, client", Unit: "ns/B", Base: "direct_cpu_ns_per_byte"},
	{Key: "process_cpu_ns_per_byte", Text: "CPU, all in one process", Unit: "ns/B", Base: "direct_cpu_ns_per_byte"},
	{Key: "relay_rss_idle_MiB", Text: "memory, a relay at rest", Unit: "MiB"},
	{Key: "relay_rss_MiB", Text: "memory, a relay", Unit: "MiB"},
	{Key: "client_rss_MiB", Text: "memory, client", Unit: "MiB"},
	{Key: "process_rss_MiB", Text: "memory, all in one process", Unit: "MiB"},
	{Key: "allocs_per_cell", Text: "allocations, whole way of a cell", Unit: ""},
}

// Value is a figure as measured. Of a distribution, Mid is the median and High the 95th percentile; else High is 0.
type Value struct{ Mid, High float64 }

// Report is what one run measured.
type Report struct {
	Setup     Setup
	Values    map[string]Value  // by key; what could not be measured is in LeftOut instead
	LeftOut   map[string]string // by key: why
	Processes []ProcessReport   // none if all nodes are in one process
	Failed    int               // circuits that could not be built while they were counted
	Seconds   float64           // that the measuring took
}

// Setup is where and how a report was made.
type Setup struct {
	Peel   string `json:"peel"` // version and commit
	Go     string `json:"go"`
	System string `json:"system"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Kernel string `json:"layer_kernel"`
	Nodes  string `json:"nodes"` // "processes" or "in-process"
	Relays int    `json:"relays"`
	Size   int64  `json:"size_bytes"`
	Runs   int    `json:"runs"`
}

// ProcessReport is what one process used.
type ProcessReport struct {
	Name string  `json:"name"`
	Role string  `json:"role"` // authority, relay, client or bench: the web server and the programs that use the client
	CPU  float64 `json:"cpu_ns_per_byte"`
	Idle float64 `json:"rss_idle_MiB"` // before any load
	RSS  float64 `json:"rss_MiB"`      // after all of it
	Peak float64 `json:"rss_peak_MiB"`
}

// Ratio sets a figure against the one without a network; false: there is no such figure, or it was not measured.
func (r *Report) Ratio(f Figure) (Value, bool) {
	v, ok := r.Values[f.Key]
	base, known := r.Values[f.Base]
	if !ok || !known || base.Mid <= 0 || f.Most && base.High <= 0 {
		return Value{}, false
	}
	q := Value{Mid: v.Mid / base.Mid}
	if f.Most {
		q.High = v.High / base.High
	}
	return q, true
}

// JSON is the report as docs/performance.md describes it.
func (r *Report) JSON() ([]byte, error) {
	out, ratios := map[string]any{}, map[string]any{}
	for _, f := range Figures {
		if v, ok := r.Values[f.Key]; ok {
			out[f.Key] = f.json(v)
		}
		if q, ok := r.Ratio(f); ok {
			ratios[f.Key] = f.json(q)
		}
	}
	out["ratio"], out["setup"], out["left_out"] = ratios, r.Setup, r.LeftOut
	out["circuits_failed"], out["seconds"] = r.Failed, short(r.Seconds)
	ps := slices.Clone(r.Processes)
	for i := range ps {
		p := &ps[i]
		p.CPU, p.Idle, p.RSS, p.Peak = short(p.CPU), short(p.Idle), short(p.RSS), short(p.Peak)
	}
	if ps != nil {
		out["processes"] = ps
	}
	b, err := json.MarshalIndent(out, "", "  ")
	return append(b, '\n'), err
}

func (f Figure) json(v Value) any {
	if f.Most {
		return map[string]float64{"p50": short(v.Mid), "p95": short(v.High)}
	}
	return short(v.Mid)
}

// short keeps four digits: no figure here is more exact.
func short(v float64) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'e', 3, 64), 64)
	return v
}

// show prints four digits of a number without an exponent.
func show(v float64) string {
	s := strconv.FormatFloat(short(v), 'f', -1, 64)
	digits := len(strings.TrimLeft(strings.ReplaceAll(s, ".", ""), "0"))
	if digits >= 4 {
		return s
	}
	if !strings.Contains(s, ".") {
		s += "."
	}
	s += strings.Repeat("0", 4-max(digits, 1)) // 12 as 12.00, 0.5 as 0.5000
	return strings.TrimSuffix(s, ".")
}

func (f Figure) show(v Value) string {
	if f.Most {
		return show(v.Mid) + " / " + show(v.High)
	}
	return show(v.Mid)
}

// WriteTable prints the report for a person.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	r.writeTable(&b)
	r.writeNotes(&b)
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) writeTable(w io.Writer) {
	s := r.Setup
	how := "each node a process"
	if s.Nodes == InProcess {
		how = "all nodes in one process"
	}
	fmt.Fprintf(w, "%s, %s, %s, %s\n", s.Peel, s.Go, s.System, s.Kernel)
	fmt.Fprintf(w, "%d CPUs%s; %d relays, %s; median of %d × %s\n\n", s.CPUs, prefixed(" of ", s.CPU), s.Relays, how, s.Runs, bytes(s.Size))
	width := 0
	for _, f := range Figures {
		width = max(width, len(f.name()))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%-*s\t\t\tto direct\t\n", width, "")
	for _, f := range Figures {
		v, ok := r.Values[f.Key]
		if !ok {
			continue
		}
		ratio := ""
		if q, ok := r.Ratio(f); ok {
			ratio = "× " + f.show(q)
		}
		fmt.Fprintf(t, "%-*s\t%s\t%-4s\t%s\t\n", width, f.name(), f.show(v), f.Unit, ratio)
	}
	t.Flush()
	if len(r.Processes) > 0 {
		fmt.Fprintf(t, "\n%-*s\tCPU ns/B\tMiB at rest\tafter\tpeak\t\n", width, "")
	}
	for _, p := range r.Processes {
		fmt.Fprintf(t, "%-*s\t%s\t%s\t%s\t%s\t\n", width, p.Name, show(p.CPU), show(p.Idle), show(p.RSS), show(p.Peak))
	}
	t.Flush()
}

// name is what the figure is called in the table.
func (f Figure) name() string {
	if f.Most {
		return f.Text + " (p50 / p95)"
	}
	return f.Text
}

// writeNotes says what is missing, each reason once.
func (r *Report) writeNotes(w io.Writer) {
	var reasons []string
	keys := map[string][]string{}
	for _, f := range Figures {
		if why, ok := r.LeftOut[f.Key]; ok {
			if keys[why] == nil {
				reasons = append(reasons, why)
			}
			keys[why] = append(keys[why], f.Key)
		}
	}
	if r.Failed > 0 {
		fmt.Fprintf(w, "\n%d circuits could not be built\n", r.Failed)
	}
	for _, why := range reasons {
		fmt.Fprintf(w, "\nleft out, %s: %s\n", why, strings.Join(keys[why], ", "))
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func bytes(n int64) string {
	for _, u := range []struct {
		shift int
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n >= 1<<u.shift && n%(1<<u.shift) == 0 {
			return fmt.Sprintf("%d %s", n>>u.shift, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// Percentile is the value that the share p (0 to 1) of values does not exceed: the nearest rank. It is NaN of no values.
func Percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(p * float64(len(s))))
	return s[min(max(rank, 1), len(s))-1]
}

// median is the middle of the values, or the mean of the two middle ones.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	switch {
	case n == 0:
		return math.NaN()
	case n%2 == 0:
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[n/2]
}
