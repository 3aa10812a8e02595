package main

import (
	"strings"
	"testing"

	"peel/testnet/bench"
)

func TestSizeFlag(t *testing.T) {
	for in, want := range map[string]int64{"64": 64 << 20, "64MiB": 64 << 20, "2 GiB": 2 << 30, "512KiB": 512 << 10, "1": 1 << 20} {
		var m mib
		if err := m.Set(in); err != nil || int64(m) != want {
			t.Errorf("%q: %d bytes, want %d (%v)", in, int64(m), want, err)
		}
	}
	for _, in := range []string{"", "MiB", "-1", "0", "1.5", "64MB", "9223372036854775807", "10000000000GiB"} {
		m := mib(7)
		if err := m.Set(in); err == nil || m != 7 {
			t.Errorf("%q was taken for %d bytes", in, int64(m))
		}
	}
}

func TestProgressIsOneLineOnATerminalAndALineAStepElsewhere(t *testing.T) {
	steps := []bench.Step{{Done: 0, Of: 4, Text: "a"}, {Done: 3, Of: 4, Text: "b"}, {Done: 4, Of: 4}}
	for _, terminal := range []bool{true, false} {
		var out strings.Builder
		b := bar{&out, terminal}
		for _, s := range steps {
			b.show(s)
		}
		want := "bench: a\nbench: b\n"
		if terminal {
			want = "\r\x1b[K[........................]  0/4 a\r\x1b[K[##################......]  3/4 b\r\x1b[K"
		}
		if out.String() != want {
			t.Errorf("terminal %v: %q, want %q", terminal, out.String(), want)
		}
	}
}
