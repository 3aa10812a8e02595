package directory_test

import (
	"fmt"
	"runtime"
	"testing"

	"peel/directory"
	"peel/directory/dirtest"
)

// growing are the documents that grow with the network, each in a size and how it is parsed.
var growing = []struct {
	name  string
	text  func(b testing.TB, relays int) []byte
	parse func([]byte) error
}{
	{"consensus", func(_ testing.TB, n int) []byte { return dirtest.New(1, n).Text }, func(b []byte) error {
		_, err := directory.ParseConsensus(b)
		return err
	}},
	{"vote", func(_ testing.TB, n int) []byte {
		_, text := dirtest.New(1, n).Vote(0)
		return text
	}, func(b []byte) error {
		_, err := directory.ParseVote(b)
		return err
	}},
	{"diff", func(b testing.TB, n int) []byte {
		_, _, diff := churned(b, n)
		return diff
	}, func(b []byte) error {
		_, err := directory.ParseDiff(b)
		return err
	}},
}

// What a parser allocates is in proportion to the text: a small number of times for each relay, and not more for each byte in
// a document sixteen times as long.
func TestParsingAllocatesInProportionToTheText(t *testing.T) {
	const relays = 150
	for _, d := range growing {
		cost := func(n int) (perRelay, perByte float64) {
			text := d.text(t, n)
			var before, after runtime.MemStats
			const runs = 3
			runtime.ReadMemStats(&before)
			for range runs {
				if err := d.parse(text); err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
			return float64(after.Mallocs-before.Mallocs) / float64(runs*n), float64(after.TotalAlloc-before.TotalAlloc) / float64(runs*len(text))
		}
		times, bytes := cost(relays)
		times16, bytes16 := cost(16 * relays)
		t.Logf("%s: %.2f and %.2f times a relay, %.2f and %.2f bytes for each of the text", d.name, times, times16, bytes, bytes16)
		if times16 > 5 {
			t.Errorf("%s: %.1f allocations for each relay", d.name, times16)
		}
		if times16 > 1.1*times || bytes16 > 1.1*bytes {
			t.Errorf("%s: a longer text costs more for each relay (%.2f times, then %.2f) or byte (%.2f, then %.2f)", d.name, times, times16, bytes, bytes16)
		}
	}
}

// BenchmarkLinear shows what a byte of a document costs, and of one sixteen times as long.
func BenchmarkLinear(b *testing.B) {
	for _, d := range growing {
		for _, n := range []int{500, 8000} {
			b.Run(fmt.Sprintf("%s/%d", d.name, n), func(b *testing.B) {
				text := d.text(b, n)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for b.Loop() {
					if err := d.parse(text); err != nil {
						b.Fatal(err)
					}
				}
				runtime.ReadMemStats(&after)
				total := float64(b.N) * float64(len(text))
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/total, "ns/byte")
				b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/total, "B/byte")
			})
		}
	}
}
