package authority

import (
	"testing"

	"peel/cell/spintest"
)

// In no order of signatures and crashes do two headers of a period have enough signatures; with one
// signature less, one dishonest authority more, or one that forgets what it signed, in some they do.
func TestModelOfQuorumNeverSplits(t *testing.T) {
	for i, x := range []struct {
		name    string
		defines []string
		wrong   bool
	}{
		{"4 of 5, one dishonest", nil, false},
		{"a bare majority of 5", []string{"-DT=3"}, true},
		// From here on with PEEL_SLOW=1 only.
		{"signatures that a crash forgets", []string{"-DFORGETS"}, true},
		{"3 of 4, one dishonest", []string{"-DN=4"}, false},
		{"4 of 5, two dishonest: nobody can split it, though they can stop it", []string{"-DBAD=2"}, false},
		{"5 of 7, two dishonest", []string{"-DN=7", "-DBAD=2", "-DCRASHES=0"}, false},
		{"4 of 5, three dishonest", []string{"-DBAD=3"}, true},
		{"5 of 7, three dishonest", []string{"-DN=7", "-DBAD=3"}, true},
	} {
		if i >= 2 && !slow() {
			break
		}
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			states, wrong := spintest.Run(t, "testdata/quorum.pml", x.defines...)
			t.Logf("%d states, two valid headers: %v", states, wrong)
			if wrong != x.wrong {
				t.Error("not what was expected")
			}
		})
	}
}
