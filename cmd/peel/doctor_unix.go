//go:build linux || darwin

package main

import "golang.org/x/sys/unix"

// mostFiles is how many files the process may open.
func mostFiles() (n uint64, known bool) {
	var l unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return l.Cur, err == nil
}

// freeBytes is how much may be written at a folder.
func freeBytes(dir string) (n uint64, known bool) {
	var s unix.Statfs_t
	err := unix.Statfs(dir, &s)
	return s.Bavail * uint64(s.Bsize), err == nil
}

// mayWrite says why files in a folder cannot be made or replaced, if that is so.
func mayWrite(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }
