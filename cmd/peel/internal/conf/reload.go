package conf

import (
	"errors"
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

// Reload is Load for the file of a node that runs as was says; changed are the keys whose values are others now. Those that cannot be
// changed while it runs are mistakes.
func Reload(path string, was, into file) (changed []string, err error) {
	text, err := read(path)
	if err != nil {
		return nil, &Error{path, err}
	}
	err = load(path, text, into)
	var fixed []*strict.Error
	old, now := reflect.ValueOf(was).Elem(), reflect.ValueOf(into).Elem()
	if err == nil || strict.Fits(text, reflect.New(now.Type()).Interface()) { // else what could not be read seems to be another value
		can := live[reflect.TypeOf(into)]
		hint := "; what can: " + strings.Join(can, ", ")
		for i := range now.NumField() {
			key := now.Type().Field(i).Tag.Get("toml")
			switch {
			case same(old.Field(i), now.Field(i)):
			case slices.Contains(can, key):
				changed = append(changed, key)
			default:
				at := strict.At(text, key, errors.New("it cannot be changed while the node runs: restart the node, or set it back"+hint))
				fixed, hint = append(fixed, at.(*strict.Error)), ""
			}
		}
	}
	var wrong *Error
	if errors.As(err, &wrong) {
		return nil, &Error{path, strict.With(wrong.Err, fixed)}
	}
	if err := strict.Together(fixed); err != nil {
		return nil, &Error{path, err}
	}
	return changed, nil
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
