//go:build !windows

package cache

import (
	"errors"
	"os"
	"syscall"
)

// SyncFolder brings to the disk which files are in a folder: without that a power failure can bring the old one back.
func SyncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) { // not every file system knows it
		return err
	}
	return nil
}
