package cache

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A folder is one node's alone, until that gives it back.
func TestAFolderIsHeldByOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	if Held(dir) {
		t.Error("a folder that is not there is held")
	}
	for range 2 {
		release, err := Hold(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Hold(dir, nil); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
			t.Errorf("held twice: %v", err)
		}
		if !Held(dir) {
			t.Error("it is held, and Held says no")
		}
		release()
		if Held(dir) {
			t.Error("it was given back, and Held says yes")
		}
	}
	if _, err := Hold("", nil); err != nil {
		t.Error(err)
	}
}

// A node that is killed leaves its folder free, and one that runs keeps another program out.
func TestAFolderIsFreeWhenItsProgramIsKilled(t *testing.T) {
	const child = "PEEL_TEST_HOLD"
	if dir := os.Getenv(child); dir != "" {
		_, err := Hold(dir, nil)
		fmt.Println("held", err)
		io.Copy(io.Discard, os.Stdin) // until it is killed, or the test has ended
		os.Exit(0)
	}
	dir := t.TempDir()
	c := exec.Command(os.Args[0], "-test.run=^TestAFolderIsFreeWhenItsProgramIsKilled$")
	c.Env = append(os.Environ(), child+"="+dir)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var word, what string
	if _, err := fmt.Fscan(out, &word, &what); err != nil || word+what != "held<nil>" {
		t.Errorf("the other program: %q %q, %v", word, what, err)
	}
	if _, err := Hold(dir, nil); !errors.Is(err, ErrInUse) || !Held(dir) {
		t.Errorf("while another program holds it: %v, and Held says %v", err, Held(dir))
	}
	c.Process.Kill()
	c.Wait() // an error, as it was killed
	release, err := Hold(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	release()
}

// Where nothing can be locked, or written, a node starts all the same and says once what that means; what is in the lock's place is an error.
func TestWhereNothingCanBeLocked(t *testing.T) {
	dir := t.TempDir()
	none := func(err error) func(string) (func(), error) {
		return func(string) (func(), error) { return nil, err }
	}
	for _, c := range []struct {
		name  string
		lock  func(string) (func(), error)
		there bool
		fails string
	}{
		{"no locks", none(fmt.Errorf("%w: no locks available", ErrNoLock)), true, ""},
		{"a disk that is read only", none(&os.PathError{Op: "open", Path: "lock", Err: syscall.EROFS}), true, ""},
		{"a folder that is read only", none(&os.PathError{Op: "open", Path: "lock", Err: syscall.EACCES}), false, ""},
		{"another user's file", none(&os.PathError{Op: "open", Path: "lock", Err: syscall.EACCES}), true, "permission denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if path := filepath.Join(dir, holdFile); c.there {
				os.WriteFile(path, nil, 0o600)
			} else {
				os.Remove(path)
			}
			var log strings.Builder
			release, err := hold(dir, slog.New(slog.NewTextHandler(&log, nil)), c.lock)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) || log.Len() > 0 {
					t.Errorf("%v; the log: %s", err, &log)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			release()
			if strings.Count(log.String(), "level=WARN") != 1 || !strings.Contains(log.String(), "second node") {
				t.Errorf("the log: %s", &log)
			}
		})
	}
	os.Remove(filepath.Join(dir, holdFile))
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, holdFile)); err != nil {
		t.Skip(err)
	}
	if _, err := Hold(dir, nil); err == nil {
		t.Error("a link was followed")
	}
	if _, err := os.Lstat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("a file was made where a link leads")
	}
}
