// Package spintest has Spin look at every state of a protocol's model, in tests.
package spintest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

var (
	stored = regexp.MustCompile(`(\d+) states, stored`)
	errs   = regexp.MustCompile(`errors: (\d+)`)
	cutOff = regexp.MustCompile(`(?i)search not completed.*\n.*depth|max search depth too small`)
)

// Run explores all states of the model in a file, with the definitions given, such as "-DN=4". It returns how many there are, and
// whether something is wrong in one: an assertion does not hold, or nothing can move before all is done. Where Spin or a C
// compiler is missing the test skips, with a notice; a model that could not be looked at as a whole fails it.
func Run(t *testing.T, model string, defines ...string) (states int, wrong bool) {
	t.Helper()
	for _, tool := range []string{"spin", "cc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("notice: %s is not here: %s is not checked", tool, filepath.Base(model))
		}
	}
	model, err := filepath.Abs(model)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(name string, args ...string) []byte {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return out
	}
	optimize := "-O0" // a small model is searched in less time than its program would be made faster in
	if os.Getenv("PEEL_SLOW") != "" {
		optimize = "-O1"
	}
	run("spin", append(append([]string{"-a"}, defines...), model)...)
	run("cc", "-w", optimize, "-DSAFETY", "-o", "pan", "pan.c")
	out := run(filepath.Join(dir, "pan"), "-m100000")
	n, e := stored.FindSubmatch(out), errs.FindSubmatch(out)
	if n == nil || e == nil || cutOff.Match(out) {
		t.Fatalf("spin did not look at all states:\n%s", out)
	}
	if states, err = strconv.Atoi(string(n[1])); err != nil {
		t.Fatal(err)
	}
	return states, string(e[1]) != "0"
}
