package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

// Who reads a node's log reads what went wrong, in the words that peel itself would print, and not which package found it.
func TestErrorsInALogAreForPeople(t *testing.T) {
	var b bytes.Buffer
	log, _ := logger(&b, "")
	log.Warn("not built", "why", fmt.Errorf("circuit: hop 1: %w", fmt.Errorf("link: cannot reach it: %w", syscall.ECONNREFUSED)), "link: said", "link: as it is")
	log.Error("not kept", "why", &fs.PathError{Op: "open", Path: "/state/onion.keys", Err: syscall.ENOSPC})
	for _, want := range []string{
		`msg="not built" why="hop 1: cannot reach it: connection refused" "link: said"="link: as it is"`,
		`msg="not kept" why="/state/onion.keys: no space left on device: make room there"`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, &b)
		}
	}
}
