package link_test

import (
	"testing"

	"peel/cell/spintest"
)

// TestModelOfCreditNeverStops: two hops, both directions, ends that answer. The mistakes that would stop it are found.
func TestModelOfCreditNeverStops(t *testing.T) {
	for _, x := range []struct {
		name    string
		defines []string
		wrong   bool
		slow    bool // with PEEL_SLOW=1 only
	}{
		{"windows of 1", []string{"-DINFORCE=1", "-DASKS=3"}, false, false},
		{"windows of 2", []string{"-DINFORCE=2"}, false, true},
		{"windows of 3", []string{"-DINFORCE=3"}, false, true},
		{"the exit takes no cells while its answers cannot go", []string{"-DWAITS"}, true, false},
		{"the same, windows of 2", []string{"-DWAITS", "-DINFORCE=2"}, true, true},
		{"credit returns when half of the size is owed", []string{"-DOFSIZE"}, true, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			if x.slow && !slow {
				t.Skip("PEEL_SLOW=1 looks at this")
			}
			t.Parallel()
			states, wrong := spintest.Run(t, "testdata/credit.pml", x.defines...)
			t.Logf("%d states, something is wrong: %v", states, wrong)
			if wrong != x.wrong {
				t.Error("not what was expected")
			}
		})
	}
}
