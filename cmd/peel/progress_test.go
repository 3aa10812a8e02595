package main

import (
	"bytes"
	"strings"
	"testing"

	"peel/client"
)

func TestProgressIsDrawn(t *testing.T) {
	for percent, want := range map[int]string{0: "[....................] ", 50: "[##########..........] ", 99: "[###################.] ", 100: "[####################] ", 250: "[####################] "} {
		p := client.Progress{Percent: percent, Stage: "x", Text: "y"}
		if got := drawn(p); got != want+p.String() {
			t.Errorf("%d: %q", percent, got)
		}
		if got := startLine(new(bytes.Buffer), p); got != p.String() || strings.Contains(got, "#") {
			t.Errorf("not on a terminal: %q", got)
		}
	}
}
