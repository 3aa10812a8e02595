package strict

import (
	"bytes"
	"fmt"
)

// So many dots may stand in a line, and so many lists and tables in each other, outside of quotes and comments: far more than any key has
// parts. The library takes the square of the parts that all keys on the way to a value have: for 64 KiB of them, minutes.
const (
	mostDots   = 100
	mostLevels = 16
)

// TooDeep is the mistake of a key of so many parts, or so many lists and tables in each other, that nobody wrote it; nil: there is none.
func TooDeep(text []byte) error {
	line, dots, open := 1, 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\n':
			line, dots = line+1, 0
		case '#':
			n := bytes.IndexByte(text[i:], '\n')
			if n < 0 {
				return nil
			}
			i += n - 1
		case '"', '\'':
			n := quoted(text[i:])
			line += bytes.Count(text[i:i+n], []byte("\n"))
			i += n - 1
		case '.':
			dots++
		case '[', '{':
			open++
		case ']', '}':
			open = max(0, open-1)
		}
		if dots > mostDots || open > mostLevels {
			return &Error{Line: line, Text: fmt.Sprintf("more than %d dots, or %d lists and tables in each other: nothing that is read here has so many", mostDots, mostLevels), lost: true}
		}
	}
	return nil
}

// quoted is how long the text in quotes is that b begins with. One that does not end goes on to the end of its line, or of b if it may have lines.
func quoted(b []byte) int {
	quote := b[0]
	long := len(b) > 2 && b[1] == quote && b[2] == quote
	i := 1
	if long {
		i = 3
	}
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\' && quote == '"' && i+1 < len(b) && b[i+1] != '\n':
			i++
		case c == '\n' && !long:
			return i
		case c == quote && !long:
			return i + 1
		case c == quote && len(b) > i+2 && b[i+1] == quote && b[i+2] == quote:
			for i += 3; i < len(b) && b[i] == quote; i++ { // two more may belong to it
			}
			return i
		}
	}
	return len(b)
}
