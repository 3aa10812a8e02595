package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A run whose output nobody reads any more ends in order, and leaves no folder.
func TestARunThatNobodyReadsEndsInOrder(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "peel", "testnet", "run", "first-page")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "TMP="+dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &said
	err = cmd.Run()
	w.Close()
	if left, _ := os.ReadDir(dir); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said.String(), "cannot be written") || len(left) > 0 {
		t.Errorf("%v, left %v: %s", err, left, &said)
	}
}

// The status is that of all files: one that failed or did not run makes it 1, one that the ground refuses does not while others run.
func TestWhatBecameOfSeveralPlansIsSaid(t *testing.T) {
	for _, c := range []struct {
		tally
		want string
	}{
		{tally{ran: 3}, ""}, {tally{ran: 1, refused: 2}, ""}, {tally{refused: 3}, "3 of 3 cannot run here"}, {tally{ran: 1}, "2 of 3 did not run"},
		{tally{ran: 2, failed: 1, refused: 1}, "1 of 3 failed, 1 of 3 cannot run here"},
	} {
		err := c.err(3)
		if err == nil && c.want == "" {
			continue
		}
		if e, ok := err.(*exitError); !ok || e.code != 1 || !strings.HasSuffix(e.err.Error(), ": "+c.want) {
			t.Errorf("%+v: %v, want %q", c.tally, err, c.want)
		}
	}
}

// Long scenarios have names, and are not among all.
func TestLongScenariosRunByTheirNamesOnly(t *testing.T) {
	r := new(labRun)
	if ps, err := r.plans([]string{"month"}); err != nil || len(ps) != 1 || ps[0].Name != "month" {
		t.Errorf("%v, %v", ps, err)
	}
	all, err := r.plans([]string{"all"})
	if err != nil || len(all) < 20 {
		t.Errorf("%d scenarios: %v", len(all), err)
	}
	for _, p := range all {
		if p.Name == "month" {
			t.Error("all has a month")
		}
	}
}
