package directory_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"testing"

	"peel/directory"
	"peel/directory/dirtest"
)

var sizes = []int{10, 100, 1000, 10000}

// BenchmarkConsensus parses and verifies what a client fetches.
func BenchmarkConsensus(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			n := dirtest.New(1, size)
			b.SetBytes(int64(len(n.Text)))
			b.ReportAllocs()
			for b.Loop() {
				c, err := directory.ParseConsensus(n.Text)
				if err != nil {
					b.Fatal(err)
				}
				if err := c.SignedHeader.Verify(n.Network, c.ValidAfter); err != nil { // the root is checked already
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVote parses and verifies what an authority gets from each other one.
func BenchmarkVote(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			n := dirtest.New(1, size)
			_, text := n.Vote(0)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				v, err := directory.ParseVote(text)
				if err != nil {
					b.Fatal(err)
				}
				if err := v.Verify(n.Network); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDescriptor(b *testing.B) {
	text := dirtest.New(1, 1).Relays[0].Text
	b.ReportAllocs()
	for b.Loop() {
		if _, err := directory.ParseDescriptor(text); err != nil {
			b.Fatal(err)
		}
	}
}

// churned is a consensus, the one of an hour later with 2 % of the relays gone, as many new and as many changed, and the diff.
func churned(b testing.TB, size int) (n *dirtest.Net, next, diff []byte) {
	b.Helper()
	n = dirtest.New(1, size)
	_, next = n.Churn(2, n.Consensus, 0.02)
	diff, err := directory.MakeDiff(n.Text, next)
	if err != nil {
		b.Fatal(err)
	}
	return n, next, diff
}

func gzipped(text []byte) int {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(text)
	z.Close()
	return b.Len()
}

// BenchmarkDiff is what a client does with an hourly diff: parse, check the signatures, apply, check the root. It also reports how
// long the diff is, in percent of the whole, as it is and as it travels.
func BenchmarkDiff(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			n, next, diff := churned(b, size)
			b.ReportAllocs()
			for b.Loop() {
				d, err := directory.ParseDiff(diff)
				if err != nil {
					b.Fatal(err)
				}
				if err := d.SignedHeader.Verify(n.Network, d.ValidAfter); err != nil {
					b.Fatal(err)
				}
				if _, err := d.Apply(n.Consensus); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(100*float64(len(diff))/float64(len(next)), "%whole")
			b.ReportMetric(100*float64(gzipped(diff))/float64(gzipped(next)), "%whole-gzip")
			b.ReportMetric(float64(gzipped(next)), "whole-gzip-B")
		})
	}
}

// BenchmarkMakeDiff is what a relay does once for all who ask.
func BenchmarkMakeDiff(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			n, next, _ := churned(b, size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := directory.MakeDiff(n.Text, next); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkProof parses and verifies the proof of one relay.
func BenchmarkProof(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c := dirtest.New(1, size).Consensus
			text := proof(b, c, c.Entries[size/2].ID).Append(nil)
			b.ReportAllocs()
			for b.Loop() {
				p, err := directory.ParseProof(text)
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Verify(&c.Header); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(text)), "proof-B")
		})
	}
}

// An hour's churn of 2 % costs little: at most 6 % of the whole, however it is sent.
func TestAnHourlyDiffIsShort(t *testing.T) {
	_, next, diff := churned(t, 1000)
	if 100*len(diff) > 6*len(next) {
		t.Errorf("the diff has %d bytes, the whole %d", len(diff), len(next))
	}
	if d, w := gzipped(diff), gzipped(next); 100*d > 6*w {
		t.Errorf("compressed the diff has %d bytes, the whole %d", d, w)
	}
}
