package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"peel/cmd/peel/internal/conf"
)

const (
	unknownMemory    = 4 << 30  // of a machine that does not say what it has
	mostRelayMemory  = 16 << 30 // unless the configuration says more
	mostClientMemory = 1 << 30
)

// available is how much memory this process may take: what the machine has, or the least limit that is set for it.
func available() int64 {
	has := physicalMemory()
	if has <= 0 {
		has = unknownMemory
	}
	return min(has, groupMemory("/proc/self/cgroup", "/sys/fs/cgroup"), debug.SetMemoryLimit(-1))
}

// groupMemory is the least memory limit of the control groups (version 2) that a process is in, as the file about it says.
func groupMemory(about, root string) int64 {
	least := int64(math.MaxInt64)
	text, err := os.ReadFile(about)
	if err != nil {
		return least
	}
	for line := range strings.Lines(string(text)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for dir := filepath.Clean("/" + name); ; dir = filepath.Dir(dir) {
			if b, err := os.ReadFile(filepath.Join(root, dir, "memory.max")); err == nil {
				if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
					least = min(least, n)
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// relayMemory is the memory budget of a relay that was told none: half of what there is.
func relayMemory(available int64) int64 {
	return min(max(available/2, conf.LeastRelayMemory), mostRelayMemory)
}

// clientMemory is that of a client: an eighth of what there is.
func clientMemory(available int64) int64 {
	return min(max(available/8, conf.LeastClientMemory), mostClientMemory)
}

// keepWithin has garbage collected in time for a process whose data take so much at most: it shall not need more than half
// as much again. An operator's GOMEMLIMIT stands.
func keepWithin(budget int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(budget + budget/2 + ownMemory)
	}
}

// ownMemory is for what a node needs by itself: the directory, above all.
const ownMemory = 256 << 20
