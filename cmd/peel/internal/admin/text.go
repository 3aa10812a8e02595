package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// WriteText writes the JSON object of a status for people: a line a value, lists of objects as tables, in the order they stand.
// Bytes that could change a terminal are shown as "?".
func WriteText(w io.Writer, text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := parse(d, mostDepth)
	if err != nil {
		return fmt.Errorf("the node's answer: %w", err)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	write(t, "", "", v)
	return t.Flush()
}

// mostDepth bounds how deep a status may be nested.
const mostDepth = 32

// parse reads a value; an object becomes its members in order.
func parse(d *json.Decoder, depth int) (any, error) {
	if depth == 0 {
		return nil, errors.New("nested too deep")
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		o := object{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := parse(d, depth-1)
			if err != nil {
				return nil, err
			}
			o = append(o, member{fmt.Sprint(name), v})
		}
		_, err := d.Token()
		return o, err
	case json.Delim('['):
		l := []any{}
		for d.More() {
			v, err := parse(d, depth-1)
			if err != nil {
				return nil, err
			}
			l = append(l, v)
		}
		_, err := d.Token()
		return l, err
	}
	return t, nil
}

func write(w io.Writer, indent, name string, v any) {
	title, v := inUnits(name, v)
	switch v := v.(type) {
	case object:
		if title != "" {
			fmt.Fprintf(w, "%s%s\n", indent, title)
			indent += "  "
		}
		for _, m := range v {
			write(w, indent, m.name, m.value)
		}
	case []any:
		if table(w, indent, title, v) {
			return
		}
		words := make([]string, len(v))
		for i := range v {
			words[i] = plain(v[i])
		}
		if len(words) == 0 {
			words = []string{"none"}
		}
		fmt.Fprintf(w, "%s%s\t%s\n", indent, title, strings.Join(words, ", "))
	default:
		fmt.Fprintf(w, "%s%s\t%s\n", indent, title, plain(v))
	}
}

// table writes a list of objects that are alike.
func table(w io.Writer, indent, title string, l []any) bool {
	if len(l) == 0 {
		return false
	}
	var names []string
	for _, x := range l {
		o, ok := x.(object)
		if !ok {
			return false
		}
		for _, m := range o {
			if m.name != unitName && !slices.Contains(names, m.name) {
				names = append(names, m.name)
			}
		}
	}
	fmt.Fprintf(w, "%s%s\n", indent, title)
	heads := make([]string, len(names))
	for i, n := range names {
		heads[i], _ = inUnits(n, nil)
	}
	fmt.Fprintf(w, "%s  %s\n", indent, strings.Join(heads, "\t"))
	for _, x := range l {
		cells := make([]string, len(names))
		bytes := slices.ContainsFunc(x.(object), func(m member) bool { return m.name == unitName && m.value == Bytes })
		for i, n := range names {
			cells[i] = "-"
			for _, m := range x.(object) {
				if m.name != n {
					continue
				}
				if bytes {
					n = sizeName
				}
				_, v := inUnits(n, m.value)
				cells[i] = plain(v)
			}
		}
		fmt.Fprintf(w, "%s  %s\n", indent, strings.Join(cells, "\t"))
	}
	return true
}

// plain is a value in one line.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case string:
		if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return t.UTC().Format("2006-01-02 15:04:05 UTC")
		}
		return Printable(v)
	case object:
		var words []string
		for _, m := range v {
			words = append(words, Printable(m.name)+" "+plain(m.value))
		}
		return strings.Join(words, ", ")
	case []any:
		var words []string
		for _, x := range v {
			words = append(words, plain(x))
		}
		return strings.Join(words, " ")
	}
	return Printable(fmt.Sprint(v))
}

// Printable leaves of a text what is safe on a terminal.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
