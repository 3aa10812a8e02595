package relay

import (
	"bytes"
	"crypto/ecdh"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"peel/directory/cache"
	"peel/directory/dirtest"
)

// killedAt is a time for quotas, which begin anew with each month.
var killedAt = time.Date(2026, 5, 5, 0, 0, 0, 0, time.UTC)

// A relay that is killed at any system call while it writes what it keeps starts with what there was or what there was to be: its identity and
// link key are the same, its onion keys follow on each other, what it sent is never less, and its directory is one of the two.
func TestKilledWhileStateIsWritten(t *testing.T) {
	if dir := os.Getenv("PEEL_TEST_STATE"); dir != "" {
		writeState(dir)
		return
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: nothing can be killed at an exact system call")
	}
	calls := []string{"fsync", "renameat,renameat2,rename"}
	if os.Getenv("PEEL_SLOW") == "1" {
		calls = append(calls, "write", "pwrite64", "openat", "fchmod,fchmodat", "close", "unlinkat", "newfstatat,fstat", "linkat")
	} else {
		t.Log("killed at two system calls only; PEEL_SLOW=1 has all")
	}
	dir := filepath.Join(t.TempDir(), "keys")
	k, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	k.Made = time.Now()
	if err := k.Save(dir); err != nil {
		t.Fatal(err)
	}
	sealedBytes := fileOf(t, dir, identityFile)
	n := dirtest.New(9, 4)
	if err := cache.WriteFile(filepath.Join(dir, "directory"), n.Text); err != nil {
		t.Fatal(err)
	}
	killed, before, after := 0, 0, 0
	was, sent := onionOf(k), uint64(0)
	for _, call := range calls {
		for when := 1; when <= 60; when++ {
			cmd := exec.Command(strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call, "-e", "inject="+call+":signal=KILL:when="+strconv.Itoa(when), os.Args[0], "-test.run", "^TestKilledWhileStateIsWritten$")
			cmd.Env = append(os.Environ(), "PEEL_TEST_STATE="+dir, "GOMAXPROCS=1")
			var out bytes.Buffer // so that Wait waits for all that it started
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			cache.Sweep(dir) // as New does
			got, loadErr := LoadKeys(dir)
			if loadErr != nil {
				t.Fatalf("killed at %s %d: %v", call, when, loadErr)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
				t.Fatalf("killed at %s %d: left behind: %v", call, when, left)
			}
			if got.ID() != k.ID() || !got.Link.Equal(k.Link) || !bytes.Equal(fileOf(t, dir, identityFile), sealedBytes) {
				t.Fatalf("killed at %s %d: it is another relay", call, when)
			}
			switch {
			case got.Onion.Equal(was.current):
				before++
			case !got.Made.After(was.since):
				t.Fatalf("killed at %s %d: onion keys of another time: %v after %v", call, when, got.Made, was.since)
			default:
				after++
			}
			was = onionOf(got)
			q := quota{most: 1}
			if err := q.load(dir, killedAt); err != nil || q.sent < sent {
				t.Fatalf("killed at %s %d: sent %d after %d: %v", call, when, q.sent, sent, err)
			}
			sent = q.sent
			if text := fileOf(t, dir, "directory"); !bytes.Equal(text, n.Text) && !bytes.Equal(text, bytes.ToUpper(n.Text)) {
				t.Fatalf("killed at %s %d: the directory is neither", call, when)
			}
			if err == nil {
				break // it came to its end before so many calls
			}
			killed++
		}
	}
	t.Logf("killed %d times: %d with the onion keys from before, %d with new ones", killed, before, after)
	if killed == 0 {
		t.Skip("strace kills nothing here: it may not trace")
	}
	if before == 0 || after == 0 {
		t.Error("one of the two never was: the test shows nothing")
	}
}

func onionOf(k Keys) onionKeys { return onionKeys{k.Onion, k.Previous, k.Made} }

func fileOf(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writeState is what is killed: it turns the onion keys, and writes the quota and the directory, as a relay does.
func writeState(dir string) {
	k, err := LoadKeys(dir)
	if err != nil {
		os.Exit(3)
	}
	o := onionOf(k)
	var q quota
	q.most = 1
	if err := q.load(dir, killedAt); err != nil {
		os.Exit(4)
	}
	rounds := 3
	if os.Getenv("PEEL_SLOW") == "1" {
		rounds = 16
	}
	for range rounds {
		next, changed, err := o.at(o.since.Add(onionLife), witness{sure: true}, func() (*ecdh.PrivateKey, error) { return newOnionKey() })
		if err != nil || !changed || saveOnion(cache.WriteFile, dir, next) != nil {
			os.Exit(5)
		}
		o = next
		q.sent += 1000
		text, err := os.ReadFile(filepath.Join(dir, "directory"))
		if err != nil || q.save(cache.WriteFile, dir) != nil {
			os.Exit(6)
		}
		if up := bytes.ToUpper(text); !bytes.Equal(text, up) {
			text = up
		} else {
			text = dirtest.New(9, 4).Text
		}
		if cache.WriteFile(filepath.Join(dir, "directory"), text) != nil {
			os.Exit(7)
		}
	}
}
