// Package strict reads the TOML files that people write: a key it does not know, or a value of the wrong kind, is an error
// with its line and, for a key, the one that may have been meant.
package strict

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// MostBytes is how long a file may be.
const MostBytes = 1 << 20

// Error is a mistake in a file. Line is 0 where it cannot be told. More are the others that were found with it, by line.
type Error struct {
	Line int
	Text string
	More []*Error
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Text
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Text)
}

// Decode reads text into the struct that into points to; its fields need `toml` tags. What the file leaves out keeps its
// value. Every error is an *Error.
func Decode(text []byte, into any) error {
	if len(text) > MostBytes {
		return &Error{Text: fmt.Sprintf("%d bytes, but at most %d are allowed", len(text), MostBytes)}
	}
	md, err := toml.Decode(string(text), into)
	if err != nil {
		var p toml.ParseError
		if errors.As(err, &p) {
			return &Error{Line: p.Position.Line, Text: p.Message}
		}
		return together(kindError(string(text), err), string(text), into)
	}
	if unknown := md.Undecoded(); len(unknown) > 0 {
		return together(unknownKey(string(text), unknown[0], reflect.TypeOf(into)), string(text), into)
	}
	return nil
}

// MostTold is how many mistakes are told at once: each costs a walk through the text.
const MostTold = 20

// together is the first of the mistakes in a text that is TOML, with the others: one of the kind for each key at the top, and
// all keys that are not known, up to so many. One of them is given.
func together(known *Error, text string, into any) error {
	all := []*Error{known}
	fields := keys(reflect.TypeOf(into))
	var parts map[string]toml.Primitive
	md, err := toml.Decode(text, &parts)
	if err != nil {
		return known
	}
	wrong := map[string]bool{}
	for _, key := range md.Keys() { // in the order of the file
		name := key[0]
		part, here := parts[name]
		if !here || len(all) > MostTold {
			continue
		}
		delete(parts, name)
		if t, ok := fields[name]; !ok {
			all = append(all, unknownKey(text, toml.Key{name}, reflect.TypeOf(into)))
			wrong[name] = true
		} else if err := md.PrimitiveDecode(part, reflect.New(t).Interface()); err != nil {
			all = append(all, kindError(text, err))
			wrong[name] = true
		}
	}
	for _, key := range md.Undecoded() {
		if !wrong[key[0]] && len(all) <= MostTold {
			all = append(all, unknownKey(text, key, reflect.TypeOf(into)))
		}
	}
	return Together(all).(*Error)
}

// Together is the first of mistakes in a text, by line, with the others, up to so many; nil: there is none. It takes what it is given.
func Together(all []*Error) error {
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *Error) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text)) })
	all = slices.CompactFunc(all, func(a, b *Error) bool { return a.Line == b.Line && a.Text == b.Text })
	all[0].More = all[1:min(len(all), MostTold)]
	return all[0]
}

// kindErrors are how the TOML library says that a value is of the wrong kind.
var (
	kindErrors = regexp.MustCompile(`^toml: (?:line (\d+) )?\(last key "(.*?)"\): (.*)$`)
	badKind    = regexp.MustCompile(`^incompatible types: TOML value has type (.*); destination has type (.*)$`)
)

// kindName calls a Go type by what people write in a file.
func kindName(goType string) string {
	switch {
	case strings.HasPrefix(goType, "map"):
		return "a table"
	case goType == "slice", strings.HasPrefix(goType, "[]"):
		return "a list"
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"), goType == "integer":
		return "a whole number"
	case strings.HasPrefix(goType, "float"):
		return "a number"
	case goType == "string":
		return "a text in quotes"
	case strings.HasPrefix(goType, "bool"):
		return "true or false"
	case strings.HasPrefix(goType, "time"):
		return "a date"
	}
	return "of the kind " + goType
}

// kindError is the error of a value of the wrong kind.
func kindError(text string, err error) *Error {
	m := kindErrors.FindStringSubmatch(err.Error())
	if m == nil {
		return &Error{Text: strings.TrimPrefix(err.Error(), "toml: ")}
	}
	what := m[3]
	if k := badKind.FindStringSubmatch(what); k != nil {
		what = fmt.Sprintf("must be %s, but is %s", kindName(k[2]), kindName(k[1]))
	}
	e := At([]byte(text), m[2], errors.New(what)).(*Error)
	if line, err := strconv.Atoi(m[1]); err == nil {
		e.Line = line
	}
	return e
}

// At makes the error of a value an *Error with the line on which its key is set. A key of one of several tables of a name
// has its number, from 0: listen[1].address.
func At(text []byte, key string, err error) error {
	if err == nil {
		return nil
	}
	table, name := "", key
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		table, name = key[:i], key[i+1:]
	}
	if t, number, ok := strings.Cut(table, "["); ok {
		n, _ := strconv.Atoi(strings.TrimSuffix(number, "]"))
		return &Error{Line: lineIn(string(text), t, n, name), Text: fmt.Sprintf("%s: %s: %v", t, name, err)}
	}
	return &Error{Line: lineOf(string(text), table, name), Text: fmt.Sprintf("%s: %v", key, err)}
}

// lineIn returns the line of a key in the nth of several tables, or that on which the table begins, or 0.
func lineIn(text, table string, nth int, name string) int {
	n, begin := 0, 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			if begin > 0 {
				return begin
			}
			if in, _, _ := strings.Cut(line, "#"); strings.Trim(in, "[] \t") == table {
				if nth == 0 {
					begin = n
				}
				nth--
			}
		}
		if k, _, ok := strings.Cut(line, "="); begin > 0 && ok && strings.Trim(strings.TrimSpace(k), `"'`) == name {
			return n
		}
	}
	return begin
}

// unknownKey says where a key stands that is not known, and which one may have been meant.
func unknownKey(text string, key toml.Key, into reflect.Type) *Error {
	known := keys(into)
	for i, name := range key {
		t, ok := known[name]
		if ok {
			known = keys(t)
			continue
		}
		line := lineOf(text, strings.Join(key[:i], "."), name)
		if len(known) == 0 {
			return &Error{Line: line, Text: fmt.Sprintf("there is no key %q", clip(name))}
		}
		names := make([]string, 0, len(known))
		for k := range known {
			names = append(names, k)
		}
		slices.Sort(names)
		return &Error{Line: line, Text: fmt.Sprintf("there is no key %q; did you mean %q?", clip(name), nearest(name, names))}
	}
	return &Error{Text: fmt.Sprintf("there is no key %q", clip(key.String()))}
}

// keys are the keys of a table, and what each holds.
func keys(t reflect.Type) map[string]reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	known := make(map[string]reflect.Type)
	if t.Kind() != reflect.Struct {
		return known
	}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("toml"), ","); name != "" && name != "-" {
			known[name] = t.Field(i).Type
		}
	}
	return known
}

// lineOf returns the first line of a table on which a key or a table of that name is set, or 0.
func lineOf(text, table, name string) int {
	in, n := "", 0
	full := strings.TrimPrefix(table+"."+name, ".")
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			in, _, _ = strings.Cut(strings.Trim(line, "[] "), "]")
			if in == full || strings.HasPrefix(in, full+".") {
				return n
			}
			continue
		}
		k, _, ok := strings.Cut(line, "=")
		k = strings.Trim(strings.TrimSpace(k), `"'`)
		k = strings.TrimPrefix(in+"."+k, ".")
		if ok && (k == full || strings.HasPrefix(k, full+".")) {
			return n
		}
	}
	return 0
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

// edits counts the letters to insert, delete or change to make b of a.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		diag := row[0]
		row[0] = i + 1
		for j := range b {
			d := diag
			if a[i] != b[j] {
				d++
			}
			diag = row[j+1]
			row[j+1] = min(d, row[j]+1, row[j+1]+1)
		}
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
