package conf

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"peel/directory"
	"peel/directory/strict"
)

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
