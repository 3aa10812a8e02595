package cache

import (
	"errors"
	"fmt"
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
	return SyncFolder(dir)
}

// ReadFile reads what WriteFile wrote, at most so many bytes. What is no plain file is refused: of a pipe nobody might ever write the
// other end, and a device might never end.
func ReadFile(name string, most int64) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: this is not a plain file", name)
	case info.Size() > most:
		return nil, fmt.Errorf("%s: %d bytes, but at most %d are allowed", name, info.Size(), most)
	}
	return os.ReadFile(name)
}
