//go:build !linux && !darwin

package main

// physicalMemory is what the machine has, in bytes; 0: it does not say.
func physicalMemory() int64 { return 0 }
