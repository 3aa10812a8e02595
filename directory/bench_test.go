package directory_test

import (
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
				if err := c.Verify(n.Network, c.ValidAfter); err != nil {
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
