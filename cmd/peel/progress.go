package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"peel/client"
)

const startWidth = 20

// startLine shows on a terminal how far a start has come; elsewhere it is the plain line. A line for each stage, and no moving
// cursor: what is logged meanwhile stays readable, and a few stages need no library.
func startLine(w io.Writer, p client.Progress) string {
	if f, ok := w.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return p.String()
	}
	return drawn(p)
}

func drawn(p client.Progress) string {
	done := min(max(p.Percent, 0), 100) * startWidth / 100
	return fmt.Sprintf("[%s%s] %v", strings.Repeat("#", done), strings.Repeat(".", startWidth-done), p)
}
