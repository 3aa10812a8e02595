package authority

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// In no order of signatures and crashes do two headers of a period have enough signatures; with one
// signature less, one dishonest authority more, or one that forgets what it signed, in some they do.
func TestModelOfQuorumNeverSplits(t *testing.T) {
	for _, tool := range []string{"spin", "cc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not here: the model of the quorum is not checked", tool)
		}
	}
	model, err := filepath.Abs("testdata/quorum.pml")
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range []struct {
		name    string
		defines []string
		wrong   bool
	}{
		{"4 of 5, one dishonest", nil, false},
		{"a bare majority of 5", []string{"-DT=3"}, true},
		{"signatures that a crash forgets", []string{"-DFORGETS"}, true},
		// From here on with PEEL_SLOW=1 only.
		{"3 of 4, one dishonest", []string{"-DN=4"}, false},
		{"4 of 5, two dishonest: nobody can split it, though they can stop it", []string{"-DBAD=2"}, false},
		{"5 of 7, two dishonest", []string{"-DN=7", "-DBAD=2", "-DCRASHES=0"}, false},
		{"4 of 5, three dishonest", []string{"-DBAD=3"}, true},
		{"5 of 7, three dishonest", []string{"-DN=7", "-DBAD=3"}, true},
	} {
		if i >= 3 && !slow() {
			break
		}
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
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
			run("spin", append(append([]string{"-a"}, x.defines...), model)...)
			run("cc", "-w", "-O1", "-DSAFETY", "-o", "pan", "pan.c")
			out := run(filepath.Join(dir, "pan"), "-m10000")
			states := regexp.MustCompile(`(\d+) states, stored`).FindSubmatch(out)
			errs := regexp.MustCompile(`errors: (\d+)`).FindSubmatch(out)
			if states == nil || errs == nil || regexp.MustCompile(`(?i)max search depth too small`).Match(out) {
				t.Fatalf("spin did not look at all states:\n%s", out)
			}
			t.Logf("%s states, errors %s", states[1], errs[1])
			if wrong := string(errs[1]) != "0"; wrong != x.wrong {
				t.Errorf("two valid headers: %v, want %v", wrong, x.wrong)
			}
		})
	}
}
