package cache

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

const noFollow = 0 // there, folders are what keeps others out

// readOnly says whether a file cannot be written because its disk is not to be.
func readOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

// lockFile locks a file at once or fails with ErrInUse or ErrNoLock; shared: with all who share it.
func lockFile(f *os.File, shared bool) error {
	how := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if !shared {
		how |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, new(windows.Overlapped))
	switch {
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION), errors.Is(err, windows.ERROR_IO_PENDING):
		return ErrInUse
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrNoLock, f.Name(), err)
	}
	return nil
}

func unlockFile(f *os.File) {
	windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, new(windows.Overlapped))
}
