package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// WriteFile replaces a file so that a crash at any moment leaves the old or the new one, on Windows a crash of the program; when it
// returns, the new one is on the disk. Only its owner can read it. What is being written stands beside it: there whoever owns the folder
// finds what a crash left behind (Sweep), and nobody else sees when something is written.
func WriteFile(name string, b []byte) error {
	f, err := Create(name)
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
	return SyncFolder(filepath.Dir(name))
}

// mark stands between the name that a file is to have and a number while it is being written, and in names that no other program gives.
const mark = ".peel-"

// unfinished is the pattern, for os.CreateTemp, of a file that is to have a name when it is whole.
func unfinished(name string) string { return "." + name + mark + "*" }

// isUnfinished says whether a file has such a name.
func isUnfinished(name string) bool {
	at := strings.LastIndex(name, mark)
	if at < len(".x") || name[0] != '.' {
		return false
	}
	_, err := strconv.ParseUint(name[at+len(mark):], 10, 64)
	return err == nil
}

// Create begins a file beside the one that it is to be: of mode 0600, and found by Sweep if a crash leaves it.
func Create(name string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(name), unfinished(filepath.Base(name)))
}

// Sweep removes what crashes left in a folder of files that were being written (WriteFile, Create), and nothing else. Whoever calls it
// knows that nobody else writes there now, as who has the folder does (Hold).
func Sweep(dir string) {
	files, _ := os.ReadDir(dir) // what can't be read holds nothing up
	for _, f := range files {
		if f.Type().IsRegular() && isUnfinished(f.Name()) {
			os.Remove(filepath.Join(dir, f.Name()))
		}
	}
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
