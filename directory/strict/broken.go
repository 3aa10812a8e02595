package strict

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// mended reads a text, and leaves out of it what is not TOML: each of these is a mistake, and what is around it is read for all that.
func (r *reader) mended(text string) (parts map[string]toml.Primitive) {
	lines := strings.Split(text, "\n")
	foreign := !sets(lines, r.into.Elem())
	for !r.full() {
		if foreign && len(r.all) == fewLines {
			r.all = append(r.all, &Error{Text: "and so on: no line sets a key that there is, as in key = value: is this the right file?", lost: true})
			return nil
		}
		left := strings.Join(lines, "\n")
		if deep := TooDeep([]byte(left)); deep != nil { // without what was left out, what stood in quotes may not any more
			r.all = append(r.all, deep.(*Error))
			return nil
		}
		md, err := toml.Decode(left, &parts)
		r.md = md
		var p toml.ParseError
		if !errors.As(err, &p) {
			if err != nil {
				r.all = append(r.all, &Error{Text: strings.TrimPrefix(err.Error(), "toml: "), lost: true})
			}
			break
		}
		parts = nil
		if e, at, meant := brokenHeading(lines, p, r.into); e != nil {
			r.all, lines[at] = append(r.all, e), meant
			continue
		}
		e, from, to := blame(lines, p, r.into)
		r.all = append(r.all, e)
		if strings.Join(lines[from:to], "") == "" { // there is nothing left to leave out
			e.lost = true
			break
		}
		clear(lines[from:to])
	}
	r.text = strings.Join(lines, "\n")
	return parts
}

// fewLines are as many mistakes as are told of a text that is for something else.
const fewLines = 3

// sets says whether a line sets a key that there is, or names a table.
func sets(lines []string, into reflect.Type) bool {
	known := fields(into)
	return slices.ContainsFunc(lines, func(line string) bool {
		name := keyOf(line)
		if m := heading.FindStringSubmatch(line); m != nil {
			name = m[1]
		}
		name, _, _ = strings.Cut(name, ".")
		_, ok := known[name]
		return ok
	})
}

var (
	beginning = regexp.MustCompile(`^\s*("[^"]*"|'[^']*'|[A-Za-z0-9_.-]+)\s*=`)
	heading   = regexp.MustCompile(`^\s*\[\[?\s*([A-Za-z0-9_."' -]+?)\s*\]`)
)

// noticed is the line with what is wrong.
func noticed(lines []string, p toml.ParseError) int {
	at := min(max(p.Position.Line-1, 0), len(lines)-1)
	for at > 0 && (strings.TrimSpace(lines[at]) == "" || isHeading(lines[at-1]) && !strings.Contains(lines[at-1], "]")) { // it is noticed late
		at--
	}
	return at
}

// named is a line in which nothing but brackets is wrong with the name of a table.
var named = regexp.MustCompile(`^[\[ \t]*([A-Za-z0-9_.-]+)[ \t]*([\] \t]*)$`)

// brokenHeading says that the name of a table stands in other brackets than it should, and how it is meant; nil: that is not what is wrong.
func brokenHeading(lines []string, p toml.ParseError, into reflect.Type) (e *Error, at int, meant string) {
	at = noticed(lines, p)
	line, _, _ := strings.Cut(lines[at], "#")
	m := named.FindStringSubmatch(strings.TrimRight(line, " \t\r"))
	if m == nil || !isHeading(line) && m[2] == "" {
		return nil, at, ""
	}
	if begun := before(lines, at); begun >= 0 && depth(lines[begun:at]) > 0 { // it stands in a list
		return nil, at, ""
	}
	field, known := typeOf(into, m[1])
	for field.Kind() == reflect.Pointer {
		field = field.Elem()
	}
	switch field.Kind() {
	case reflect.Slice:
		known, meant = known && field.Elem().Kind() == reflect.Struct, "[["+m[1]+"]]"
	case reflect.Struct, reflect.Map:
		meant = "[" + m[1] + "]"
	}
	if !known || meant == "" || strings.NewReplacer(" ", "", "\t", "").Replace(strings.TrimSpace(line)) == meant {
		return nil, at, ""
	}
	return &Error{Line: at + 1, Text: fmt.Sprintf("the name of a table must stand in brackets: write %s", meant)}, at, meant
}

// blame says what is wrong where the text is not TOML, and which lines are to be left out for it.
func blame(lines []string, p toml.ParseError, into reflect.Type) (e *Error, from, to int) {
	at := noticed(lines, p)
	from = at
	if begun := before(lines, at); begun >= 0 && depth(lines[begun:at]) > 0 {
		if begins(lines[at]) { // what begins here stands in what should have ended before
			return endless(lines, begun, "the list that begins here does not end: a ] is missing"), begun, at
		}
		from = begun
	} else if begun >= 0 && (strings.Count(lines[begun], `"""`) == 1 || strings.Count(lines[begun], "'''") == 1) {
		return endless(lines, begun, "the text that begins here with three quotation marks does not end with three"), begun, len(lines)
	}
	if isHeading(lines[from]) { // all in the table goes with its name
		for to = at + 1; to < len(lines) && !isHeading(lines[to]); to++ {
		}
		return badHeading(lines[from], from, p.Message), from, to
	}
	return badLine(lines, from, at, p.Message, into), from, at + 1
}

// endless is the value of a key that should have ended.
func endless(lines []string, n int, what string) *Error {
	key := keyOf(lines[n])
	return &Error{Line: n + 1, Key: join(tableOf(lines, n), key), Text: key + ": " + what}
}

// badHeading is the name of a table that is not written as one, or stands there again.
func badHeading(line string, n int, message string) *Error {
	e := &Error{Line: n + 1, Text: "the name of a table must stand in brackets, as in [name], and nothing behind it: " + inOrder(message)}
	if m := heading.FindStringSubmatch(line); m != nil {
		if e.Key = m[1]; strings.Contains(message, "already") {
			e.Text = fmt.Sprintf("the table [%s] is there twice", clip(m[1]))
		}
	}
	return e
}

// badLine is one that sets a key, or does not, and whose value is no TOML, as was noticed in line at.
func badLine(lines []string, from, at int, message string, into reflect.Type) *Error {
	line := lines[from]
	key := keyOf(line)
	path := join(tableOf(lines, from), key)
	_, raw, assigned := strings.Cut(line, "=")
	raw = strings.TrimSpace(raw)
	field, known := typeOf(into, path)
	what := inOrder(message)
	switch {
	case strings.Contains(message, "already been defined"):
		if what = "it is given twice"; key != "" {
			for i, line := range lines[:from] { // no other can hold it: it is of the same table
				if keyOf(line) == key && tableOf(lines, i) == tableOf(lines, from) {
					what = fmt.Sprintf("it is given twice, in line %d for the first time: change it there", i+1)
					break
				}
			}
		}
	case key == "" || !assigned:
		return loose(lines, from, into)
	case !known:
		return unknownIn(into, from, path)
	case raw == "" || strings.HasPrefix(raw, "#"):
		what = "a value is missing after the ="
	case raw[0] == '[' && textsIn(field) && !strings.Contains(message, "EOF"):
		what = fmt.Sprintf("its texts must be in quotes, with commas between them: %s = [\"...\", \"...\"]", key)
	case from != at || strings.ContainsAny(raw[:1], "[{"):
		if what = "the list does not come out right: " + what; raw[0] == '{' {
			what = strings.Replace(what, "list", "table", 1)
		}
	case strings.ContainsAny(raw[:1], `"'`):
		if what = "what stands after the closing quotation mark does not belong there"; strings.Count(raw, raw[:1]) < 2 {
			what = "the closing quotation mark is missing"
		} else if strings.Contains(message, `\`) {
			what = `a \ has a meaning of its own there: write \\ for \, or put the text in '...'`
		}
	default:
		raw, _, _ = strings.Cut(raw, "#")
		what = unquoted(key, strings.Trim(strings.TrimSpace(raw), "\"'“”„‘’"), field)
	}
	return &Error{Line: at + 1, Key: path, Text: fmt.Sprintf("%s: %s", told(path), what)}
}

// loose is a line that sets nothing: perhaps its = is missing.
func loose(lines []string, n int, into reflect.Type) *Error {
	e := &Error{Line: n + 1, Text: "this is neither key = value nor the name of a table in brackets"}
	words := strings.Fields(lines[n])
	if len(words) == 0 {
		return e
	}
	table := tableOf(lines, n)
	in, _ := typeOf(into, join(table, "=")) // which no key is called
	if near := Near(words[0], slices.Sorted(maps.Keys(fields(in)))); near != "" {
		e.Key = join(table, near)
		e.Text += fmt.Sprintf("; did you mean %s = ...?", near)
	}
	return e
}

// textsIn says whether a type is a list of texts.
func textsIn(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String
}

// unquoted says how a value is written that stands there without quotes.
func unquoted(key, raw string, field reflect.Type) string {
	if field == moment {
		return aMoment
	}
	quoted := `"` + clip(strings.ReplaceAll(raw, `"`, "")) + `"`
	for field.Kind() == reflect.Pointer {
		field = field.Elem()
	}
	if !reflect.PointerTo(field).Implements(textual) {
		switch k := field.Kind(); {
		case k == reflect.Bool:
			return "must be true or false, without quotes"
		case k >= reflect.Int && k <= reflect.Uint64:
			return "must be a whole number, without anything else"
		case k == reflect.Float32 || k == reflect.Float64:
			return "must be a number, without anything else"
		case textsIn(field):
			return fmt.Sprintf("must be a list of texts in quotes: %s = [%s]", key, quoted)
		}
	}
	return fmt.Sprintf("put it in quotes: %s = %s", key, quoted)
}

func isHeading(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "[") }

// begins says whether a line sets a key, or names a table.
func begins(line string) bool { return isHeading(line) || beginning.MatchString(line) }

// before is the line before line n that sets the key whose value line n may be part of, or -1.
func before(lines []string, n int) int {
	for n--; n >= 0 && !begins(lines[n]); n-- {
	}
	if n >= 0 && isHeading(lines[n]) {
		return -1
	}
	return n
}

// depth is how many lists are still open after lines.
func depth(lines []string) (open int) {
	for _, line := range lines {
		quote := rune(0)
		for _, c := range line {
			if c == '#' && quote == 0 {
				break
			}
			switch {
			case quote != 0:
				if c == quote {
					quote = 0
				}
			case c == '"' || c == '\'':
				quote = c
			case c == '[':
				open++
			case c == ']':
				open--
			}
		}
	}
	return open
}

// keyOf is the key that a line sets; "": none.
func keyOf(line string) string {
	m := beginning.FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	return clip(strings.Trim(m[1], `"'`))
}

// tableOf is the table that a line stands in, as At takes it; "": that at the top.
func tableOf(lines []string, n int) string {
	for i := n - 1; i >= 0; i-- {
		m := heading.FindStringSubmatch(lines[i])
		if m == nil {
			continue
		}
		if !strings.HasPrefix(strings.TrimSpace(lines[i]), "[[") {
			return m[1]
		}
		nth := 0
		for _, before := range lines[:i] {
			if b := heading.FindStringSubmatch(before); b != nil && b[1] == m[1] {
				nth++
			}
		}
		return fmt.Sprintf("%s[%d]", m[1], nth)
	}
	return ""
}

func join(table, key string) string { return strings.TrimPrefix(table+"."+key, ".") }

// typeOf is what a key holds, as At takes it.
func typeOf(t reflect.Type, path string) (reflect.Type, bool) {
	for name := range strings.SplitSeq(numbers.ReplaceAllString(path, ""), ".") {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() == reflect.Map {
			t = t.Elem()
			continue
		}
		i, ok := fields(t)[name]
		if !ok {
			return t, false
		}
		t = t.Field(i).Type
	}
	return t, true
}

// unknownIn is a misspelt key whose value is no TOML either.
func unknownIn(into reflect.Type, n int, path string) *Error {
	in, _ := typeOf(into, path)
	prefix, name := "", path
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		prefix, name = path[:i+1], path[i+1:]
	}
	e := (&reader{into: into}).unknown(prefix, name, fields(in))
	e.Line = n + 1
	return e
}

// inOrder is what the TOML library says, without what nobody outside of it can know.
func inOrder(message string) string {
	return strings.NewReplacer("unexpected EOF", "the file ends too early", "EOF", "the end of the file", "array terminator", "the end of the list",
		"array", "list", "inline table terminator", "the end of the table", "top-level item", "line").Replace(message)
}
