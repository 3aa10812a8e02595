package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"peel/client"
)

func TestProgressIsDrawn(t *testing.T) {
	for _, c := range []struct {
		percent, width int
		want           string
	}{
		{0, 80, "[....................]   0 % loading the list"},
		{50, 80, "[##########..........]  50 % loading the list"},
		{99, 80, "[###################.]  99 % loading the list"},
		{100, 80, "[####################] 100 % loading the list"},
		{250, 80, "[####################] 100 % loading the list"},
		{50, 40, "[##########..........]  50 % loading th"},
		{50, 39, " 50 % loading the list"},
		{50, 9, " 50 % lo"},
		{50, 1, ""},
		{50, 0, ""},
	} {
		if got := drawn(client.Progress{Percent: c.percent, Text: "loading the list"}, c.width); got != c.want {
			t.Errorf("%d in %d columns: %q, not %q", c.percent, c.width, got, c.want)
		}
	}
}

// rows is what a terminal shows that was sent text: a carriage return goes back to the first column, and what is written there replaces what was.
func rows(text string) (shown []string) {
	for line := range strings.SplitSeq(text, "\n") {
		row, at := []rune{}, 0
		for _, r := range line {
			if r == '\r' {
				at = 0
				continue
			}
			if at < len(row) {
				row[at] = r
			} else {
				row = append(row, r)
			}
			at++
		}
		shown = append(shown, strings.TrimRight(string(row), " "))
	}
	return shown
}

func TestStartIsOneLineThatOtherOutputDoesNotTear(t *testing.T) {
	var out bytes.Buffer
	width := 60
	s := &screen{w: &out, width: func() int { return width }}
	look := func(when string, want ...string) {
		t.Helper()
		if got := rows(out.String()); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s:\n%q, not\n%q", when, got, want)
		}
	}
	fmt.Fprintln(s, "before")
	s.show(client.Progress{Percent: 50, Text: "a long text of a stage"})
	look("a stage", "before", "[##########..........]  50 % a long text of a stage")
	s.show(client.Progress{Percent: 60, Text: "short"})
	look("the next", "before", "[############........]  60 % short")
	fmt.Fprintln(s, "a log")
	look("a log", "before", "a log", "[############........]  60 % short")
	width = 30
	s.show(client.Progress{Percent: 85, Text: "narrower"})
	if got := rows(out.String())[2]; !strings.HasPrefix(got, " 85 % narrower") {
		t.Errorf("in a narrower terminal: %q", got)
	}
	s.show(client.Progress{Percent: 100, Text: "done"})
	fmt.Fprintln(s, "after")
	if got := rows(out.String()); len(got) != 5 || !strings.HasPrefix(got[2], "100 % done") || got[3] != "after" {
		t.Errorf("at the end: %q", got)
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("it has escape sequences")
	}
}

func TestStartThatIsBrokenOffKeepsItsLine(t *testing.T) {
	var out bytes.Buffer
	s := &screen{w: &out, width: func() int { return 80 }}
	s.show(client.Progress{Percent: 10, Text: "x"})
	s.end()
	s.end()
	fmt.Fprintln(s, "peel: why")
	if got := rows(out.String()); len(got) != 3 || !strings.Contains(got[0], " 10 % x") || got[1] != "peel: why" {
		t.Errorf("%q", got)
	}
}

func TestWhereThereIsNoTerminalNothingIsDrawn(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	if s.show(client.Progress{Percent: 10, Text: "x"}) || out.Len() > 0 {
		t.Errorf("drawn: %q", out.String())
	}
	fmt.Fprintln(s, "line")
	s.end()
	if out.String() != "line\n" {
		t.Errorf("%q", out.String())
	}
}
