package directory

import (
	"fmt"
	"math/bits"
	"strings"
)

// Flags is the set of what the authorities say of a relay.
type Flags uint16

// The flags; their bits ascend as their names do. (spec/directory.md, section 6)
const (
	BadExit    Flags = 1 << iota // never to be used as an exit
	Exit                         // lets traffic out to common ports
	Fast                         // has bandwidth for general use
	Guard                        // fit to be a client's first relay
	HSDir                        // stores descriptors of services
	MiddleOnly                   // never to be used as first or last relay
	Running                      // was reached lately
	Stable                       // stays up long
	Valid                        // not refused by the authorities
)

// AllFlags has every flag of this version.
const AllFlags Flags = 1<<len(flagNames) - 1

var flagNames = [...]string{"BadExit", "Exit", "Fast", "Guard", "HSDir", "MiddleOnly", "Running", "Stable", "Valid"}

// Has reports whether all of the flags in g are in f.
func (f Flags) Has(g Flags) bool { return f&g == g }

// String returns the names, in alphabetical order, separated by spaces.
func (f Flags) String() string {
	names := make([]string, 0, bits.OnesCount16(uint16(f)))
	for i, n := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, " ")
}

// List returns each flag of the set by itself, in alphabetical order.
func (f Flags) List() []Flags {
	var l []Flags
	for i := range flagNames {
		if f&(1<<i) != 0 {
			l = append(l, 1<<i)
		}
	}
	return l
}

// ParseFlags parses what String returns; "" is no flag.
func ParseFlags(s string) (Flags, error) {
	if s == "" {
		return 0, nil
	}
	var f Flags
	for word := range strings.SplitSeq(s, " ") {
		i := 0
		for i < len(flagNames) && flagNames[i] != word {
			i++
		}
		if i == len(flagNames) {
			return 0, fmt.Errorf("directory: there is no flag %q", clip(word))
		}
		if f>>i != 0 {
			return 0, fmt.Errorf("directory: flag %s is out of order or there twice", word)
		}
		f |= 1 << i
	}
	return f, nil
}

// flags takes a line of flags, which has no value when there are none.
func (r *reader) flags(key string) Flags {
	f, err := ParseFlags(r.take(key))
	return parsed(r, f, err)
}

func appendFlags(b []byte, key string, f Flags) []byte {
	b = append(b, key...)
	for i, n := range flagNames {
		if f&(1<<i) != 0 {
			b = append(b, ' ')
			b = append(b, n...)
		}
	}
	return append(b, '\n')
}
