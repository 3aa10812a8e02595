//go:build !windows

package cache

import "github.com/google/renameio/v2"

// WriteFile replaces a file so that a crash at any moment leaves the old or the new one. Only its owner can read it.
func WriteFile(name string, b []byte) error { return renameio.WriteFile(name, b, 0o600) }
