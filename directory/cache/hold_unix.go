//go:build !windows

package cache

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const noFollow = syscall.O_NOFOLLOW

// readOnly says whether a file cannot be written because its file system is not to be.
func readOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

// lockFile locks a file at once or fails with ErrInUse or ErrNoLock; shared: with all who share it.
func lockFile(f *os.File, shared bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return ErrInUse
	case err != nil: // ENOLCK, EOPNOTSUPP, ENOSYS: each file system has its own way to say that it has no locks
		return fmt.Errorf("%w: %s: %w", ErrNoLock, f.Name(), err)
	}
	return nil
}

func unlockFile(f *os.File) { unix.Flock(int(f.Fd()), unix.LOCK_UN) }
