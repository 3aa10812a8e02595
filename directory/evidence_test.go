package directory_test

import (
	"slices"
	"strings"
	"testing"

	"peel/directory"
	"peel/directory/dirtest"
)

// votesAndHeaders makes two votes and two headers of the first authority for one period.
func votesAndHeaders(t testing.TB, n *dirtest.Net) (votes, headers [2][]byte) {
	a := &n.Authorities[0]
	for i := range 2 {
		v, _ := n.Vote(0)
		v.Params = directory.Params{"half": int32(i)}
		text, err := v.Sign(a.Signing)
		if err != nil {
			t.Fatal(err)
		}
		votes[i] = text
		h := n.Consensus.Header
		h.Params = v.Params
		sig, err := h.Sign(a.Certificate, a.Signing)
		if err != nil {
			t.Fatal(err)
		}
		s := directory.SignedHeader{Header: h, Signatures: []directory.Signature{sig}}
		headers[i] = s.Append(nil)
	}
	return votes, headers
}

func TestEvidenceConvictsOnlyWhoSignedTwice(t *testing.T) {
	n := dirtest.New(1, 3)
	votes, headers := votesAndHeaders(t, n)
	_, others := n.Vote(1)
	other := dirtest.New(2, 3)
	foreign, foreignHeaders := votesAndHeaders(t, other)
	later := *n.Consensus
	later.ValidAfter = later.ValidAfter.Add(1e9)
	n.Sign(&later, 1)
	tomorrow := later.SignedHeader.Append(nil)
	for _, c := range []struct {
		name, kind string
		proof      []byte
		want       string
	}{
		{"two votes", directory.TwoVotes, slices.Concat(votes[0], votes[1]), ""},
		{"two headers", directory.TwoHeaders, slices.Concat(headers[1], headers[0]), ""},
		{"one vote", directory.TwoVotes, votes[0], "not two documents"},
		{"the same vote twice", directory.TwoVotes, slices.Concat(votes[0], votes[0]), "twice the same"},
		{"the same header twice", directory.TwoHeaders, slices.Concat(headers[0], headers[0]), "twice the same"},
		{"votes of two", directory.TwoVotes, slices.Concat(votes[0], others), "two authorities"},
		{"headers for two periods", directory.TwoHeaders, slices.Concat(headers[0], tomorrow), "two periods"},
		{"votes of another network", directory.TwoVotes, slices.Concat(foreign[0], foreign[1]), "network"},
		{"headers of another network", directory.TwoHeaders, slices.Concat(foreignHeaders[0], foreignHeaders[1]), "network"},
		{"votes as headers", directory.TwoHeaders, slices.Concat(votes[0], votes[1]), "not two"},
		{"three votes", directory.TwoVotes, slices.Concat(votes[0], votes[0], votes[1]), "first document"},
		{"nothing", directory.TwoVotes, nil, "not two"},
		{"an unknown kind", "lies", slices.Concat(votes[0], votes[1]), "no kind"},
		{"too much", directory.TwoVotes, make([]byte, directory.MaxEvidence+1), "at most"},
	} {
		id, period, err := directory.CheckEvidence(n.Network, c.kind, c.proof)
		switch {
		case c.want == "":
			if err != nil || id != n.Authorities[0].Info.ID || !period.Equal(n.Consensus.ValidAfter) {
				t.Errorf("%s: %v %v %v", c.name, id, period, err)
			}
		case err == nil || !strings.Contains(err.Error(), c.want) || !id.IsZero():
			t.Errorf("%s: %v %v, want %q", c.name, id, err, c.want)
		}
	}
}

// Nobody can make evidence of what an honest authority signed: whatever is changed in it, the
// signatures do not fit any more.
func TestChangedEvidenceIsRefused(t *testing.T) {
	n := dirtest.New(1, 1)
	votes, headers := votesAndHeaders(t, n)
	for kind, proof := range map[string][]byte{
		directory.TwoVotes: slices.Concat(votes[0], votes[1]), directory.TwoHeaders: slices.Concat(headers[0], headers[1]),
	} {
		for i := range proof {
			if i%7 != 0 {
				continue
			}
			bad := slices.Clone(proof)
			bad[i] ^= 1
			if _, _, err := directory.CheckEvidence(n.Network, kind, bad); err == nil {
				t.Fatalf("%s: byte %d changed, and still evidence", kind, i)
			}
			if _, _, err := directory.CheckEvidence(n.Network, kind, proof[:i]); err == nil {
				t.Fatalf("%s: cut off at %d, and still evidence", kind, i)
			}
		}
	}
}
