package bench

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i) // 100 down to 1
	}
	for _, c := range []struct {
		values  []float64
		p, want float64
	}{
		{hundred, 0.5, 50},
		{hundred, 0.95, 95},
		{hundred, 0, 1},
		{hundred, 1, 100},
		{[]float64{7}, 0.5, 7},
		{[]float64{7}, 0.95, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 3, 2, 1}, 0.5, 2},
		{[]float64{4, 3, 2, 1}, 0.51, 3},
	} {
		if got := Percentile(c.values, c.p); got != c.want {
			t.Errorf("percentile %v of %d values from %v: %v, want %v", c.p, len(c.values), c.values[0], got, c.want)
		}
	}
	if got := Percentile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("of no values: %v", got)
	}
	if hundred[0] != 100 {
		t.Error("the values were moved about")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{5}, 5}, {[]float64{9, 1, 5}, 5}, {[]float64{9, 1, 5, 6}, 5.5}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.values, got, c.want)
		}
	}
	if !math.IsNaN(median(nil)) {
		t.Error("of no values there is a median")
	}
}

func TestNumbersHaveFourDigits(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.000", 0.05: "0.05000", 0.12345: "0.1235", 1: "1.000", 12: "12.00", 3.5: "3.500", 123.456: "123.5", 1234: "1234", 99999: "100000",
		100: "100.0", 1000: "1000", 0.001: "0.001000",
	} {
		if got := show(v); got != want {
			t.Errorf("%v is shown as %s, want %s", v, got, want)
		}
	}
}

// a report with a few figures, as a run with separate processes gives it.
func someReport() *Report {
	return &Report{
		Setup: Setup{Peel: "peel-1", Go: "go1", System: "linux/amd64", CPU: "Abacus", CPUs: 2, Kernel: "vaes", Nodes: Separate, Relays: 6, Size: 64 << 20, Runs: 3},
		Values: map[string]Value{
			"direct_MBps": {Mid: 1000}, "download_MBps": {Mid: 250}, "direct_ttfb_ms": {0.25, 0.5}, "ttfb_warm_ms": {2, 8},
			"circuits_per_s": {Mid: 1234.56},
		},
		LeftOut:   map[string]string{"allocs_per_cell": whyMany, "process_rss_MiB": whyMany},
		Processes: []ProcessReport{{Name: "relay1", Role: RoleRelay, CPU: 3.25, Idle: 12, RSS: 16.5, Peak: 17}},
		Seconds:   12.3456,
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := someReport().WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`peel-1, go1, linux/amd64, vaes`,
		`2 CPUs of Abacus; 6 relays, each node a process; median of 3 × 64 MiB`,
		` +to direct`,
		`  download, no network +1000  MB/s`,
		`  download +250\.0  MB/s +× 0\.2500`,
		`  first byte, warm circuit \(p50 / p95\) +2\.000 / 8\.000  ms +× 8\.000 / 16\.00`,
		`  circuits built +1235  1/s`,
		` +CPU ns/B +MiB at rest +after +peak`,
		`  relay1 +3\.250 +12\.00 +16\.50 +17\.00`,
		`left out, as each node is a process: process_rss_MiB, allocs_per_cell`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(b.String()) {
			t.Errorf("no line %s in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "upload") {
		t.Errorf("a figure that was not measured is shown:\n%s", b.String())
	}
}

func TestJSONHasEachFigureAndItsRatio(t *testing.T) {
	r := someReport()
	for i, f := range Figures {
		r.Values[f.Key] = Value{float64(i + 1), 0}
		if f.Most {
			r.Values[f.Key] = Value{float64(i + 1), float64(i + 2)}
		}
	}
	text, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	var ratios map[string]json.RawMessage
	if err := json.Unmarshal(got["ratio"], &ratios); err != nil {
		t.Fatal(err)
	}
	for _, f := range Figures {
		if f.Most {
			var d map[string]float64
			if err := json.Unmarshal(got[f.Key], &d); err != nil || len(d) != 2 || d["p50"] <= 0 || d["p95"] <= d["p50"] {
				t.Errorf("%s: %s (%v)", f.Key, got[f.Key], err)
			}
		} else if string(got[f.Key]) != fmt.Sprint(r.Values[f.Key].Mid) {
			t.Errorf("%s: %s, want %v", f.Key, got[f.Key], r.Values[f.Key].Mid)
		}
		if (f.Base != "") != (ratios[f.Key] != nil) {
			t.Errorf("%s: ratio %s, set against %q", f.Key, ratios[f.Key], f.Base)
		}
	}
	for _, k := range []string{"setup", "left_out", "circuits_failed", "seconds", "processes"} {
		if got[k] == nil {
			t.Errorf("no %s", k)
		}
	}
}

func TestRatioNeedsWhatItIsSetAgainst(t *testing.T) {
	r := someReport()
	delete(r.Values, "direct_MBps")
	for _, f := range Figures {
		_, ok := r.Ratio(f)
		if want := f.Key == "ttfb_warm_ms"; ok != want {
			t.Errorf("%s: has a ratio: %v, want %v", f.Key, ok, want)
		}
	}
}

func TestKeysAreDocumentedAndSetAgainstFiguresThatExist(t *testing.T) {
	page, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]Figure{}
	for _, f := range Figures {
		if _, ok := known[f.Key]; ok {
			t.Errorf("%s is there twice", f.Key)
		}
		known[f.Key] = f
		if !strings.Contains(string(page), "| `"+f.Key+"` |") {
			t.Errorf("docs/performance.md has no row for %s", f.Key)
		}
	}
	for _, f := range Figures {
		if base, ok := known[f.Base]; f.Base != "" && (!ok || base.Unit != f.Unit || base.Most != f.Most) {
			t.Errorf("%s is set against %q, which is none or of another kind", f.Key, f.Base)
		}
	}
}

func TestSizesAreShownWhole(t *testing.T) {
	for n, want := range map[int64]string{64 << 20: "64 MiB", 1 << 30: "1 GiB", 1536: "1536 bytes", 3 << 10: "3 KiB"} {
		if got := bytes(n); got != want {
			t.Errorf("%d bytes are shown as %s, want %s", n, got, want)
		}
	}
}
