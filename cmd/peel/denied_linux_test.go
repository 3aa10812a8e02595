package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// withoutRoot does something with the rights to files that nobody has, also where root runs the tests.
func withoutRoot(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		if os.Geteuid() == 0 {
			if err := syscall.Setfsuid(65534); err != nil {
				t.Error(err)
				return
			}
		}
		do()
	}()
	<-done
}

// Who may not look into a folder is told that, and not that there is nothing in it.
func TestAFolderOfAnotherUserIsNotAnEmptyOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	for what, ask := range map[string]func() error{
		"a node's folder": func() error { _, err := (&which{dir: dir}).ask(); return err },
		"one below it":    func() error { _, err := (&which{dir: filepath.Join(dir, "state")}).ask(); return err },
		"its socket":      func() error { _, err := (&which{socket: filepath.Join(dir, "admin.sock")}).ask(); return err },
		"its file":        func() error { _, err := (&which{config: filepath.Join(dir, "relay.toml")}).ask(); return err },
		"its keys":        func() error { return showPath(new(bytes.Buffer), dir, time.Now()) },
	} {
		withoutRoot(t, func() {
			if err := ask(); err == nil || !strings.Contains(plainly(err), "permission denied") || !strings.Contains(plainly(err), "or as root") {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	withoutRoot(t, func() {
		if lifeOf(context.Background(), dir) != unknown {
			t.Error("who may not ask a node says that it does not run")
		}
	})
}
