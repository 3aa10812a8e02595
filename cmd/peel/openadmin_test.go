package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Of two folders the one that can hold a socket has one, whichever it is, and the operator is told of the other.
func TestTheFolderThatCanHoldASocketHasOne(t *testing.T) {
	top, err := os.MkdirTemp("", "peel")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	long := filepath.Join(top, strings.Repeat("long", 25))
	for _, c := range []struct{ name, state, runtime, good, says string }{
		{"a long runtime folder", "state", long, "state", "service manager"},
		{"a long state folder", long, "run", "run", "state folder"},
		{"both are good", "state", "run", "run", ""},
	} {
		at := func(f string) string {
			if f != long {
				f = filepath.Join(top, f)
			}
			if err := os.MkdirAll(f, 0o700); err != nil {
				t.Fatal(err)
			}
			return f
		}
		t.Setenv("RUNTIME_DIRECTORY", at(c.runtime))
		var log strings.Builder
		s, err := openAdmin("relay", "", at(c.state), "", slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if _, err := os.Stat(filepath.Join(at(c.good), "admin.sock")); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !strings.Contains(log.String(), c.says) || (c.says == "") != (log.String() == "") {
			t.Errorf("%s: %s", c.name, &log)
		}
		s.Close()
	}
}
