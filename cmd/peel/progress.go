package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"

	"peel/client"
)

const (
	startWidth = 20
	leastWide  = 40 // columns of a terminal that a bar besides the text fits into
)

// screen is an output on which a start is shown. On a terminal that is one line, drawn anew in its place with each stage, and what else is
// written goes above it; elsewhere it shows nothing and writes what it is given. It needs no colour and no escape sequence, only the carriage return.
type screen struct {
	w     io.Writer
	width func() int // of the terminal, in columns; nil: it is none

	mu   sync.Mutex
	last *client.Progress // what is shown; nil: nothing
	used int              // columns that it takes
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd())) {
		s.width = func() int {
			if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
				return n
			}
			return 80
		}
	}
	return s
}

// show draws how far a start has come; false: this is no terminal, and the caller says it in a line. After the last stage the line stays.
func (s *screen) show(p client.Progress) bool {
	if s.width == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	s.last = &p
	s.draw(&b)
	if p.Percent >= 100 {
		b.WriteByte('\n')
		s.last, s.used = nil, 0
	}
	s.w.Write(b.Bytes())
	return true
}

// Write writes whole lines above the one that is drawn.
func (s *screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return s.w.Write(text)
	}
	var b bytes.Buffer
	b.WriteString("\r" + strings.Repeat(" ", s.used) + "\r")
	b.Write(text)
	s.used = 0
	s.draw(&b)
	if _, err := s.w.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(text), nil
}

// end leaves a line that is drawn as it is: what comes goes below it.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil {
		s.last, s.used = nil, 0
		io.WriteString(s.w, "\n")
	}
}

// draw puts the line into b, over what is there. The last column stays free: some terminals go to the next line at it. The caller holds mu.
func (s *screen) draw(b *bytes.Buffer) {
	line := []rune(drawn(*s.last, s.width()))
	b.WriteString("\r" + string(line) + strings.Repeat(" ", max(0, min(s.used, s.width()-1)-len(line))))
	s.used = len(line)
}

// drawn is the line for a terminal of so many columns.
func drawn(p client.Progress, width int) string {
	done := min(max(p.Percent, 0), 100)
	line := fmt.Sprintf("%3d %% %s", done, p.Text)
	if width >= leastWide {
		n := done * startWidth / 100
		line = fmt.Sprintf("[%s%s] %s", strings.Repeat("#", n), strings.Repeat(".", startWidth-n), line)
	}
	r := []rune(line)
	return string(r[:min(len(r), max(width-1, 0))])
}
