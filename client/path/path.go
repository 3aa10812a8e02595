// Package path chooses the relays that a circuit goes through, from a consensus and a usage: pure,
// with chance as an argument (spec/path.md).
package path

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"peel/cell"
	"peel/directory"
)

// Hops is how many relays a path has.
const Hops = 3

// Path is the way through the network: guard, middle, exit. Its entries belong to the consensus and
// must not be changed.
type Path []*directory.Entry

// String names the relays for a person: nicknames, and the beginnings of identities, as anybody may take any nickname.
func (p Path) String() string {
	hops := make([]string, len(p))
	for i, e := range p {
		hops[i] = fmt.Sprintf("%s (%.8s)", e.Nickname, e.ID)
	}
	return strings.Join(hops, " > ")
}

// LogValue keeps guards out of logs.
func (Path) LogValue() slog.Value { return slog.StringValue("[scrubbed]") }

// Usage is what a path is wanted for.
type Usage struct {
	// Addr is the address to connect to; invalid when it is a name, which only the exit resolves.
	Addr netip.Addr
	// Port is the port to connect to, not zero but for Directory.
	Port uint16
	// Directory is set when the last relay is asked for its directory, which each has, and for nothing else: then it
	// need be no exit, Addr and Port are not looked at, and the path fits no other usage.
	Directory bool
	// Guard is the relay to enter by, if it is not zero. Avoid is not asked about it.
	Guard cell.NodeID
	// Avoid says which relays must not be in the path: those that failed a moment ago, and one's
	// own. nil avoids none. It is asked many times and must say the same each time.
	Avoid func(cell.NodeID) bool
}

// Fits reports whether p serves u as well: its exit's policy allows the target, and u avoids none of
// its relays. For a directory none that is there does: it would be an exit that others need, or was asked already.
func (u Usage) Fits(p Path) bool {
	if len(p) != Hops || u.Directory || !u.allowed(p[Hops-1]) {
		return false
	}
	for _, e := range p {
		if u.avoids(e) {
			return false
		}
	}
	return true
}

func (u Usage) allowed(e *directory.Entry) bool {
	within, special := directory.SpecialRange(u.Addr)
	switch {
	case u.Directory:
		return true
	case special: // an exit that will refuse it need not hear of it
		return e.Policy.AllowsWithin(within, u.Addr, u.Port)
	case u.Addr.IsValid():
		return e.Policy.Allows(u.Addr, u.Port)
	}
	return e.Policy.AllowsPort(u.Port)
}

func (u Usage) avoids(e *directory.Entry) bool { return u.Avoid != nil && u.Avoid(e.ID) }

// ErrNoExit is in the chain of errors which say that no exit allows what is asked: another try with
// the same consensus would end alike.
var ErrNoExit = errors.New("no exit allows it")

// ErrGuard is in the chain of errors which say that no path begins with the guard asked for; with another
// there may be one.
var ErrGuard = errors.New("no path begins with the guard")

// maxWork bounds how many relays one choice looks at when relays go badly together, some 20 ms. It
// suffices to try every path in a network of 100 relays.
const maxWork = 3_000_000

// Choose draws a path: the exit first, then the guard, if none is given, then the middle, each by
// bandwidth and position weight among those that go with the ones before. Where these leave no third,
// it draws others in their place. rng(n) must return a number below n, each as likely as any other,
// that nobody can foresee. An error says what is lacking. Any goroutine may call it.
func (x *Index) Choose(u Usage, rng func(n uint64) uint64) (Path, error) {
	p, err := x.choose(u, rng)
	if err != nil && x.fallback != nil {
		return x.fallback.choose(u, rng)
	}
	return p, err
}

func (x *Index) choose(u Usage, rng func(n uint64) uint64) (Path, error) {
	if u.Port == 0 && !u.Directory {
		return nil, errors.New("path: usage without a port")
	}
	given := int32(-1) // the guard asked for
	guards := &x.guards
	if !u.Guard.IsZero() {
		i, ok := x.at[u.Guard]
		if !ok || !mayGuard(x.relays[i].entry, x.flagged) {
			return nil, fmt.Errorf("path: %w: it is not running, no guard any more, or excluded by the configuration", ErrGuard)
		}
		given, guards = i, &position{relays: []int32{i}, sums: []uint64{0}}
	}
	exits := &x.ends
	if !u.Directory {
		exits = x.exitsFor(u.Port)
	}
	if len(exits.relays) == 0 {
		return nil, x.noExit(u, exits)
	}
	var (
		d                       = drawing{rng: rng, work: maxWork}
		exit, guard             int32
		triedExits, triedGuards set
		pairs                   int
	)
	exitFits := func(i int32) bool {
		e := x.relays[i].entry
		return !triedExits[i] && (!u.Addr.IsValid() || u.allowed(e)) && !u.avoids(e) && (given < 0 || !x.conflict(i, given))
	}
	guardFits := func(i int32) bool {
		return !triedGuards[i] && !x.conflict(i, exit) && (i == given || !u.avoids(x.relays[i].entry))
	}
	last := func(i int32) bool {
		return !x.conflict(i, exit) && !x.conflict(i, guard) && !u.avoids(x.relays[i].entry)
	}
	for {
		var ok bool
		if exit, ok = d.draw(exits, exitFits); !ok {
			break
		}
		for triedGuards = nil; ; {
			if guard, ok = d.draw(guards, guardFits); !ok {
				break
			}
			pairs++
			if middle, ok := d.draw(&x.middles, last); ok {
				return Path{x.relays[guard].entry, x.relays[middle].entry, x.relays[exit].entry}, nil
			}
			triedGuards.add(guard)
		}
		triedExits.add(exit)
	}
	if d.work <= 0 {
		return nil, fmt.Errorf("path: gave up after %d exits and %d pairs of exit and guard: the relays share families or networks (IPv4 /16, IPv6 /32)", len(triedExits), pairs)
	}
	return nil, x.noPath(u, exits, len(triedExits), pairs)
}

// noPath says why there is none, after so many exits and pairs of exit and guard were tried, which are all.
func (x *Index) noPath(u Usage, exits *position, tried, pairs int) error {
	given := !u.Guard.IsZero()
	switch {
	case tried == 0:
		err := x.noExit(u, exits)
		if given && !errors.Is(err, ErrNoExit) {
			return fmt.Errorf("path: %w: each exit that would do for port %d is it, or of its family or network, or to be avoided now", ErrGuard, u.Port)
		}
		return err
	case given:
		return fmt.Errorf("path: %w: no middle relay goes with it and an exit for port %d (%d tried)", ErrGuard, u.Port, tried)
	case pairs == 0:
		return x.noGuard(u, tried)
	}
	return fmt.Errorf("path: no middle relay goes with any guard and exit for port %d: each of the %d relays %sshares a family or network (IPv4 /16, IPv6 /32) with one of them",
		u.Port, len(x.middles.relays), x.orAvoided(u, &x.middles))
}

// set is a set of relays, by index. nil is empty.
type set map[int32]bool

func (s *set) add(i int32) {
	if *s == nil {
		*s = set{}
	}
	(*s)[i] = true
}

// noExit says why there is none.
func (x *Index) noExit(u Usage, exits *position) error {
	if u.Directory {
		return fmt.Errorf("path: none of the %d relays is left to ask for the directory%s", len(x.relays), x.because())
	}
	if len(x.exits.relays) == 0 {
		return fmt.Errorf("path: %w: none of the %d relays lets traffic out%s", ErrNoExit, len(x.relays), x.because())
	}
	if len(exits.relays) == 0 {
		return fmt.Errorf("path: no exit allows port %d: %s, none accepts it%s (%w)", u.Port, count(len(x.exits.relays), "exit"), x.because(), ErrNoExit)
	}
	allow := 0
	for _, i := range exits.relays {
		if u.allowed(x.relays[i].entry) {
			allow++
		}
	}
	if allow == 0 {
		return fmt.Errorf("path: no exit allows the address on port %d: of %s, %d accept the port, none for it (%w)",
			u.Port, count(len(x.exits.relays), "exit"), len(exits.relays), ErrNoExit)
	}
	return fmt.Errorf("path: no exit for port %d is left: %s would do, all to be avoided now", u.Port, count(allow, "exit"))
}

func (x *Index) noGuard(u Usage, exits int) error {
	if len(x.guards.relays) == 0 {
		return fmt.Errorf("path: no guard: none of the %d relays may be the first", len(x.relays))
	}
	return fmt.Errorf("path: no guard goes with any of the exits for port %d (%d tried): each of %s %sshares a family or network (IPv4 /16, IPv6 /32) with the exit",
		u.Port, exits, count(len(x.guards.relays), "guard"), x.orAvoided(u, &x.guards))
}

func (x *Index) orAvoided(u Usage, p *position) string {
	n := 0
	for _, i := range p.relays {
		if u.avoids(x.relays[i].entry) {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("is to be avoided now (%d) or ", n)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
