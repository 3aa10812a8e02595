package main

import (
	"cmp"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
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

// groupMemory is the least memory limit of the control groups that a process is in, of either version, as the file about it says.
func groupMemory(about, root string) int64 {
	least := int64(math.MaxInt64)
	text, err := os.ReadFile(about)
	if err != nil {
		return least
	}
	for line := range strings.Lines(string(text)) { // number:controllers:group
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch controllers := parts[1]; {
		case parts[0] == "0" && controllers == "":
			least = min(least, groupLimit(root, parts[2], "memory.max"))
			least = min(least, groupLimit(filepath.Join(root, "unified"), parts[2], "memory.max"))
		case slices.Contains(strings.Split(controllers, ","), "memory"):
			least = min(least, groupLimit(filepath.Join(root, "memory"), parts[2], "memory.limit_in_bytes"))
			least = min(least, groupLimit(filepath.Join(root, controllers), parts[2], "memory.limit_in_bytes"))
		}
	}
	return least
}

// groupLimit is the least limit of a group and those it is in. In a container the group's name may be one that is seen only from
// outside: then its limit is at the root.
func groupLimit(root, group, file string) int64 {
	least := int64(math.MaxInt64)
	for dir := filepath.Clean("/" + group); ; dir = filepath.Dir(dir) {
		if b, err := os.ReadFile(filepath.Join(root, dir, file)); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
				least = min(least, n)
			}
		}
		if dir == "/" {
			return least
		}
	}
}

// relayMemory is the memory budget of a relay that was told none: half of what there is.
func relayMemory(available int64) int64 {
	return min(max(available/2, conf.LeastRelayMemory), mostRelayMemory)
}

// relayBudget is the memory that the data of a relay take at most, as its file says or else relayMemory. It keeps the process within that and own.
func relayBudget(said string, own int64) (int64, error) {
	budget, err := conf.Size(said, conf.LeastRelayMemory)
	if err != nil {
		return 0, err
	}
	budget = cmp.Or(budget, relayMemory(available()))
	keepWithin(budget, own)
	return budget, nil
}

// clientMemory is that of a client: an eighth of what there is.
func clientMemory(available int64) int64 {
	return min(max(available/8, conf.LeastClientMemory), mostClientMemory)
}

// keepWithin has garbage collected in time for a process whose data take so much at most, and what it needs itself: it shall not
// need more than half as much again, nor more than nine tenths of what there is. An operator's GOMEMLIMIT stands.
func keepWithin(budget, own int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(min(budget+budget/2+own, available()/10*9))
	}
}

// ownMemory is for what a node needs by itself: the directory, above all.
const ownMemory = 256 << 20

// votesMemory is that of an authority, with the votes, descriptors and past directories that it holds.
const votesMemory = 768 << 20
