package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"peel/directory/cache"
)

// socketHost is what our own clients call a node on its socket.
const socketHost = "peel"

// mostPath is the longest path of a socket that every system takes: 104 bytes with the zero at the end on macOS and the BSDs.
const mostPath = 103

// safeFolder makes a folder of our own, or refuses one in which others could put something else in the socket's place.
func safeFolder(dir string) error {
	if err := checkFolder(dir, true); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("admin: state folder: %w", err)
	}
	return checkFolder(dir, true)
}

// CheckFolder says why a node would refuse a state folder; nil: it would not, and makes one that is not there. Root, who may look on
// behalf of the node's user, is not told whose it is.
func CheckFolder(dir string) error { return checkFolder(dir, os.Geteuid() != 0) }

// checkFolder refuses a folder that belongs to another user only if it has to be our own.
func checkFolder(dir string, own bool) error {
	st, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return checkAbove(dir)
	case err != nil:
		return fmt.Errorf("admin: state folder: %w", err)
	case !st.IsDir():
		return fmt.Errorf("admin: %s is not a folder (a link to one will not do: name the folder itself)", dir)
	case runtime.GOOS == "windows":
		return nil // no modes here: the folder's access list counts (spec/admin.md, section 1)
	case own && !OwnedByUs(st):
		return fmt.Errorf("admin: %s belongs to another user: run peel as that one, or give the folder to the user that peel runs as, with chown", dir)
	case st.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("admin: others can write in %s (mode %04o): run chmod 700 %[1]s", dir, st.Mode().Perm())
	}
	return checkAbove(dir)
}

// checkAbove refuses a path with a folder above it that everybody may change, or that is none. What is not there is still to be made.
func checkAbove(dir string) error {
	at, err := filepath.Abs(dir)
	for err == nil {
		up := filepath.Dir(at)
		if at, err = filepath.EvalSymlinks(up); err == nil {
			break
		}
		if up != filepath.Dir(up) && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)) {
			at, err = up, nil
		}
	}
	for ; err == nil; at = filepath.Dir(at) {
		var st fs.FileInfo
		if st, err = os.Stat(at); err != nil {
			break
		}
		if !st.IsDir() {
			return fmt.Errorf("admin: %s is not a folder, so that the state folder %s cannot be made: choose another", at, dir)
		}
		if runtime.GOOS != "windows" && st.Mode().Perm()&0o002 != 0 && st.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("admin: everybody can write in %s, above the state folder: run chmod o-w %[1]s, or choose another state folder", at)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
	return fmt.Errorf("admin: state folder: %w", err)
}

// ErrInUse is in the error of a folder whose node runs already.
var ErrInUse = cache.ErrInUse

// ErrNoSocket is in the error of a folder that cannot hold a socket: its name is too long, or its file system has none. A node
// can do without.
var ErrNoSocket = errors.New("no socket can be there")

// listenSocket listens on the socket of a folder. A socket that nobody answers on is removed, one that somebody answers on
// is not, nor anything else of that name. The lock decides between two who start at once.
func listenSocket(dir string) (net.Listener, func(), error) {
	path := filepath.Join(dir, SocketFile)
	if n := len(path); n > mostPath {
		return nil, nil, fmt.Errorf("admin: %w: %s has %d bytes, and the path of a socket at most %d: choose a shorter state folder", ErrNoSocket, path, n, mostPath)
	}
	unlock, err := cache.Lock(filepath.Join(dir, lockFile))
	if errors.Is(err, cache.ErrNoLock) { // then what is at the socket decides; the node says what that means for its folder
		unlock, err = func() {}, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("admin: %s: %w", dir, err)
	}
	if err := clearWay(path); err != nil {
		unlock()
		return nil, nil, err
	}
	l, err := bind(path)
	if err != nil {
		unlock()
		return nil, nil, fmt.Errorf("admin: %w: %w", ErrNoSocket, err)
	}
	return l, func() {
		os.Remove(path)
		unlock()
	}, nil
}

// clearWay removes the socket of a node that is gone.
func clearWay(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	if st.Mode()&fs.ModeSocket == 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("admin: %s is there and is not a socket: move it away", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("admin: %s: %w", path, ErrInUse)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("admin: the socket of a node that is gone: %w", err)
	}
	return nil
}
