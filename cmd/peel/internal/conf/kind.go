package conf

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"peel/directory"
	"peel/directory/authority"
	"peel/directory/strict"
)

// Kinds are the kinds of files that Validate knows.
var Kinds = []string{"relay", "client", "authority", "network", "lists"}

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

// Validate says what is wrong with a file, and with those it names that are part of the configuration: the network file and
// an authority's lists. kind is one of Kinds; "": the one that the file's keys speak for, which it returns. Errors name the file and the line.
func Validate(path, kind string) (string, error) {
	if kind == "" {
		var err error
		if kind, err = kindOf(path); err != nil {
			return "", err
		}
	}
	switch kind {
	case "network":
		_, err := LoadNetwork(path)
		return kind, err
	case "lists":
		return kind, checkLists([]string{path})
	}
	f := of(kind)
	if f == nil {
		return "", &Error{path, fmt.Errorf("%q is none of %s", kind, strings.Join(Kinds, ", "))}
	}
	if err := Load(path, f); err != nil {
		return kind, err
	}
	if _, err := LoadNetwork(reflect.ValueOf(f).Elem().FieldByName("Network").String()); err != nil {
		return kind, err
	}
	if a, ok := f.(*Authority); ok {
		return kind, checkLists(a.Lists)
	}
	return kind, nil
}

// checkLists reads an authority's lists.
func checkLists(files []string) error {
	_, err := authority.ReadLists(files)
	return err
}

// KindOf finds out what a file is for: one of Kinds.
func KindOf(path string) (string, error) { return kindOf(path) }

// kindOf finds out what a file is for: the kind of node that knows most of its keys.
func kindOf(path string) (string, error) {
	text, err := read(path)
	if err != nil {
		return "", &Error{path, err}
	}
	var keys map[string]any
	if err := toml.Unmarshal(text, &keys); err != nil {
		return "", &Error{path, strict.Decode(text, new(Relay))} // it says where
	}
	for _, list := range []string{"allow", "reject", "badexit", "middleonly"} {
		if _, ok := keys[list].([]map[string]any); ok {
			return "lists", nil
		}
	}
	if _, ok := keys["authority"]; ok {
		return "network", nil
	}
	best, most, alone := "", 0, false
	for _, kind := range []string{"relay", "client", "authority"} {
		n := 0
		for key := range keys {
			if slices.Contains(keysOf(of(kind)), key) {
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
	for _, kind := range []string{"relay", "client", "authority"} {
		if strict.Fits(text, of(kind)) && len(bytes.TrimSpace(text)) > 0 {
			return fmt.Errorf("this is the file of another kind of node: a configuration for peel %s", kind)
		}
	}
	return nil
}

// keysOf are the names of all keys at the top of a file.
func keysOf(f file) []string {
	var names []string
	t := reflect.TypeOf(f).Elem()
	for i := range t.NumField() {
		names = append(names, t.Field(i).Tag.Get("toml"))
	}
	return names
}

// live are the keys that a running node takes from its file when it reads it again.
var live = map[reflect.Type][]string{
	reflect.TypeFor[*Relay]():     {"advertise", "contact", "bandwidth", "burst", "exit_policy", "resolvers", "family", "log"},
	reflect.TypeFor[*Authority](): {"allow", "lists", "log"},
	reflect.TypeFor[*Client]():    {"own_relays", "exclude", "exclude_exits", "exclude_lenient", "countries", "log"},
}

// Reload is Load for the file of a node that runs as was says. A key of another value that cannot be changed while it runs is an error.
func Reload(path string, was, into file) error {
	text, err := read(path)
	if err != nil {
		return &Error{path, err}
	}
	if err := load(path, text, into); err != nil {
		return err
	}
	old, now := reflect.ValueOf(was).Elem(), reflect.ValueOf(into).Elem()
	for i := range now.NumField() {
		key := now.Type().Field(i).Tag.Get("toml")
		if slices.Contains(live[reflect.TypeOf(into)], key) || same(old.Field(i), now.Field(i)) {
			continue
		}
		return &Error{path, strict.At(text, key, fmt.Errorf("it cannot be changed while the node runs: restart the node, or set it back; what can: %s",
			strings.Join(live[reflect.TypeOf(into)], ", ")))}
	}
	return nil
}

// same says whether two values of a key mean the same.
func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// SameNetwork says whether the network file still says what it said when the node started: that cannot change while it runs.
func SameNetwork(path string, was *directory.Network) error {
	now, err := LoadNetwork(path)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(now, was) {
		return &Error{path, errors.New("it cannot be changed while the node runs: restart the node")}
	}
	return nil
}
