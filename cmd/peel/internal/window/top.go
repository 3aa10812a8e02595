package window

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"peel/testnet/story"
)

// View is how Top draws.
type View struct {
	Width, Height int // of the terminal; 0: as much as there is to show
	Colour        bool
}

// Top draws a network as text: what matters most above. With a Height it fills exactly as many lines, without a line end after the last.
func Top(w io.Writer, v story.Snapshot, view View) error {
	d := drawing{v: v, view: view}
	d.head()
	d.nodes()
	d.circuits()
	d.directory()
	d.events()
	lines := d.lines
	if view.Height > 0 {
		for len(lines) < view.Height {
			lines = append(lines, "")
		}
		lines = lines[:view.Height]
		_, err := io.WriteString(w, strings.Join(lines, "\x1b[K\r\n")+"\x1b[K")
		return err
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}

type drawing struct {
	v     story.Snapshot
	view  View
	lines []string
}

// tints are SGR codes.
var tints = map[string]string{
	"bold": "1", story.Up: "32", story.Open: "32", story.Down: "31", story.Failed: "31", story.Frozen: "36", story.Silent: "33", story.Starting: "33", story.Building: "33", story.Closing: "33", story.Closed: "2",
	"soft": "2", "villain": "31;1",
}

// tint is a text in a colour, if there are colours.
func (d *drawing) tint(how, text string) string {
	if code := tints[how]; d.view.Colour && code != "" {
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	return text
}

// line adds a line of pieces of text, cut to the width.
func (d *drawing) line(pieces ...piece) {
	room := d.view.Width
	var b strings.Builder
	for _, p := range pieces {
		text := clean(p.text)
		if n := utf8.RuneCountInString(text); d.view.Width > 0 && n > room {
			text = string([]rune(text)[:room])
		}
		room -= utf8.RuneCountInString(text)
		b.WriteString(d.tint(p.how, text))
	}
	d.lines = append(d.lines, strings.TrimRight(b.String(), " "))
}

type piece struct{ how, text string }

// clean leaves what is safe on a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func (d *drawing) title(text string) {
	d.line()
	d.line(piece{"bold", text})
}

// since is a time since the start, as 1:02:03.
func (d *drawing) since(t time.Time) string {
	s := int(max(0, t.Sub(d.v.Started)).Seconds())
	if s < 3600 {
		return fmt.Sprintf("%d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// short is a number in few letters.
func short(n float64) string {
	for _, unit := range []string{"", "k", "M", "G"} {
		if n < 999.5 {
			if unit == "" {
				return fmt.Sprintf("%.0f", n)
			}
			return fmt.Sprintf("%.1f%s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1fT", n)
}

func (d *drawing) head() {
	v := d.v
	up, open, streams, rate, in := 0, 0, 0, 0.0, 0.0
	for _, n := range v.Nodes {
		if n.State == story.Up && n.Role == story.Relay {
			up++
		}
		rate += n.Rate
	}
	relays := 0
	for _, n := range v.Nodes {
		if n.Role == story.Relay {
			relays++
		}
	}
	for _, c := range v.Circuits {
		if c.State == story.Open || c.State == story.Closing {
			open++
		}
		streams += c.Streams
		in += c.In
	}
	state := d.since(v.Now)
	if v.Over {
		state = "over after " + state
	}
	weather := ""
	if v.Weather != "" {
		weather = ", weather: " + v.Weather
	}
	d.line(piece{"bold", "peel test network " + v.Network}, piece{"soft", "  " + v.Ground + weather + "  " + state})
	d.line(piece{"", fmt.Sprintf("relays up %d of %d   circuits %d   streams %d   cells %s/s   to clients %sB/s", up, relays, open, streams, short(rate), short(in*cellBytes))})
}

// cellBytes is what one cell carries of a stream, at most.
const cellBytes = 1382

// rank orders nodes: villains and what does not work, then by how much they carry.
func rank(a, b story.Node) int {
	odd := func(n story.Node) int {
		if n.Villain != "" || n.State != story.Up {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(odd(a), odd(b)), cmp.Compare(b.Rate, a.Rate), cmp.Compare(b.Cells, a.Cells))
}

func (d *drawing) nodes() {
	var all []story.Node
	for _, n := range d.v.Nodes {
		if n.Role == story.Relay || n.Role == story.Authority {
			all = append(all, n)
		}
	}
	slices.SortStableFunc(all, rank)
	most := len(all)
	if d.view.Height > 0 {
		most = min(most, max(3, d.view.Height/2-4))
	}
	d.title("nodes")
	d.line(piece{"soft", fmt.Sprintf("  %-14s %-9s %-8s %9s %10s  %s", "name", "role", "state", "cells/s", "cells", "flags")})
	for _, n := range all[:most] {
		role := n.Role
		if n.Role == story.Relay {
			switch {
			case slices.Contains(n.Flags, "Exit"):
				role = "exit"
			case slices.Contains(n.Flags, "Guard"):
				role = "guard"
			}
		}
		flags := piece{"soft", strings.Join(n.Flags, " ")}
		if n.Villain != "" {
			flags = piece{"villain", "villain: " + n.Villain}
		}
		d.line(piece{"", fmt.Sprintf("  %-14s %-9s ", n.Name, role)}, piece{n.State, fmt.Sprintf("%-8s", n.State)},
			piece{"", fmt.Sprintf(" %9s %10s  ", short(n.Rate), short(float64(n.Cells)))}, flags)
	}
	if n := len(all) - most; n > 0 {
		d.line(piece{"soft", fmt.Sprintf("  and %d more", n)})
	}
}

func (d *drawing) circuits() {
	all := slices.DeleteFunc(slices.Clone(d.v.Circuits), func(c story.Circuit) bool { return c.Ended != nil })
	slices.SortStableFunc(all, func(a, b story.Circuit) int {
		return cmp.Or(cmp.Compare(b.In+b.Out, a.In+a.Out), cmp.Compare(b.Streams, a.Streams))
	})
	most := len(all)
	if d.view.Height > 0 {
		most = min(most, max(2, d.view.Height/4-2))
	}
	d.title("circuits")
	if len(all) == 0 {
		d.line(piece{"soft", "  none"})
		return
	}
	d.line(piece{"soft", fmt.Sprintf("  %-10s %-8s %-9s %7s %7s %7s  %s", "circuit", "state", "for", "streams", "in/s", "out/s", "path")})
	for _, c := range all[:most] {
		d.line(piece{"", fmt.Sprintf("  %-10s ", c.Key)}, piece{c.State, fmt.Sprintf("%-8s", c.State)},
			piece{"", fmt.Sprintf(" %-9s %7d %7s %7s  %s", c.Purpose, c.Streams, short(c.In), short(c.Out), strings.Join(c.Path, " > "))})
	}
	if n := len(all) - most; n > 0 {
		d.line(piece{"soft", fmt.Sprintf("  and %d more", n)})
	}
}

func (d *drawing) directory() {
	if len(d.v.Periods) == 0 {
		return
	}
	d.title("directory")
	for _, p := range d.v.Periods[max(0, len(d.v.Periods)-2):] {
		d.line(piece{"", fmt.Sprintf("  from %s  %-8s %d of %d voted, %d signed (%d needed)", d.since(p.ValidAfter), p.Phase, len(p.Votes), p.Of, len(p.Signatures), p.Needed)})
	}
}

func (d *drawing) events() {
	d.title("events")
	all := d.v.Events
	most := 10
	if d.view.Height > 0 {
		most = max(0, d.view.Height-len(d.lines))
	}
	all = all[max(0, len(all)-most):]
	clients := 0
	for _, n := range d.v.Nodes {
		if n.Role == story.Client {
			clients++
		}
	}
	for _, e := range slices.Backward(all) {
		who := e.Node
		if e.Circuit != "" && clients < 2 {
			who = "" // its text says which
		} else if who != "" {
			who += " "
		}
		d.line(piece{"soft", fmt.Sprintf("  %-8s %-9s ", d.since(e.At), e.Kind)}, piece{"", who + e.Text})
	}
}
