package authority

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
)

func TestListOfVotes(t *testing.T) {
	b := newBallot(5, 2)
	r := newRound(b.period)
	for i := range b.votes {
		v, text := b.net.Vote(i)
		if !r.addVote(v, text) || r.addVote(v, text) {
			t.Fatal("a vote is news once")
		}
	}
	list, err := parseList(r.list())
	if err != nil || len(list) != 5 {
		t.Fatalf("%d votes listed, %v", len(list), err)
	}
	for _, l := range list {
		if !r.holdsVote(l.authority, l.digest) || r.holdsVote(l.authority, directory.Digest{}) {
			t.Errorf("%v %v is listed but not held", l.authority, l.digest)
		}
	}
	if len(r.list()) > maxList {
		t.Errorf("%d bytes, above the limit", len(r.list()))
	}
	line := strings.SplitAfter(string(r.list()), "\n")[0]
	for _, bad := range []string{"x", "\n", "a b\n", line[1:], strings.ToUpper(line), strings.ReplaceAll(line, " ", "  "),
		line[:60] + "\n", strings.Repeat(line, directory.MaxAuthorities*evidenceKept+1)} {
		if _, err := parseList([]byte(bad)); err == nil {
			t.Errorf("the list %.40q was not refused", bad)
		}
	}
}

// Of an authority that votes again and again, two votes are kept, and none counts.
func TestVotesOfOneAuthorityAreBounded(t *testing.T) {
	b := newBallot(5, 2)
	r := newRound(b.period)
	v, text := b.net.Vote(0)
	id := v.Certificate.Identity
	r.addVote(v, text)
	if n := len(r.counted(cell.NodeID{}, 5)); n != 1 {
		t.Errorf("%d votes count, want 1", n)
	}
	for i := range 5 {
		r.addVote(v, append(text, byte(i)))
	}
	if n := len(r.votes[id]); n != evidenceKept {
		t.Errorf("%d votes kept", n)
	}
	if n := len(r.counted(cell.NodeID{}, 5)); n != 0 {
		t.Errorf("%d votes count, want none", n)
	}
}

// A vote or a signature for another period does not count, whoever hands it over: else an old one, shown again, would be a proof against its author.
func TestWhatIsForAnotherPeriodIsNotTakenIn(t *testing.T) {
	b := newBallot(5, 2)
	vote, text := b.net.Vote(0)
	header := b.net.Consensus.Header
	sig, err := header.Sign(b.net.Authorities[0].Certificate, b.net.Authorities[0].Signing)
	if err != nil {
		t.Fatal(err)
	}
	id := vote.Certificate.Identity
	for after, now := range map[time.Duration]time.Time{0: vote.ValidAfter.Add(-time.Minute), time.Hour: vote.ValidAfter.Add(time.Minute)} {
		v := newVoter(b.net.Network, b.net.Authorities[1].Info.ID, now, true)
		want := 0
		if v.round.period.ValidAfter.Equal(vote.ValidAfter) {
			want = 1
		}
		v.step(now, gotVote{0, vote, text})
		v.step(now, gotHeader{header, header.Digest(), []directory.Signature{sig}})
		if votes, headers := len(v.round.votes[id]), len(v.round.headers[id]); votes != want || headers != want || (after == 0) != (want == 1) {
			t.Errorf("%v after it: %d votes and %d signatures are held, and %d should be", after, votes, headers, want)
		}
		q := ask{of: id, after: v.round.period.ValidAfter}
		if err := q.fits(vote, text); (err == nil) != (want == 1) {
			t.Errorf("%v after it: the vote of the period before is what was asked for: %v", after, err)
		}
	}
}

// Our own vote counts only when another authority has it: else all others count without it.
func TestOwnVoteMustBeHeldByAnother(t *testing.T) {
	b := newBallot(5, 2)
	r := newRound(b.period)
	v, text := b.net.Vote(0)
	self := v.Certificate.Identity
	r.addVote(v, text)
	for _, c := range []struct {
		vouched     bool
		authorities int
		want        int
	}{{false, 5, 0}, {true, 5, 1}, {false, 1, 1}} {
		r.vouched = c.vouched
		if n := len(r.counted(self, c.authorities)); n != c.want {
			t.Errorf("%+v: %d votes count", c, n)
		}
	}
}

func TestSplitKeepsEveryByte(t *testing.T) {
	for _, c := range []struct {
		text string
		want int
	}{
		{"", 0}, {"x", 1}, {"top 1\n", 1}, {"top 1\na\ntop 1\nb\n", 2}, {"noise\ntop 1\n", 2}, {"top 1\ntop 1\ntop 1\n", 3}, {"a top 1\n", 1},
	} {
		parts := split([]byte(c.text), "top 1\n")
		if len(parts) != c.want || string(bytes.Join(parts, nil)) != c.text {
			t.Errorf("%q: %q", c.text, parts)
		}
	}
}

func FuzzParseList(f *testing.F) {
	b := newBallot(3, 1)
	r := newRound(b.period)
	for i := range b.votes {
		v, text := b.net.Vote(i)
		r.addVote(v, text)
	}
	whole := r.list()
	line := whole[:bytes.IndexByte(whole, '\n')+1]
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(whole[:len(whole)-2])
	f.Add(bytes.ToUpper(line))
	f.Add(bytes.Replace(line, []byte(" "), []byte("  "), 1))
	f.Add(bytes.Repeat(line, directory.MaxAuthorities*evidenceKept))
	f.Add(bytes.Repeat(line, directory.MaxAuthorities*evidenceKept+1))
	f.Add([]byte(nil))
	f.Add([]byte("a b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseList(text)
		if err != nil {
			return
		}
		if len(list) > directory.MaxAuthorities*evidenceKept {
			t.Errorf("%d lines taken", len(list))
		}
		var again []byte
		for _, l := range list {
			again = fmt.Appendf(again, "%v %v\n", l.authority, l.digest)
		}
		if !bytes.Equal(bytes.TrimSuffix(again, []byte("\n")), bytes.TrimSuffix(text, []byte("\n"))) {
			t.Errorf("%q says\n%s", text, again)
		}
	})
}
