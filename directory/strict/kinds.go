package strict

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// kindErrors are how the TOML library says that a value is of the wrong kind.
var (
	kindErrors = regexp.MustCompile(`^toml: (?:line \d+ )?\(last key "(.*?)"\): (.*)$`)
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

// decodeRest reads what is in order in a text that has mistakes into a struct, and returns these.
func decodeRest(text string, into any) error {
	r := &reader{into: reflect.TypeOf(into)}
	parts := r.mended(text)
	r.place = make(map[string]int)
	for i, k := range r.md.Keys() {
		if s := k.String(); r.place[s] == 0 {
			r.place[s] = i + 1
		}
	}
	r.table(parts, reflect.ValueOf(into).Elem(), "")
	if len(r.all) == 0 { // it does not fit, whatever the reason
		r.all = []*Error{{Text: "this does not fit what is read here", lost: true}}
	}
	return Together(r.all)
}

// reader reads a text that has mistakes, a value at a time.
type reader struct {
	text  string
	into  reflect.Type
	md    toml.MetaData
	place map[string]int // of keys in the text, from 1
	all   []*Error       // the mistakes, MostTold and one at most
}

func (r *reader) full() bool { return len(r.all) > MostTold }

func (r *reader) table(parts map[string]toml.Primitive, into reflect.Value, path string) {
	prefix := path
	if path != "" {
		prefix += "."
	}
	known := fields(into.Type())
	plain := numbers.ReplaceAllString(prefix, "")
	names := slices.SortedFunc(maps.Keys(parts), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.place[plain+a], r.place[plain+b]), strings.Compare(a, b))
	})
	for _, name := range names {
		if r.full() {
			return
		}
		i, ok := known[name]
		if !ok {
			r.all = append(r.all, r.unknown(prefix, name, known))
			continue
		}
		r.value(parts[name], into.Field(i), prefix+name)
	}
}

var numbers = regexp.MustCompile(`\[[0-9]+\]`)

func (r *reader) value(part toml.Primitive, into reflect.Value, path string) {
	switch t := into.Type(); {
	case isTable(t):
		var parts map[string]toml.Primitive
		switch taken := r.take(part, &parts, path); {
		case taken && parts != nil:
			r.table(parts, into, path)
		case taken: // it is of another kind, of which the library says nothing
			r.wrong(path, fmt.Sprintf("must be a table, and there is one: write [%s], with one bracket on each side, and its keys below", numbers.ReplaceAllString(path, "")))
		}
	case t.Kind() == reflect.Slice && isTable(t.Elem()):
		var parts []toml.Primitive
		if !r.take(part, &parts, path) {
			return
		}
		into.Set(reflect.MakeSlice(t, len(parts), len(parts)))
		for i, p := range parts {
			if r.full() {
				return
			}
			r.value(p, into.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		r.take(part, into.Addr().Interface(), path)
	}
}

// take reads one value, and says whether it is of the kind that it must be.
func (r *reader) take(part toml.Primitive, into any, path string) bool {
	err := r.md.PrimitiveDecode(part, into)
	if err == nil {
		return true
	}
	what := strings.TrimPrefix(err.Error(), "toml: ")
	if m := kindErrors.FindStringSubmatch(err.Error()); m != nil {
		what = m[2]
	}
	if k := badKind.FindStringSubmatch(what); k != nil {
		is, must := kindName(k[1]), kindName(k[2])
		what = fmt.Sprintf("must be %s, but is %s", must, is)
		if _, list := into.(*[]toml.Primitive); list && is == "a table" {
			what = fmt.Sprintf("there may be several: write [[%s]], with two brackets on each side", numbers.ReplaceAllString(path, ""))
		}
	}
	if reflect.TypeOf(into).Elem() == moment {
		what = aMoment
	}
	r.wrong(path, what)
	return false
}

// wrong takes in what is wrong with a key.
func (r *reader) wrong(path, what string) {
	r.all = append(r.all, At([]byte(r.text), path, errors.New(what)).(*Error))
}

// unknown says where a key stands that is not known, and which one may have been meant.
func (r *reader) unknown(prefix, name string, known map[string]int) *Error {
	e := &Error{Line: lineAt(r.text, prefix+name), Text: fmt.Sprintf("there is no key %q", clip(name))}
	if len(known) == 0 {
		return e
	}
	names := slices.Sorted(maps.Keys(known))
	if where := elsewhere(r.into.Elem(), name); where != "" {
		e.Text += " here; there is one " + where
	} else if near := Near(name, names); near != "" {
		e.Text += fmt.Sprintf("; did you mean %q?", near)
		e.Key = prefix + near
	} else if len(names) <= fewKeys {
		e.Text += ": there are " + strings.Join(names, ", ")
	}
	return e
}

// elsewhere says in which table of a file there is such a key; "": in none.
func elsewhere(file reflect.Type, key string) string {
	tables := fields(file)
	if i, ok := tables[key]; ok {
		t := file.Field(i).Type
		if !isTable(t) && !(t.Kind() == reflect.Slice && isTable(t.Elem())) {
			return "above the first table"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		in, heading := file.Field(tables[name]).Type, "["+name+"]"
		if in.Kind() == reflect.Slice {
			in, heading = in.Elem(), "[["+name+"]]"
		}
		if _, ok := fields(in)[key]; ok {
			return "below " + heading
		}
	}
	return ""
}

// fewKeys are as many as are all told where none is near.
const fewKeys = 8

// isTable says whether a type is read from a table: a struct with keys.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && len(fields(t)) > 0 && !reflect.PointerTo(t).Implements(textual)
}

var moment = reflect.TypeFor[time.Time]()

const aMoment = "must be a moment, such as 2026-01-31T12:00:00Z, without quotes"

var textual = reflect.TypeFor[encoding.TextUnmarshaler]()

// fields are the keys of a struct, and which of its fields each is.
func fields(t reflect.Type) map[string]int {
	known := make(map[string]int)
	if t.Kind() != reflect.Struct {
		return known
	}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("toml"), ","); name != "" && name != "-" {
			known[name] = i
		}
	}
	return known
}
