package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// holdFile is the file of a folder whose lock a node holds while it uses the folder. It stays: with it removed, two could hold it.
const holdFile = "lock"

// ErrInUse is in the error of a folder that a node uses already.
var ErrInUse = errors.New("another peel runs with this state folder: end it, or give this one another folder")

// ErrNoLock is in the error of a file that nobody can lock: its file system has no locks.
var ErrNoLock = errors.New("it cannot be locked")

// Hold makes a folder if it is missing, and has it for one node alone, in this program or another, until release is called or the program
// ends, however it does. What a crash left there of files that were being written is removed. Where nothing can be locked, as on some network file systems, it says so to the log and lets the node have the
// folder all the same; so it does where nothing can be written. Of "" nothing is held.
func Hold(dir string, log *slog.Logger) (release func(), err error) {
	if dir == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return hold(dir, log, Lock)
}

func hold(dir string, log *slog.Logger, lock func(path string) (func(), error)) (release func(), err error) {
	path := filepath.Join(dir, holdFile)
	release, err = lock(path)
	switch {
	case errors.Is(err, ErrNoLock), readOnly(err), errors.Is(err, fs.ErrPermission) && isMissing(path): // who cannot write there overwrites nothing
		if log != nil {
			log.Warn("nothing keeps a second node from this state folder, which would overwrite what this one keeps there: see that there is none", "why", err)
		}
		return func() {}, nil
	case errors.Is(err, ErrInUse):
		return nil, fmt.Errorf("%s: %w", dir, err)
	case err != nil:
		return nil, fmt.Errorf("cache: the state folder: %w", err)
	}
	Sweep(dir)
	return release, nil
}

func isMissing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// Held says whether a node uses a folder, as far as this user can tell. It makes nothing, and keeps no node from starting for longer than it takes.
func Held(dir string) bool {
	f, err := os.Open(filepath.Join(dir, holdFile))
	if err != nil {
		return false
	}
	defer f.Close()
	if err := lockFile(f, true); err != nil {
		return errors.Is(err, ErrInUse)
	}
	unlockFile(f)
	return false
}

// Lock makes a file if it is missing and holds its lock until unlock is called or the program ends. One that is locked, by this program or
// another, is ErrInUse; one that nobody can lock, ErrNoLock. The file stays.
func Lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, false); err != nil {
		f.Close()
		return nil, err
	}
	return func() {
		unlockFile(f) // and not by closing it alone: a program that is being started may have it for a moment longer
		f.Close()
	}, nil
}
