package authority

import (
	"slices"
	"testing"

	"peel/directory"
)

// An authority that computed no consensus cannot say who signed another: it accuses nobody.
func TestWhoComputedNothingAccusesNobody(t *testing.T) {
	n := &directory.Network{Threshold: 2, Authorities: []directory.AuthorityInfo{{Nickname: "one"}}}
	id := n.Authorities[0].ID
	r := newRound(Period{})
	r.headers[id] = []heldHeader{{digest: directory.Digest{1}}}
	if o := r.outcome(n); len(o.Differ)+len(o.Signatures)+len(o.MissingSignatures) != 0 {
		t.Errorf("without a consensus of its own: %+v", o)
	}
	r.result = new(directory.Consensus)
	if o := r.outcome(n); !slices.Equal(o.Differ, []string{"one"}) || len(o.Signatures) != 0 {
		t.Errorf("who signed another: %+v", o)
	}
	r.digest = directory.Digest{1}
	if o := r.outcome(n); !slices.Equal(o.Signatures, []string{"one"}) || len(o.Differ) != 0 {
		t.Errorf("who signed the same: %+v", o)
	}
}
