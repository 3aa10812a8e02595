package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A run whose output nobody reads any more ends in order, and leaves no folder.
func TestARunThatNobodyReadsEndsInOrder(t *testing.T) {
	for _, args := range []string{"testnet run first-page", "testnet --relays 3 --exits 1 --authorities 1 --socks 127.0.0.1:0 --web off --json"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), "peel", strings.Fields(args)...)
		cmd.Env = append(os.Environ(), "TMPDIR="+dir, "TMP="+dir)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = w, &said
		err = cmd.Run()
		w.Close()
		if left, _ := os.ReadDir(dir); cmd.ProcessState.ExitCode() != 1 || strings.Count(said.String(), "cannot be written") != 1 || len(left) > 0 {
			t.Errorf("%s: %v, left %v: %s", args, err, left, &said)
		}
	}
}

// The status is that of all files: one that failed or did not run makes it 1, one that the ground refuses does not while others run, and where
// it refuses all it is that of wrong use, 2.
func TestWhatBecameOfSeveralPlansIsSaid(t *testing.T) {
	for _, c := range []struct {
		tally
		code int
		want string
	}{
		{tally{ran: 3}, 0, ""}, {tally{ran: 1, refused: 2}, 0, ""}, {tally{refused: 3}, 2, "3 of 3 cannot run here"}, {tally{ran: 1}, 1, "2 of 3 did not run"},
		{tally{ran: 2, failed: 1, refused: 1}, 1, "1 of 3 failed, 1 of 3 cannot run here"},
	} {
		err := c.err(3)
		code, said := 0, ""
		var exit *exitError
		var usage *usageError
		switch {
		case errors.As(err, &exit):
			code, said = exit.code, exit.err.Error()
		case errors.As(err, &usage):
			code, said = 2, err.Error()
		case err != nil:
			code = -1
		}
		if want := "testnet run: " + c.want; code != c.code || said != want && c.want != "" {
			t.Errorf("%+v: %v, status %d, want %q and %d", c.tally, err, code, want, c.code)
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
