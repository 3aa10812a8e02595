package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
)

// sandboxed confines a node to its own files: it writes below the folders written, and reads below those of the files read, so
// that they can be replaced and reloaded. "" is none. off: the configuration does not want it.
func sandboxed(log *slog.Logger, off bool, written []string, read ...string) error {
	if off {
		log.Info("not confined to its own files, as the configuration says")
		return nil
	}
	var w, r []string
	for _, dir := range written {
		if dir == "" || slices.Contains(w, dir) {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		w = append(w, dir)
	}
	for _, name := range read {
		if dir := filepath.Dir(name); name != "" && !slices.Contains(r, dir) {
			r = append(r, dir)
		}
	}
	if err := confine(log, w, r); err != nil {
		return fmt.Errorf("the process cannot be confined to its own files: %w (no_sandbox = true in the configuration goes without)", err)
	}
	return nil
}
