package admin

import (
	"io/fs"
	"net"
)

// OwnedByUs says that every file does: there, folders are what keeps others out.
func OwnedByUs(fs.FileInfo) bool { return true }

// bind needs Windows 10 of 2018 or newer.
func bind(path string) (net.Listener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}
