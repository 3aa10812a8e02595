package hybrid

import "testing"

func eachPatternBench(b *testing.B, f func(b *testing.B, ci, cr Config)) {
	for _, p := range []Pattern{NK, IK} {
		b.Run(p.String(), func(b *testing.B) {
			ci, cr := pair(b, p)
			b.ReportAllocs()
			f(b, ci, cr)
		})
	}
}

func BenchmarkInitiate(b *testing.B) {
	eachPatternBench(b, func(b *testing.B, ci, _ Config) {
		for b.Loop() {
			if _, _, err := Initiate(ci); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRespond(b *testing.B) {
	eachPatternBench(b, func(b *testing.B, ci, cr Config) {
		_, request, err := Initiate(ci)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, _, err := Respond(cr, request, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkFinish(b *testing.B) {
	eachPatternBench(b, func(b *testing.B, ci, cr Config) {
		initiators, replies := make([]*Initiator, b.N), make([][]byte, b.N)
		for n := range b.N {
			i, request, err := Initiate(ci)
			if err != nil {
				b.Fatal(err)
			}
			if replies[n], _, err = Respond(cr, request, nil); err != nil {
				b.Fatal(err)
			}
			initiators[n] = i
		}
		b.ResetTimer()
		for n := range b.N {
			if _, _, err := initiators[n].Finish(replies[n]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
