//go:build unix

package main

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"
)

// SIGHUP reloads where there is something to reload, as often as it comes and whatever comes of it, and ends peel elsewhere.
func TestHangup(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := watchHangup(ctx, stop)
	hangup := func() {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	node, end := context.WithCancel(ctx)
	loaded := make(chan struct{})
	over := make(chan error, 1)
	go func() {
		over <- reloadOnHangup(node, func(context.Context) (string, error) {
			loaded <- struct{}{}
			return "", errors.New("a mistake")
		})
	}()
	for onHangup.Load() == nil { // until it listens
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatal("ended")
		}
	}
	for range 3 {
		hangup()
		<-loaded
	}
	if ctx.Err() != nil {
		t.Error("a hangup ended a node that reloads")
	}
	end()
	if err := <-over; err != nil || onHangup.Load() != nil {
		t.Errorf("%v; still reloading: %v", err, onHangup.Load() != nil)
	}
	hangup()
	<-ctx.Done()
	done()
}
