package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// statusEvery is how often a service manager is told what the node does.
const statusEvery = 10 * time.Second

// tell sends a message to the service manager, if one waits for it (sd_notify(3)).
func tell(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}

// supervised tells the service manager, if there is one, that the node has started, what it does, and, as often as that asks, that
// it is alive: now must return for that, so it should take the locks that the node works under.
func supervised(ctx context.Context, log *slog.Logger, now func() string) error {
	if err := tell("READY=1\nSTATUS=" + now()); err != nil {
		log.Warn("the service manager cannot be told that the node has started", "why", err)
	}
	every := statusEvery
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog is not understood", "why", err)
	}
	if watchdog > 0 {
		every = min(every, watchdog/2)
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if ending.Load() {
			_ = tell("WATCHDOG=1") // the status stays what it was
			continue
		}
		_ = tell("WATCHDOG=1\nSTATUS=" + now()) // it may come back
	}
}
