package authority

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/directory"
	"peel/directory/dirtest"
)

// Whichever write an authority crashes at, before it or after it, all others have a consensus and so
// has it when it is back; and it signs one header.
func TestCrashAtEachWrite(t *testing.T) {
	net := dirtest.New(5, 2, dirtest.At(hour(1)), dirtest.Schedule(directory.Schedule{Start: hour(1)}))
	crashes := 0
	for _, after := range []bool{false, true} {
		for k := 0; ; k++ {
			s := newSim(t, fmt.Sprintf("write %d, after it: %v", k, after), net, 1)
			writes, crashed := 0, false
			s.crashAt = func(n *simNode) (bool, bool) {
				if n.i != 0 {
					return false, false
				}
				if writes++; writes-1 != k {
					return false, false
				}
				crashed = true
				s.after(10*time.Second, n.start)
				return !after, after
			}
			for _, n := range s.nodes {
				s.at(minute(40), n.start)
			}
			s.runUntil(hour(1).Add(10 * time.Minute))
			if !crashed {
				break
			}
			crashes++
			for _, n := range s.nodes {
				if n.consensus == nil || !n.consensus.ValidAfter.Equal(hour(1)) {
					s.fatal("authority %d has no consensus", n.i)
				}
			}
		}
	}
	if crashes < 2*8 { // a vote, the votes of four, a signature, the random value twice
		t.Errorf("only %d crashes", crashes)
	}
}

// Whatever a crash of the machine makes of the end of a file, an authority starts with what it knew
// or without it, and never says for the same period what it might have contradicted before.
func TestDamagedFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 5, 5)
		dir := t.TempDir()
		cfg := w.nodes[0].cfg
		cfg.Dir = dir
		a, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range w.nodes[1:] {
			n.start()
		}
		defer w.stopAll()
		w.nodes[0].handler = a
		w.publishAll()
		ctx, cancel := context.WithDeadline(t.Context(), minute(58))
		defer cancel()
		if err := a.Run(ctx); err != nil {
			t.Fatal(err)
		}
		a.feed(gotVote{0, mustVote(w, 4, 1), []byte("x")}) // makes evidence, though none that can be read again
		signed := a.voter.last.text
		a.Close()
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, f := range files {
			if f.IsDir() || f.Name() == "lock" {
				continue // past consensuses, and what says that the folder is in use: the cache's
			}
			text, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			kind, _, _ := strings.Cut(f.Name(), "-")
			seen[kind] = true
			for _, keep := range []int{0, 1, len(text) / 2, len(text) - 1} {
				for _, zeros := range []bool{false, true} {
					bad := bytes.Clone(text[:max(keep, 0)])
					if zeros {
						bad = append(bad, make([]byte, len(text)-len(bad))...)
					}
					if bytes.Equal(bad, text) {
						continue
					}
					if err := os.WriteFile(filepath.Join(dir, f.Name()), bad, 0o600); err != nil {
						t.Fatal(err)
					}
					again, err := New(cfg)
					if f.Name() == keptSigned {
						if err == nil || !strings.Contains(err.Error(), "what was signed last cannot be read") {
							t.Errorf("%s: %d of %d bytes, zeros %v: %v", f.Name(), keep, len(text), zeros, err)
						}
						continue
					}
					if err != nil {
						t.Errorf("%s: %d of %d bytes, zeros %v: %v", f.Name(), keep, len(text), zeros, err)
						continue
					}
					again.Close()
					if again.voter.last == nil || !bytes.Equal(again.voter.last.text, signed) {
						t.Errorf("%s damaged: what was signed is forgotten", f.Name())
					}
					if f.Name() == voteName(again.self, 0) {
						again.voter.phase, again.voter.begun = Vote, true
						for _, act := range again.voter.begin(time.Now()) {
							if _, ok := act.(makeVote); ok {
								t.Errorf("%s damaged: it votes again", f.Name())
							}
						}
					}
				}
			}
			if err := os.WriteFile(filepath.Join(dir, f.Name()), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, kind := range []string{"vote", "signed", "descriptors", "evidence", "shared"} {
			if !seen[kind] {
				t.Errorf("no file %s was damaged", kind)
			}
		}
		left := []string{".signed.peel-123", ".measured.peel-123", ".descriptors.peel-123", ".shared-random.peel-123", ".history.peel-123"}
		for _, name := range left {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if again, err := New(cfg); err != nil {
			t.Error(err)
		} else {
			again.Close()
		}
		for _, name := range left {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				t.Errorf("%s, which a crash left behind, stays", name)
			}
		}
		last := filepath.Join(dir, keptSigned)
		if os.Remove(last) == nil && os.Symlink(os.DevNull, last) == nil {
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "not a plain file") {
				t.Errorf("a device in the place of what was signed: %v", err)
			}
		}
	})
}

func mustVote(w *world, i int, half int32) *directory.Vote {
	v, _ := w.vote(i, hour(1), func(v *directory.Vote) { v.Params = directory.Params{"half": half} })
	return v
}
