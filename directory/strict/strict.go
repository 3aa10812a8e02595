// Package strict reads the TOML files that people write: a key it does not know, or a value of the wrong kind, is an error
// with its line and, for a key, the one that may have been meant.
package strict

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// MostBytes is how long a file may be.
const MostBytes = 1 << 20

// Error is a mistake in a file. Line is 0 where it cannot be told. More are the others that were found with it, by line.
type Error struct {
	Line int
	Key  string // that it is about, as At takes it: of a misspelt key, the one that may have been meant; "": none
	Text string
	More []*Error

	lost bool // nothing of the text could be read
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Text
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Text)
}

// All are the mistake and those found with it.
func (e *Error) All() []*Error { return append([]*Error{e}, e.More...) }

// Line is that of the first mistake in an error, or 0.
func Line(err error) int {
	if e := new(Error); errors.As(err, &e) {
		return e.Line
	}
	return 0
}

// About says whether one of the mistakes is about a key, about the table that it is in, or about something in it.
func (e *Error) About(key string) bool {
	for _, m := range e.All() {
		if m.lost || m.Key != "" && (within(m.Key, key) || within(key, m.Key)) {
			return true
		}
	}
	return false
}

// within says whether a key is another, or in that.
func within(key, table string) bool {
	rest, ok := strings.CutPrefix(key, table)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// Decode reads text into the struct that into points to; its fields need `toml` tags. What the file leaves out keeps its
// value. Every error is an *Error, of all mistakes, up to so many; then into has what could be read for all that.
func Decode(text []byte, into any) error {
	if len(text) > MostBytes {
		return &Error{Text: fmt.Sprintf("%d bytes, but at most %d are allowed", len(text), MostBytes), lost: true}
	}
	if err := TooDeep(text); err != nil {
		return err
	}
	if Fits(text, into) {
		return nil
	}
	for i, line := range bytes.Split(text, []byte("\n")) {
		if !utf8.Valid(line) || bytes.IndexByte(line, 0) >= 0 {
			return &Error{Line: i + 1, Text: "this is not text in UTF-8: save the file as that", lost: true}
		}
	}
	return decodeRest(string(text), into)
}

// Fits says whether Decode finds no mistake in a text; into is filled as far as it does.
func Fits(text []byte, into any) bool {
	if len(text) > MostBytes || TooDeep(text) != nil {
		return false
	}
	md, err := toml.Decode(string(text), into)
	if err != nil || len(md.Undecoded()) > 0 {
		return false
	}
	exact := make(map[string]bool) // the library takes small letters for capital ones, and of two such keys any
	for _, k := range md.Keys() {
		path := k.String()
		if exact[path] {
			continue
		}
		if _, exact[path] = typeOf(reflect.TypeOf(into), path); !exact[path] {
			return false
		}
	}
	return true
}

// MostTold is how many mistakes are told at once: each costs a walk through the text.
const MostTold = 20

// Together is the first of mistakes in a text, by line, with the others, up to so many; nil: there is none. It takes what it is given.
func Together(all []*Error) error {
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *Error) int {
		if (a.Line == 0) != (b.Line == 0) {
			return cmp.Compare(b.Line, a.Line) // what is nowhere comes last
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text))
	})
	all = slices.CompactFunc(all, func(a, b *Error) bool { return a.Line == b.Line && a.Text == b.Text })
	if len(all) > MostTold {
		all = append(all[:MostTold:MostTold], &Error{Text: "and more: mend these first"})
	}
	all[0].More = all[1:]
	return all[0]
}

// With are the mistakes that Decode found in a text, err, and those of the values that it read for all that: none about keys that are
// among the first. It takes what it is given; nil: there is none.
func With(err error, values []*Error) error {
	found, ok := err.(*Error)
	if !ok {
		return cmp.Or(err, Together(values))
	}
	values = slices.DeleteFunc(values, func(v *Error) bool { return found.About(v.Key) })
	return Together(append(found.All(), values...))
}

// At makes the error of a value an *Error with the line on which its key is set. A key of one of several tables of a name
// has its number, from 0: listen[1].address.
func At(text []byte, key string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Line: lineAt(string(text), key), Key: key, Text: fmt.Sprintf("%s: %v", told(key), err)}
}

// told is a key as people are told of it: of one of several tables without the number, which the line stands for.
func told(key string) string {
	if table, name, ok := strings.Cut(key, "]."); ok {
		table, _, _ = strings.Cut(table, "[")
		return table + ": " + name
	}
	return key
}

// nearest returns the known word with the fewest edits to s.
func nearest(s string, known []string) string {
	s = s[:min(len(s), 64)]
	return slices.MinFunc(known, func(a, b string) int { return edits(s, a) - edits(s, b) })
}

// Near is the known word that somebody may have meant who wrote s; "": none is near.
func Near(s string, known []string) string {
	if len(known) == 0 {
		return ""
	}
	best := nearest(s, known)
	if most := 1 + len(s)/4; edits(s[:min(len(s), 64)], best) > most && (len(s) < 3 || !strings.HasPrefix(best, s)) {
		return ""
	}
	return best
}

// edits counts the letters to insert, delete, change or swap with the next to make b of a.
func edits(a, b string) int {
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		next[0] = i + 1
		for j := range b {
			same := row[j]
			if a[i] != b[j] {
				same++
			}
			next[j+1] = min(same, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}

// clip keeps an error readable whatever a file holds.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
