package directory_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

func TestRunsOfADay(t *testing.T) {
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	first, _ := directory.Schedule{}.Run(day)
	for h := range 50 {
		run, round := directory.Schedule{}.Run(day.Add(time.Duration(h) * time.Hour))
		if run != first+uint64(h/24) || round != h%24 {
			t.Errorf("hour %d: round %d of run %d", h, round, run-first)
		}
	}
	s := directory.Schedule{Start: day, Period: 10 * time.Second}
	for _, c := range []struct {
		at    time.Duration
		run   uint64
		round int
	}{{-time.Hour, 1, 0}, {0, 1, 0}, {230 * time.Second, 1, 23}, {240 * time.Second, 2, 0}} {
		if run, round := s.Run(day.Add(c.at)); run != c.run || round != c.round {
			t.Errorf("%v: round %d of run %d", c.at, round, run)
		}
	}
}

// commitments makes the revealed commitments of the first k authorities.
func commitments(n *dirtest.Net, run uint64, k int) []directory.Commitment {
	var list []directory.Commitment
	for i := range k {
		list = append(list, directory.Commit(n.Network.ID(), run, n.Authorities[i].Info.ID, [32]byte{byte(i), 7}))
	}
	return list
}

func TestSharedValueFollowsFromTheReveals(t *testing.T) {
	n := dirtest.New(1, 0)
	id := n.Network.ID()
	start := directory.SharedRandom{}.Next(id, 5, nil)
	if start.Run != 5 || start.Current.Reveals != 0 || start.Previous.Reveals != 0 || start.Current.Value == start.Previous.Value {
		t.Errorf("a network begins with %+v", start)
	}
	list := commitments(n, 5, 4)
	next := start.Next(id, 6, list)
	list[0], list[2] = list[2], list[0]
	if again := start.Next(id, 6, list); again != next {
		t.Error("the order of the reveals matters")
	}
	if next.Previous != start.Current || next.Current.Reveals != 4 {
		t.Errorf("after one run %+v", next)
	}
	seen := map[directory.Digest]bool{start.Previous.Value: true, start.Current.Value: true, next.Current.Value: true}
	for name, s := range map[string]directory.SharedRandom{
		"a secret less":   start.Next(id, 6, list[1:]),
		"another network": start.Next(cell.NetworkID{1}, 6, list),
		"another past":    next.Next(id, 7, nil).Next(id, 8, list),
		"no reveals":      start.Next(id, 6, nil),
	} {
		if seen[s.Current.Value] {
			t.Errorf("%s makes no difference", name)
		}
		seen[s.Current.Value] = true
	}
	// Whoever missed runs agrees with nobody on their values but what all can compute.
	late := start.Next(id, 8, commitments(n, 7, 4))
	if late.Previous.Reveals != 0 || late.Current.Reveals != 4 || late.Run != 8 {
		t.Errorf("after two runs that nobody saw %+v", late)
	}
	if v, ok := next.Of(6); !ok || v != next.Current {
		t.Error("the value of its run is not found")
	}
	if v, ok := next.Of(5); !ok || v != start.Current {
		t.Error("the value of the run before is not found")
	}
	for _, run := range []uint64{0, 4, 7} {
		if _, ok := next.Of(run); ok {
			t.Errorf("there is a value for run %d", run)
		}
	}
	if _, ok := (directory.SharedRandom{}).Of(0); ok {
		t.Error("the value of no run is found")
	}
}

// A commitment binds its author, run and network: nobody can copy another's, or reveal another secret.
func TestCommitmentBindsItsAuthor(t *testing.T) {
	n := dirtest.New(1, 1)
	v, _ := n.Vote(0)
	good := slices.Clone(v.Commitments)
	other := n.Authorities[1].Info.ID
	for name, change := range map[string]func(*directory.Vote){
		"good":                    func(*directory.Vote) {},
		"another's":               func(v *directory.Vote) { v.Commitments[0].Authority = other },
		"of another run":          func(v *directory.Vote) { v.Commitments[0].Run-- },
		"another reveal":          func(v *directory.Vote) { v.Commitments[0].Reveal[0] ^= 1 },
		"there twice":             func(v *directory.Vote) { v.Commitments = append(v.Commitments, v.Commitments[1]) },
		"out of order":            func(v *directory.Vote) { v.Commitments[0], v.Commitments[1] = v.Commitments[1], v.Commitments[0] },
		"too many":                func(v *directory.Vote) { v.Commitments = make([]directory.Commitment, directory.MaxCommitments+1) },
		"a value of zero":         func(v *directory.Vote) { v.Shared.Current.Value = directory.Digest{} },
		"a value of no run":       func(v *directory.Vote) { v.Shared.Run = 0 },
		"a value of many reveals": func(v *directory.Vote) { v.Shared.Current.Reveals = directory.MaxAuthorities + 1 },
	} {
		v.Commitments = slices.Clone(good)
		v.Shared = n.Consensus.Shared
		change(v)
		_, err := v.Sign(n.Authorities[0].Signing)
		if (err == nil) != (name == "good") {
			t.Errorf("a vote with a commitment %s: %v", name, err)
		}
		// Whoever signs it all the same is not understood.
		text := resign("peel vote v1\n", v.Append(nil), n.Authorities[0].Signing)
		if _, err := directory.ParseVote(text); (err == nil) != (name == "good") && name != "a value of no run" {
			t.Errorf("a signed vote with a commitment %s: %v", name, err)
		}
	}
}

func TestSharedValuesThatAreRefused(t *testing.T) {
	n := dirtest.New(1, 1)
	text := string(n.Consensus.SignedHeader.Append(nil))
	line := func(key string) string {
		i := strings.Index(text, key)
		return text[i : i+strings.Index(text[i:], "\n")+1]
	}
	previous, current := line("shared-random-previous"), line("shared-random-current")
	for name, bad := range map[string]string{
		"without a previous":    strings.Replace(text, previous, "", 1),
		"without a current":     strings.Replace(text, current, "", 1),
		"of other runs":         strings.Replace(text, previous, strings.Replace(current, "current", "previous", 1), 1),
		"the other way round":   strings.Replace(text, previous+current, current+previous, 1),
		"with a word too much":  strings.Replace(text, current, current[:len(current)-1]+" 1\n", 1),
		"with a word less":      strings.Replace(text, current, current[:strings.LastIndex(current, " ")]+"\n", 1),
		"with a leading zero":   strings.Replace(text, "current ", "current 0", 1),
		"with a capital letter": strings.Replace(text, current, strings.ToUpper(current), 1),
	} {
		if bad == text {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := directory.ParseSignedHeader([]byte(bad)); err == nil {
			t.Errorf("values %s are taken", name)
		}
	}
	if _, err := directory.ParseSignedHeader([]byte(strings.Replace(text, previous+current, "", 1))); err != nil {
		t.Errorf("a header without values: %v", err)
	}
}
