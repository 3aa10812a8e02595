package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// reader is whom a run writes to: when nobody reads on, the run ends.
type reader struct {
	to     io.Writer
	cancel context.CancelFunc

	mu  sync.Mutex
	err error
}

// untilNobodyReads has a run end in order, by cancel, when what it prints cannot be written to out, as in a pipe to head: by its signal it
// would end at once, and leave its folders, with keys. The signal is asked for and not ignored, as programs that it starts would inherit that.
func untilNobodyReads(out io.Writer, cancel context.CancelFunc) *reader {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return &reader{to: out, cancel: cancel}
}

func (w *reader) Write(b []byte) (int, error) {
	n, err := w.to.Write(b)
	if err != nil {
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
		w.cancel()
	}
	return n, err
}

// broken is why the run could not print; nil: it could.
func (w *reader) broken() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return fmt.Errorf("testnet: what is said cannot be written, so the run ended: %w", w.err)
	}
	return nil
}
