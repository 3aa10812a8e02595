package admin

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openFiles is how many files and connections the process has; false: it is not known.
func openFiles() (float64, bool) {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, false
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return float64(len(names) - 1), err == nil // but for d
}

// resident is how much of the machine's memory the process has, in bytes; false: it is not known.
func resident() (float64, bool) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, false
	}
	n, err := strconv.ParseUint(fields[1], 10, 64)
	return float64(n) * float64(os.Getpagesize()), err == nil
}

// mostFiles is how many files and connections the process may have; false: it is not known.
func mostFiles() (float64, bool) {
	var l unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return float64(l.Cur), err == nil
}
