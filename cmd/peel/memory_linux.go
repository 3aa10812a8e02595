package main

import "golang.org/x/sys/unix"

// physicalMemory is what the machine has, in bytes; 0: it does not say.
func physicalMemory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}
