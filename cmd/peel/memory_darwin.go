package main

import "golang.org/x/sys/unix"

// physicalMemory is what the machine has, in bytes; 0: it does not say.
func physicalMemory() int64 {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int64(n)
}
