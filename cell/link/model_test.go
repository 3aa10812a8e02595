package link_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// spin explores all states of the model of credit with these definitions. It says how many there are, and whether something is
// wrong in one: nothing can move and not all is done, or an assertion does not hold.
func spin(t *testing.T, defines ...string) (states string, wrong bool) {
	t.Helper()
	model, err := filepath.Abs("testdata/credit.pml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(name string, args ...string) []byte {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return out
	}
	run("spin", append(append([]string{"-a"}, defines...), model)...)
	run("cc", "-w", "-O1", "-DSAFETY", "-o", "pan", "pan.c")
	out := run(filepath.Join(dir, "pan"), "-m100000")
	n := regexp.MustCompile(`(\d+) states, stored`).FindSubmatch(out)
	errs := regexp.MustCompile(`errors: (\d+)`).FindSubmatch(out)
	if n == nil || errs == nil || regexp.MustCompile(`(?i)search not completed.*\n.*depth|max search depth too small`).Match(out) {
		t.Fatalf("spin did not look at all states:\n%s", out)
	}
	return string(n[1]), string(errs[1]) != "0"
}

// TestModelOfCreditNeverStops: two hops, both directions, ends that answer. The mistakes that would stop it are found.
func TestModelOfCreditNeverStops(t *testing.T) {
	for _, tool := range []string{"spin", "cc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not here: the model of credit is not checked", tool)
		}
	}
	for _, x := range []struct {
		name    string
		defines []string
		wrong   bool
	}{
		{"windows of 1", []string{"-DINFORCE=1", "-DASKS=3"}, false},
		{"windows of 2", []string{"-DINFORCE=2"}, false},
		{"windows of 3", []string{"-DINFORCE=3"}, false},
		{"the exit takes no cells while its answers cannot go", []string{"-DWAITS"}, true},
		{"the same, windows of 2", []string{"-DWAITS", "-DINFORCE=2"}, true},
		{"credit returns when half of the size is owed", []string{"-DOFSIZE"}, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			states, wrong := spin(t, x.defines...)
			t.Logf("%s states, something is wrong: %v", states, wrong)
			if wrong != x.wrong {
				t.Error("not what was expected")
			}
		})
	}
}
