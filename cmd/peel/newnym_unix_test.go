//go:build unix

package main

import (
	"context"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"peel/client"
	"peel/directory/dirtest"
)

// lines is a log whose lines are received.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// SIGUSR2 is a new identity, from the moment a client starts on: it never ends the program.
func TestSignalIsANewIdentity(t *testing.T) {
	signals, stop := onNewnym()
	defer stop()
	c, err := client.New(client.Config{Network: dirtest.New(1, 3).Network})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	log, over := make(lines), make(chan error, 1)
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	go func() { over <- heedNewnym(ctx, signals, c, slog.New(slog.NewTextHandler(log, nil))) }()
	if line := <-log; !strings.Contains(line, "new identity") {
		t.Error(line)
	}
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
}
