package conf

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"peel/cell"
	"peel/directory/strict"
)

// Check says what is wrong with values that were not read from a file, but are those of flags: all that is, each by its flag.
func Check(f file) error {
	var all mistakes
	f.check(&all)
	var told []error
	for _, m := range all {
		if m.key == "exit_policy" {
			m.key = "exit"
		}
		told = append(told, fmt.Errorf("--%s: %w", m.key, m.err))
	}
	return errors.Join(told...)
}

// mistakes are values that cannot be, by their keys.
type mistakes []mistake

type mistake struct {
	key  string
	err  error
	from []string // other keys that it follows from
}

// at takes in what is wrong with a key; nil: nothing. from are other keys that it follows from: if something is wrong with these, that is told instead.
func (m *mistakes) at(key string, err error, from ...string) {
	if err == nil {
		return
	}
	if text, twice := strings.CutPrefix(err.Error(), key+" "); twice {
		err = errors.New(text) // the key is said before it
	}
	*m = append(*m, mistake{key, err, from})
}

// each looks at each entry of a list, and at all of it if these are in order.
func each(m *mistakes, key string, list []string, one func(string) error, all func() error) {
	before := len(*m)
	for _, s := range list {
		if err := one(s); err != nil {
			m.at(key, &entryError{s, err})
		}
	}
	if all != nil && len(*m) == before {
		m.at(key, all())
	}
}

func (m *mistakes) listens(key string, addrs []string) {
	each(m, key, addrs, func(a string) error { return listens([]string{a}) }, func() error { return listens(addrs) })
}

func (m *mistakes) identities(key string, texts []string) {
	each(m, key, texts, func(s string) error {
		if _, err := cell.ParseNodeID(s); err != nil {
			return fmt.Errorf("%q is not the identity of a relay: 52 letters a-z and digits 2-7, as peel init and peel status print it", s)
		}
		return nil
	}, nil)
}

// in are they as mistakes in a text that Decode has found err in, each with its line.
func (m mistakes) in(text []byte, err error) (all []*strict.Error) {
	var found *strict.Error
	for _, x := range m {
		if errors.As(err, &found) && slices.ContainsFunc(x.from, found.About) || len(all) > strict.MostTold {
			continue
		}
		all = append(all, inList(text, strict.At(text, x.key, x.err), x.err).(*strict.Error))
	}
	return all
}

// entryError is a mistake in one entry of a list.
type entryError struct {
	entry string
	err   error
}

func (e *entryError) Error() string { return e.err.Error() }
func (e *entryError) Unwrap() error { return e.err }

// inList moves a mistake from the line of a list's key to that of the entry it is in.
func inList(text []byte, at, err error) error {
	var in *entryError
	var where *strict.Error
	if !errors.As(err, &in) || !errors.As(at, &where) || where.Line == 0 {
		return at
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if line, _, _ = strings.Cut(line, "#"); n >= where.Line && (strings.Contains(line, strconv.Quote(in.entry)) || strings.Contains(line, "'"+in.entry+"'")) {
			return &strict.Error{Line: n, Key: where.Key, Text: where.Text}
		}
	}
	return at
}

func required(s string) error {
	if s == "" {
		return errors.New("must be given")
	}
	return nil
}

func listens(addrs []string) error {
	if len(addrs) == 0 {
		return errors.New(`must name at least one address and port, such as "0.0.0.0:9001"`)
	}
	for _, a := range addrs {
		if _, port, err := net.SplitHostPort(a); err != nil || !isPort(port) {
			return fmt.Errorf("%q is not an address and a port, such as 0.0.0.0:9001", a)
		}
	}
	return nil
}

// IsAddress says whether a text is an address, or a name, and a port, at which to listen.
func IsAddress(s string) bool { return listens([]string{s}) == nil }

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}
