package directory

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"peel/cell"
)

// A run of the shared random value is as many periods: in the first half each authority commits to a
// secret, in the second it reveals it, and the value of the next run follows from them
// (spec/sharedrandom.md).
const (
	RunRounds    = 24
	CommitRounds = 12
)

// MaxCommitments bounds those of a vote: of every authority for this run and the one before.
const MaxCommitments = 2 * MaxAuthorities

// Run returns the run that the consensus of a period belongs to, from 1, and which round of it, from
// 0, the period is. Before the schedule's start it is the first round of the first run.
func (s Schedule) Run(validAfter time.Time) (run uint64, round int) {
	s = s.WithDefaults()
	if validAfter.Before(s.Start) {
		return 1, 0
	}
	n := uint64(validAfter.Sub(s.Start) / s.Period)
	return n/RunRounds + 1, int(n % RunRounds)
}

// SharedValue is a random value that nobody could choose, nor know before its run.
type SharedValue struct {
	Reveals int    // how many authorities' secrets it was made of; 0: it is a fallback, which others could foretell
	Value   Digest // not zero
}

// SharedRandom is what a consensus says of it: the values of its run and of the run before. The zero
// value says nothing.
type SharedRandom struct {
	Run      uint64 // of Current; 0: there are none
	Previous SharedValue
	Current  SharedValue
}

// Of returns the value of a run, if it is here.
func (s SharedRandom) Of(run uint64) (SharedValue, bool) {
	switch {
	case s.Run == 0:
	case run == s.Run:
		return s.Current, true
	case run == s.Run-1:
		return s.Previous, true
	}
	return SharedValue{}, false
}

// Commitment is what an authority commits to for the run after Run.
type Commitment struct {
	Run       uint64
	Authority cell.NodeID
	Commit    Digest
	Reveal    Digest // zero: not revealed yet
}

// Commit makes the commitment of an authority to a secret, which must be random. The secret itself is
// never shown, so that nobody sees what our source of randomness gives.
func Commit(n cell.NetworkID, run uint64, authority cell.NodeID, secret [32]byte) Commitment {
	c := Commitment{Run: run, Authority: authority, Reveal: DigestOf(append([]byte("peel reveal v1\n"), secret[:]...))}
	c.Commit = c.commit(n)
	return c
}

// commit computes what must be committed to for the reveal.
func (c *Commitment) commit(n cell.NetworkID) Digest {
	h := sha256.New()
	h.Write([]byte("peel commit v1\n"))
	h.Write(n[:])
	h.Write(binary.BigEndian.AppendUint64(nil, c.Run))
	h.Write(c.Authority[:])
	h.Write(c.Reveal[:])
	return Digest(h.Sum(nil))
}

// Revealed says whether there is a reveal. One that does not fit the commitment cannot be written.
func (c *Commitment) Revealed() bool { return c.Reveal != Digest{} }

// Next returns the values of a run from those of an earlier one and the reveals for the run before it,
// of different authorities: without any the value is a fallback that follows from the one before. Where
// runs were left out between, their values are fallbacks.
func (s SharedRandom) Next(n cell.NetworkID, run uint64, reveals []Commitment) SharedRandom {
	previous := s.Current
	if s.Run != run-1 || s.Run == 0 {
		previous = fallback(n, run-1, s.Current.Value)
	}
	current := fallback(n, run, previous.Value)
	if len(reveals) > 0 {
		reveals = slices.SortedFunc(slices.Values(reveals), func(a, b Commitment) int { return bytes.Compare(a.Authority[:], b.Authority[:]) })
		h := sha256.New()
		h.Write([]byte("peel shared random v1\n"))
		h.Write(n[:])
		h.Write(binary.BigEndian.AppendUint64(nil, run))
		h.Write(previous.Value[:])
		for i := range reveals {
			h.Write(reveals[i].Authority[:])
			h.Write(reveals[i].Reveal[:])
		}
		current = SharedValue{len(reveals), Digest(h.Sum(nil))}
	}
	return SharedRandom{Run: run, Previous: previous, Current: current}
}

func fallback(n cell.NetworkID, run uint64, previous Digest) SharedValue {
	h := sha256.New()
	h.Write([]byte("peel shared random fallback v1\n"))
	h.Write(n[:])
	h.Write(binary.BigEndian.AppendUint64(nil, run))
	h.Write(previous[:])
	return SharedValue{0, Digest(h.Sum(nil))}
}

// check refuses what has no text.
func (s *SharedRandom) check() error {
	if s.Run == 0 {
		if *s != (SharedRandom{}) {
			return fmt.Errorf("shared random: values of no run")
		}
		return nil
	}
	for _, v := range []SharedValue{s.Previous, s.Current} {
		if v.Reveals < 0 || v.Reveals > MaxAuthorities || v.Value == (Digest{}) {
			return fmt.Errorf("shared random: a value of %d reveals: there must be 0 to %d, and the value not be zero", v.Reveals, MaxAuthorities)
		}
	}
	return nil
}

func (s *SharedRandom) append(b []byte) []byte {
	if s.Run == 0 {
		return b
	}
	line := func(key string, run uint64, v SharedValue) {
		b = appendLine(b, key, strconv.FormatUint(run, 10)+" "+strconv.Itoa(v.Reveals)+" "+v.Value.String())
	}
	line("shared-random-previous", s.Run-1, s.Previous)
	line("shared-random-current", s.Run, s.Current)
	return b
}

func (r *reader) sharedRandom() SharedRandom {
	var s SharedRandom
	if !r.has("shared-random-previous") {
		return s
	}
	var before uint64
	before, s.Previous = r.sharedValue("shared-random-previous")
	s.Run, s.Current = r.sharedValue("shared-random-current")
	if r.err == nil && s.Run != before+1 {
		r.fail("the value of run %d stands behind that of run %d", s.Run, before)
	}
	return parsed(r, s, s.check())
}

func (r *reader) sharedValue(key string) (uint64, SharedValue) {
	words := r.fields(key, 3)
	if r.err == nil && len(words) != 3 {
		r.fail("a shared random value has a run, a number of reveals and a digest")
	}
	if r.err != nil {
		return 0, SharedValue{}
	}
	run, err := parseUint(words[0], maxRun)
	run = parsed(r, run, err)
	n, err := parseUint(words[1], MaxAuthorities)
	n = parsed(r, n, err)
	d, err := ParseDigest(words[2])
	return run, SharedValue{int(n), parsed(r, d, err)}
}

// maxRun is more than there are seconds until the year 9999.
const maxRun = 1 << 40

// checkCommitments refuses what is too long, out of order or of another reveal than was committed to.
func checkCommitments(n cell.NetworkID, list []Commitment) error {
	if len(list) > MaxCommitments {
		return fmt.Errorf("%d commitments, but at most %d are allowed", len(list), MaxCommitments)
	}
	for i := range list {
		c := &list[i]
		if c.Run > maxRun {
			return fmt.Errorf("commitment for run %d: at most %d", c.Run, uint64(maxRun))
		}
		if i > 0 && compareCommitments(&list[i-1], c) >= 0 {
			return fmt.Errorf("commitments are out of order, or one is there twice")
		}
		if c.Revealed() && c.commit(n) != c.Commit {
			return fmt.Errorf("%s reveals something else than it committed to", c.Authority)
		}
	}
	return nil
}

// compareCommitments orders commitments by run, then by identity.
func compareCommitments(a, b *Commitment) int {
	if a.Run != b.Run {
		if a.Run < b.Run {
			return -1
		}
		return 1
	}
	return bytes.Compare(a.Authority[:], b.Authority[:])
}

// SortCommitments brings commitments into the order in which a vote lists them, in place.
func SortCommitments(list []Commitment) {
	slices.SortFunc(list, func(a, b Commitment) int { return compareCommitments(&a, &b) })
}

// Append appends the commitment's line.
func (c *Commitment) Append(b []byte) []byte {
	words := []string{strconv.FormatUint(c.Run, 10), c.Authority.String(), c.Commit.String()}
	if c.Revealed() {
		words = append(words, c.Reveal.String())
	}
	return appendLine(b, "shared-random-commit", strings.Join(words, " "))
}

// commitments takes the lines of commitments, of which there may be none.
func (r *reader) commitments(n cell.NetworkID) []Commitment {
	var list []Commitment
	for r.has("shared-random-commit") {
		if len(list) == MaxCommitments {
			r.failAt(r.line+1, "more than %d commitments", MaxCommitments)
			return nil
		}
		words := r.fields("shared-random-commit", 4)
		if r.err == nil && len(words) < 3 {
			r.fail("a commitment has a run, an authority, a digest and perhaps what is revealed")
		}
		if r.err != nil {
			return nil
		}
		var c Commitment
		var err error
		c.Run, err = parseUint(words[0], maxRun)
		parsed(r, 0, err)
		c.Authority, err = cell.ParseNodeID(words[1])
		parsed(r, 0, err)
		c.Commit, err = ParseDigest(words[2])
		parsed(r, 0, err)
		if len(words) == 4 {
			c.Reveal, err = ParseDigest(words[3])
			parsed(r, 0, err)
			if !c.Revealed() {
				r.fail("what is revealed is zero")
			}
		}
		list = append(list, c)
	}
	return parsed(r, list, checkCommitments(n, list))
}
