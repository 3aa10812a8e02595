package authority

import (
	"fmt"
	"testing"
	"time"

	"peel/directory"
)

func TestFlagsOfAVote(t *testing.T) {
	policy := func(rules ...string) directory.Policy {
		p, err := directory.ParsePolicy(rules)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const k = 1000
	const all = "Fast Guard HSDir Running Stable Valid "
	there := func(bandwidth uint64, run, known, uptime float64) candidate {
		hours := func(n float64) time.Duration { return time.Duration(n * float64(time.Hour)) }
		return candidate{
			desc: &directory.Descriptor{Bandwidth: bandwidth, Observed: bandwidth}, running: true,
			past: standing{Uptime: uptime, Run: hours(run), Known: hours(known)},
		}
	}
	marked := func(marks directory.Flags) candidate {
		c := there(9, 9, 9, 1)
		c.desc.Policy, c.marks = policy("accept *:443"), marks
		return c
	}
	for _, c := range []struct {
		name string
		list []candidate
		want []string
	}{
		{"alone", []candidate{there(5, 0, 0, 1)}, []string{"Fast Guard HSDir Running Stable Valid 5"}},
		{"not reached", []candidate{{desc: &directory.Descriptor{Bandwidth: 5, Observed: 5}}}, []string{"Valid 5"}},
		{"the slowest eighth, and the half that runs shorter", []candidate{
			there(9*k, 9, 9, 1), there(20*k, 5, 9, 1), there(20*k, 9, 9, 1), there(30*k, 4, 9, 1),
			there(30*k, 9, 9, 1), there(30*k, 5, 9, 1), there(30*k, 9, 9, 1), there(30*k, 9, 9, 1), there(30*k, 9, 9, 1),
			{desc: &directory.Descriptor{Bandwidth: 90 * k, Observed: 90 * k}},
		}, []string{"Running Stable Valid 9000", "Fast Running Valid 20000", "Fast HSDir Running Stable Valid 20000", "Fast Running Valid 30000",
			all + "30000", "Fast Running Valid 30000", all + "30000", all + "30000", all + "30000", "Valid 90000"}},
		{"what began in one period is equal", []candidate{there(k, 1.4, 1.4, 1), there(k, 1.9, 1.9, 1), there(k, 2.3, 2.3, 1)},
			[]string{all + "1000", all + "1000", all + "1000"}},
		{"good enough anywhere", []candidate{
			there(100*k, 120, 999, 1), there(2000*k, 120, 192, 0.98), there(9000*k, 999, 999, 1), there(9000*k, 999, 999, 1), there(9000*k, 119, 999, 1),
			there(9000*k, 999, 999, 0.979), there(9000*k, 999, 999, 0.99), there(9000*k, 999, 999, 0.99), there(9000*k, 999, 999, 0.99),
		}, []string{"Fast HSDir Running Stable Valid 100000", all + "2000000", all + "9000000", all + "9000000", "Fast Running Valid 9000000",
			"Fast HSDir Running Stable Valid 9000000", all + "9000000", all + "9000000", all + "9000000"}},
		{"known for too short", []candidate{
			there(1, 800, 800, 1), there(1, 800, 800, 1), there(1, 191, 191, 1), there(1, 120, 95, 1), there(1, 120, 96, 1), there(1, 800, 800, 1),
		}, []string{all + "1", all + "1", "Fast HSDir Running Stable Valid 1", "Fast Running Stable Valid 1", "Fast HSDir Running Stable Valid 1", all + "1"}},
		{"on a list", []candidate{
			there(9, 9, 9, 1), marked(directory.BadExit), marked(directory.MiddleOnly), marked(directory.BadExit | directory.MiddleOnly),
		}, []string{all + "9", "BadExit Exit Fast Guard HSDir Running Stable Valid 9", "Fast MiddleOnly Running Stable Valid 9", "BadExit Fast MiddleOnly Running Stable Valid 9"}},
		{"exits", []candidate{
			{desc: &directory.Descriptor{Policy: policy("accept *:443")}},
			{desc: &directory.Descriptor{Policy: policy("accept 127.0.0.0/8:80")}},
			{desc: &directory.Descriptor{Policy: policy("accept *:22")}},
			{desc: &directory.Descriptor{Policy: policy("reject *:*", "accept *:80")}},
		}, []string{"Exit Valid 0", "Exit Valid 0", "Valid 0", "Valid 0"}},
		{"bandwidth is what it gives, has carried, and at most the limit", []candidate{
			{desc: &directory.Descriptor{Bandwidth: 900 * k, Observed: 300 * k}},
			{desc: &directory.Descriptor{Bandwidth: 900 * k, Observed: 0}},
			{desc: &directory.Descriptor{Bandwidth: 50 * k, Observed: 0}},
			{desc: &directory.Descriptor{Bandwidth: 1 << 40, Observed: 1 << 40}},
		}, []string{"Valid 300000", "Valid 100000", "Valid 50000", "Valid 10000000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, e := range entries(c.list, time.Hour, defaultMaxBandwidth) {
				if got := fmt.Sprintf("%v %d", e.Flags, e.Bandwidth); got != c.want[i] {
					t.Errorf("relay %d: %s, want %s", i, got, c.want[i])
				}
			}
		})
	}
}
