package authority

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"peel/cell"
	"peel/directory"
)

// random is what an authority knows of the shared random value: its own secrets and what all have
// committed to and revealed, for the run of the period and the one before. It is kept across restarts:
// who forgot its secret could not reveal it. (spec/sharedrandom.md)
type random struct {
	network     cell.NetworkID
	self        cell.NodeID
	shared      directory.SharedRandom // of the newest consensus here
	secrets     map[uint64][32]byte    // by run
	commitments map[commitKey]directory.Commitment
	broken      map[commitKey]bool // who named another commitment than its first
}

type commitKey struct {
	run       uint64
	authority cell.NodeID
}

func newRandom(n cell.NetworkID, self cell.NodeID) *random {
	return &random{
		network: n, self: self, secrets: map[uint64][32]byte{},
		commitments: map[commitKey]directory.Commitment{}, broken: map[commitKey]bool{},
	}
}

// keeps says whether what is known of another run is of use in a run: that of the one before; and, where no consensus says that this run
// can be now, so that the clock may be wrong, that of the run of the newest one and those beside it.
func (r *random) keeps(old, run uint64) bool {
	newest := r.shared.Run
	sure := newest == 0 || run == newest || run == newest+1
	return old == run || old+1 == run || !sure && old+1 >= newest && old <= newest+1
}

// prepare makes our commitment for a run, in the first half of it and if there is none yet, and
// forgets all of runs that are of no use any more. It says whether there is a new secret to be saved.
func (r *random) prepare(run uint64, round int, secret func() [32]byte) bool {
	maps.DeleteFunc(r.commitments, func(k commitKey, _ directory.Commitment) bool { return !r.keeps(k.run, run) })
	maps.DeleteFunc(r.broken, func(k commitKey, _ bool) bool { return !r.keeps(k.run, run) })
	maps.DeleteFunc(r.secrets, func(old uint64, _ [32]byte) bool { return !r.keeps(old, run) })
	if _, ok := r.secrets[run]; ok || round >= directory.CommitRounds {
		return false
	}
	r.secrets[run] = secret()
	key := commitKey{run, r.self}
	if _, ok := r.commitments[key]; !ok { // else others remember one of ours that we forgot
		c := directory.Commit(r.network, run, r.self, r.secrets[run])
		c.Reveal = directory.Digest{}
		r.commitments[key] = c
	}
	return true
}

// lines returns what our vote says of commitments. Our own secret is revealed from the second half of
// its run on.
func (r *random) lines(run uint64, round int) []directory.Commitment {
	var list []directory.Commitment
	for key, c := range r.commitments {
		if key.run != run && key.run+1 != run {
			continue // of a clock that was wrong, or is
		}
		if secret, ok := r.secrets[key.run]; ok && key.authority == r.self && (key.run < run || round >= directory.CommitRounds) {
			if ours := directory.Commit(r.network, key.run, r.self, secret); ours.Commit == c.Commit {
				c = ours
			}
		}
		list = append(list, c)
	}
	directory.SortCommitments(list)
	return list
}

// learn takes in what the votes that counted in a round say, honest of which are so many that one of
// them must be honest. It returns whose commitment was found out to have changed.
func (r *random) learn(run uint64, round, honest int, votes []*directory.Vote) (broken []cell.NodeID) {
	committing := round < directory.CommitRounds
	for _, v := range votes {
		by := v.Certificate.Identity
		for _, c := range v.Commitments {
			if c.Authority == by && (c.Run == run || c.Run+1 == run) && !r.committed(c, c.Run == run && committing) {
				broken = append(broken, by)
			}
		}
	}
	r.learnFromOthers(run, honest, votes)
	for _, v := range votes {
		for _, c := range v.Commitments {
			key := commitKey{c.Run, c.Authority}
			if known, ok := r.commitments[key]; ok && c.Revealed() && c.Commit == known.Commit && !(c.Run == run && committing) {
				r.commitments[key] = c
			}
		}
	}
	slices.SortFunc(broken, func(a, b cell.NodeID) int { return compareID(&a, &b) })
	return broken
}

// committed takes in what an authority says itself, which counts when it is in time, if it is the first that is heard. false: it is found out
// to have said something else before.
func (r *random) committed(c directory.Commitment, inTime bool) bool {
	key := commitKey{c.Run, c.Authority}
	known, ok := r.commitments[key]
	switch {
	case !ok && inTime:
		c.Reveal = directory.Digest{}
		r.commitments[key] = c
	case ok && known.Commit != c.Commit && !r.broken[key]:
		r.broken[key] = true
		return false
	}
	return true
}

// learnFromOthers takes over what authorities committed to while we were away: what so many say that one of them must be honest.
func (r *random) learnFromOthers(run uint64, honest int, votes []*directory.Vote) {
	said := map[commitKey]map[directory.Digest]int{}
	for _, v := range votes {
		for _, c := range v.Commitments {
			key := commitKey{c.Run, c.Authority}
			if _, ok := r.commitments[key]; ok || c.Run+1 < run || c.Run > run {
				continue
			}
			if said[key] == nil {
				said[key] = map[directory.Digest]int{}
			}
			said[key][c.Commit]++
		}
	}
	for key, values := range said {
		var best directory.Digest
		for d, n := range values {
			if n >= honest && (values[best] == 0 || cmp.Or(cmp.Compare(n, values[best]), bytes.Compare(best[:], d[:])) > 0) {
				best = d
			}
		}
		if values[best] > 0 {
			r.commitments[key] = directory.Commitment{Run: key.run, Authority: key.authority, Commit: best}
		}
	}
}

// honest is so many authorities that one of them must be honest: H of the spec. With the least threshold both numbers say so; a
// higher one makes nobody honest.
func honest(n *directory.Network) int {
	all := len(n.Authorities)
	return max(all-n.Threshold, directory.Faults(all)) + 1
}

// tallyShared returns the shared random values of a period from the votes that count: those that the
// votes have from an earlier consensus of the run, else those that follow from the reveals.
func tallyShared(n *directory.Network, validAfter time.Time, votes []*directory.Vote) directory.SharedRandom {
	run, _ := n.Schedule.Run(validAfter)
	honest := honest(n)
	said := map[directory.SharedRandom]int{}
	for _, v := range votes {
		if v.Shared.Run <= run {
			said[v.Shared]++
		}
	}
	// Of what at least one honest authority has from a consensus, the newest.
	var old directory.SharedRandom
	for s, k := range said {
		if k < honest || s.Run == 0 {
			continue
		}
		if c := cmp.Or(cmp.Compare(s.Run, old.Run), cmp.Compare(k, said[old]), bytes.Compare(s.Current.Value[:], old.Current.Value[:]),
			bytes.Compare(s.Previous.Value[:], old.Previous.Value[:]), cmp.Compare(s.Current.Reveals, old.Current.Reveals),
			cmp.Compare(s.Previous.Reveals, old.Previous.Reveals)); old.Run == 0 || c > 0 {
			old = s
		}
	}
	if old.Run == run {
		return old
	}
	reveals := agreedReveals(run-1, n.Threshold, votes)
	if len(reveals) < honest {
		reveals = nil // all of them may be of authorities that conspire
	}
	return old.Next(n.ID(), run, reveals)
}

// agreedReveals returns what authorities have revealed for a run, of those whose commitment so many
// votes agree on that no two commitments of one can have them.
func agreedReveals(run uint64, agree int, votes []*directory.Vote) []directory.Commitment {
	type key struct {
		authority cell.NodeID
		commit    directory.Digest
	}
	count := map[key]int{}
	reveal := map[key]directory.Commitment{}
	for _, v := range votes {
		for _, c := range v.Commitments {
			if c.Run != run {
				continue
			}
			k := key{c.Authority, c.Commit}
			count[k]++
			if c.Revealed() {
				reveal[k] = c
			}
		}
	}
	var list []directory.Commitment
	for k, c := range reveal {
		if count[k] >= agree {
			list = append(list, c)
		}
	}
	directory.SortCommitments(list)
	return list
}

// randomTop is the first line of what is kept.
const randomTop = "peel-shared-random 1"

// text writes what is kept: a line for each secret, each commitment, and the values.
func (r *random) text() []byte {
	b := []byte(randomTop + "\n")
	if s := r.shared; s.Run > 0 {
		for _, v := range []struct {
			key string
			run uint64
			directory.SharedValue
		}{{"previous", s.Run - 1, s.Previous}, {"current", s.Run, s.Current}} {
			b = fmt.Appendf(b, "%s %d %d %v\n", v.key, v.run, v.Reveals, v.Value)
		}
	}
	for _, run := range slices.Sorted(maps.Keys(r.secrets)) {
		secret := r.secrets[run]
		b = fmt.Appendf(b, "secret %d %x\n", run, secret[:])
	}
	var list []directory.Commitment
	for _, c := range r.commitments {
		list = append(list, c)
	}
	directory.SortCommitments(list)
	for i := range list {
		b = list[i].Append(b)
	}
	return fmt.Appendf(b, "end %v\n", directory.DigestOf(b))
}

// parse takes in what text wrote.
func (r *random) parse(text []byte) error {
	last := bytes.LastIndex(text, []byte("\nend ")) + 1
	if last == 0 || string(text[last:]) != fmt.Sprintf("end %v\n", directory.DigestOf(text[:last])) {
		return errors.New("authority: shared random: cut off or damaged")
	}
	for i, line := range strings.Split(string(text[:last-1]), "\n") {
		if i == 0 && line == randomTop {
			continue
		}
		if err := r.parseLine(strings.Split(line, " ")); i == 0 || err != nil {
			return fmt.Errorf("authority: shared random, line %d: %q is not known: %w", i+1, line[:min(len(line), 40)], err)
		}
	}
	return nil
}

func (r *random) parseLine(words []string) error {
	if len(words) < 3 {
		return errors.New("too few words")
	}
	run, err := strconv.ParseUint(words[1], 10, 64)
	if err != nil {
		return err
	}
	switch words[0] {
	case "secret":
		b, err := hex.DecodeString(words[2])
		if err != nil || len(b) != 32 {
			return errors.New("a secret has 32 bytes")
		}
		r.secrets[run] = [32]byte(b)
		return nil
	case "previous", "current":
		if len(words) != 4 {
			return errors.New("a value has four words")
		}
		n, err := strconv.Atoi(words[2])
		if err != nil {
			return err
		}
		v := directory.SharedValue{Reveals: n}
		if v.Value, err = directory.ParseDigest(words[3]); err != nil {
			return err
		}
		if words[0] == "previous" {
			r.shared.Previous = v
		} else {
			r.shared.Run, r.shared.Current = run, v
		}
		return nil
	case "shared-random-commit":
		if len(words) < 4 {
			return errors.New("a commitment has four words or five")
		}
		c := directory.Commitment{Run: run}
		if c.Authority, err = cell.ParseNodeID(words[2]); err != nil {
			return err
		}
		if c.Commit, err = directory.ParseDigest(words[3]); err != nil {
			return err
		}
		if len(words) == 5 {
			if c.Reveal, err = directory.ParseDigest(words[4]); err != nil {
				return err
			}
		}
		r.commitments[commitKey{run, c.Authority}] = c
		return nil
	}
	return errors.New("no such line")
}
