package conf

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"peel/directory"
	"peel/directory/authority"
	"peel/directory/strict"
	"peel/testnet/plan"
)

// Kinds are the kinds of files that Examine knows.
var Kinds = []string{"relay", "client", "authority", "network", "lists", "plan"}

// of makes the struct that a node's file of a kind is read into; nil: it is no node's.
func of(kind string) file {
	switch kind {
	case "relay":
		return new(Relay)
	case "client":
		return new(Client)
	case "authority":
		return new(Authority)
	}
	return nil
}

// An Examined is a file that was looked at as the nodes would.
type Examined struct {
	Path, Kind string   // of Kinds; "": that cannot be told
	File       file     // a node's: *Relay, *Authority or *Client, as far as it could be read; nil: it is none
	Mistakes   []*Error // in it, and in those that it names: the network file, an authority's lists

	text []byte
	read error // what Load finds
}

// Examine says what is wrong with a file, and with those it names that are part of the configuration. kind is one of Kinds; "": the one
// that the file's keys speak for.
func Examine(path, kind string) *Examined {
	x := &Examined{Path: path, Kind: kind}
	if x.Kind == "" {
		var err error
		if x.Kind, err = KindOf(path); err != nil {
			x.add(err)
			return x
		}
	}
	switch x.Kind {
	case "network":
		_, err := LoadNetwork(path)
		x.add(err)
		return x
	case "lists":
		x.lists([]string{path})
		return x
	case "plan":
		_, err := LoadPlan(path)
		x.add(err)
		return x
	}
	f := of(x.Kind)
	if f == nil {
		x.add(&Error{path, fmt.Errorf("%q is none of %s", x.Kind, strings.Join(Kinds, ", "))})
		return x
	}
	var err error
	if x.text, err = read(path); err != nil {
		x.add(&Error{path, err})
		return x
	}
	x.File = f
	x.read = load(path, x.text, f)
	x.add(x.read)
	x.network(reflect.ValueOf(f).Elem().FieldByName("Network").String())
	if a, ok := f.(*Authority); ok {
		x.lists(a.Lists)
	}
	return x
}

// add takes in all mistakes of an error; nil: there is none.
func (x *Examined) add(err error) {
	var e *Error
	if errors.As(err, &e) {
		x.Mistakes = append(append(x.Mistakes, e), e.More()...)
	}
}

// At takes in what is wrong with what a key of a node's file names, unless the key itself is wrong; nil: nothing.
func (x *Examined) At(key string, err error) {
	if err == nil {
		return
	}
	if at := new(strict.Error); errors.As(x.read, &at) && at.About(key) {
		return
	}
	x.Mistakes = append(x.Mistakes, &Error{x.Path, strict.At(x.text, key, err)})
	line := func(e *Error) int {
		if n := strict.Line(e.Err); n > 0 && e.File == x.Path {
			return n
		}
		return math.MaxInt // what is nowhere, or in another file, comes last
	}
	slices.SortStableFunc(x.Mistakes, func(a, b *Error) int { return cmp.Compare(line(a), line(b)) })
}

// network looks at the network file that a node's names.
func (x *Examined) network(path string) {
	if path == "" {
		return
	}
	_, err := LoadNetwork(path)
	if ofWhole(err) {
		x.At("network", err)
		return
	}
	x.add(err)
}

// lists looks at an authority's lists.
func (x *Examined) lists(files []string) {
	_, err := authority.ReadLists(files)
	if err == nil {
		return
	}
	all := []error{err}
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		all = several.Unwrap()
	}
	for _, err := range all {
		x.Mistakes = append(x.Mistakes, &Error{"", err}) // it names file and line itself
	}
}

// LoadPlan reads a plan of a test network.
func LoadPlan(path string) (*plan.Plan, error) {
	text, err := read(path)
	if errors.Is(err, errNoFile) {
		err = errors.New("no such file")
	}
	if err != nil {
		return nil, &Error{path, err}
	}
	return ParsePlan(path, text)
}

// ParsePlan reads the text of one, which is called by a name in errors.
func ParsePlan(name string, text []byte) (*plan.Plan, error) {
	p, err := plan.Parse(text)
	if err != nil {
		return nil, &Error{name, cmp.Or(meantForNode(text), err)}
	}
	return p, nil
}

// tables are the keys of files that are no node's, by which they are known.
var tables = map[string][]string{"lists": {"allow", "reject", "badexit", "middleonly"}, "network": {"authority"}}

// KindOf finds out what a file is for, one of Kinds: the kind that knows most of its keys.
func KindOf(path string) (string, error) {
	text, err := read(path)
	if err != nil {
		return "", &Error{path, err}
	}
	given := strict.Keys(text)
	for kind, names := range tables {
		if slices.ContainsFunc(names, func(name string) bool { return slices.Contains(given, "[["+name) || slices.Contains(given, "["+name) }) {
			return kind, nil
		}
	}
	best, most, alone := "", 0, false
	for _, kind := range []string{"relay", "client", "authority", "plan", "network"} {
		known := []string{"name", "threshold", "schedule"}
		if kind == "plan" {
			known = keysOf(reflect.TypeFor[plan.Plan]())
		} else if f := of(kind); f != nil {
			known = keysOf(reflect.TypeOf(f).Elem())
		}
		n := 0
		for _, key := range given {
			if slices.Contains(known, strings.TrimLeft(key, "[")) {
				n++
			}
		}
		if n == most {
			alone = false
		}
		if n > most {
			best, most, alone = kind, n, true
		}
	}
	if broken := toml.Unmarshal(text, &map[string]any{}); !alone && broken != nil {
		return "", &Error{path, strict.Decode(text, new(Relay))} // it says where
	}
	if !alone {
		return "", &Error{path, fmt.Errorf("it may be for any kind of node: say which with --kind, one of %s", strings.Join(Kinds, ", "))}
	}
	return best, nil
}

// meantFor is what is wrong when a file, in which err was found, is in order for another kind of node than it was read for; nil: it is not.
func meantFor(text []byte, err error) error {
	if err == nil {
		return nil
	}
	if other := meantForNode(text); other != nil {
		return other
	}
	if strict.Fits(text, plan.Default()) && len(bytes.TrimSpace(text)) > 0 {
		return errors.New("this is a plan of a test network, for peel testnet run")
	}
	return nil
}

// meantForNode is what is to be said of a file that is in order for a kind of node, or names a network; nil: it does not.
func meantForNode(text []byte) error {
	for _, kind := range []string{"relay", "client", "authority"} {
		if strict.Fits(text, of(kind)) && len(bytes.TrimSpace(text)) > 0 {
			return fmt.Errorf("this is the file of another kind of node: a configuration for peel %s", kind)
		}
	}
	if _, err := directory.ParseNetwork(text); err == nil {
		return errors.New("this is a network file: name the file of a node, or of a plan")
	}
	return nil
}

// keysOf are the names of all keys at the top of a file.
func keysOf(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("toml"), ",")
		names = append(names, name)
	}
	return names
}
