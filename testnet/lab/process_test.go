package lab

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"peel/testnet/plan"
)

func TestCountsAreReadFromMetrics(t *testing.T) {
	c, err := metrics([]byte(`# HELP peel_relay_panics_total Panics that were contained: each is a bug.
# TYPE peel_relay_panics_total counter
peel_relay_panics_total 2
peel_relay_cells_total 1.024e+03
peel_relay_drops_total{reason="breach"} 16
peel_relay_drops_total{reason="rate"} 800
peel_links_ended_total{reason="flood"} 8
peel_links_ended_total{reason="closed"} 80
peel_relay_open_most nonsense
peel_villain_deeds_total 7
`))
	if want := (counts{breaches: 16, panics: 2, faults: 8, cells: 1024, deeds: 7}); c != want || err != nil {
		t.Errorf("%+v, %v, want %+v", c, err, want)
	}
}

// What a process tells its operator is found in its log, if it is a warning.
func TestWhatIsSaidIsFoundInALog(t *testing.T) {
	p := plan.Default()
	p.Expect.Says = []plan.Says{{Node: "relay1", Text: `no "room"`}, {Node: "relay1", Text: "all is well"}, {Node: "relay2", Text: "no"}}
	dir := t.TempDir()
	l := &Lab{plan: p, said: make([]atomic.Bool, 3)}
	n := &program{lab: l, name: "relay1", dir: filepath.Join(dir, "relay1")}
	if err := os.WriteFile(n.logFile(), []byte(strings.Repeat("x", 3*mostHeardLine)+`
time=1 level=INFO msg="all is well"
time=2 level=WARN msg="there is no \"room\" on the disk"
`), 0o600); err != nil {
		t.Fatal(err)
	}
	n.hear()
	for i, want := range []bool{true, false, false} {
		if l.said[i].Load() != want {
			t.Errorf("%q was heard: %v", p.Expect.Says[i].Text, !want)
		}
	}
	f, err := os.Create(n.logFile())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l.said[0].Store(false)
	for _, at := range []int64{mostHeard - 20, mostHeard + 20, 1 << 40} { // a sparse file: its length takes no place
		if _, err := f.WriteAt([]byte("\nlevel=WARN no \"room\"\n"), at); err != nil {
			t.Skip(err)
		}
	}
	n.hear()
	if l.said[0].Load() {
		t.Errorf("what stands after %d bytes was read", mostHeard)
	}
}
