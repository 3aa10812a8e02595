//go:build !windows

package admin

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// OwnedByUs says whether a file belongs to the user that the program runs as.
func OwnedByUs(st fs.FileInfo) bool {
	s, ok := st.Sys().(*syscall.Stat_t)
	return !ok || int(s.Uid) == os.Geteuid()
}

// bind makes the socket where only we can go, closes it to others, and only then gives it its place.
func bind(path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".a")
	if err != nil {
		return nil, err
	}
	defer os.Remove(dir)
	at := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(at, 0o600)
	if err == nil {
		err = os.Rename(at, path)
	}
	if err != nil {
		l.Close()
		os.Remove(at)
		return nil, err
	}
	return l, nil
}
