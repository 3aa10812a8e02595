package cache

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile replaces a file so that a crash at any moment leaves the old or the new one, on Windows a crash of the program; when it
// returns, the new one is on the disk. Only its owner can read it. What is being written stands beside it: there whoever owns the folder
// finds what a crash left behind, and nobody else sees when something is written.
func WriteFile(name string, b []byte) error {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)) // of mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncFolder(dir)
}
