package strict

import (
	"bytes"
	"fmt"
)

// mostParts is how many dots and open brackets may stand in a line outside of quotes and comments: far more than any key has parts. The library
// takes the square of their number for one key: for 64 KiB of them, minutes.
const mostParts = 100

// TooDeep is the mistake of a line with a key of so many parts, or so many lists or tables in each other, that nobody wrote it; nil: there is none.
func TooDeep(text []byte) error {
	n := 0
	for line := range bytes.Lines(text) {
		if n++; parts(line) > mostParts {
			return &Error{Line: n, Text: fmt.Sprintf("more than %d dots or open brackets outside of quotes: nothing that is read here has so many", mostParts), lost: true}
		}
	}
	return nil
}

// parts counts them. Where quotes may go on from line to line it counts those within them too.
func parts(line []byte) (n int) {
	long := bytes.Contains(line, []byte(`"""`)) || bytes.Contains(line, []byte(`'''`))
	quote := byte(0)
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quote != 0 && c == '\\' && quote == '"':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case !long && (c == '"' || c == '\''):
			quote = c
		case !long && c == '#':
			return n
		case c == '.', c == '{', c == '[':
			n++
		}
	}
	return n
}
