package relay

import (
	"fmt"
	"math"
	"runtime/debug"
)

const (
	// LeastMemory is the least Config.Memory that a relay works with.
	LeastMemory = 64 << 20
	usualMemory = 2 << 30
)

// What one of each may take at most, in bytes, whatever its peers do (spec/queues.md, section 6).
const (
	linkBytes    = 144 << 10 // a record read, one written, two goroutines
	circuitBytes = 4 << 10   // its layers, its places on two links, its streams' tables; and two circuits that are closed here, and not by their peers
	streamBytes  = 48 << 10  // two pieces that are not full, a small copy, its goroutines and those of an extension
	lateBytes    = 16        // a stream that is over
)

// A share is what part of a relay's memory one kind of thing may take, in 32nds, and how much one of it takes.
type share struct {
	name    string
	part    int
	bytes   int // 1: the bound is in bytes
	most    int // of them, however much memory there is; 0: any number
	bounded func(*Config) *int
}

// shares are all of a relay's memory that others have a say in. They come to 32.
var shares = []share{
	{"MaxQueued", 8, 1, 0, func(c *Config) *int { return &c.MaxQueued }},
	{"MaxUnread", 6, 1, 0, func(c *Config) *int { return &c.MaxUnread }},
	{"MaxCopied", 2, 1, 0, func(c *Config) *int { return &c.MaxCopied }},
	{"MaxTasks", 6, streamBytes, 16384, func(c *Config) *int { return &c.MaxTasks }},
	{"MaxLinks", 7, linkBytes, 16384, func(c *Config) *int { return &c.MaxLinks }},
	{"MaxCircuits", 2, circuitBytes, 131072, func(c *Config) *int { return &c.MaxCircuits }},
	{"MaxLate", 1, lateBytes, 0, func(c *Config) *int { return &c.MaxLate }},
}

// of is how many of a kind so much memory is for.
func (s share) of(memory int64) int {
	n := memory / 32 * int64(s.part) / int64(s.bytes)
	if s.most > 0 {
		n = min(n, int64(s.most))
	}
	return int(min(n, math.MaxInt))
}

// bound fills in what was left out, and refuses what cannot work.
func (cfg *Config) bound() (err error) {
	if cfg.Memory == 0 {
		cfg.Memory = max(min(usualMemory, debug.SetMemoryLimit(-1)/2), LeastMemory)
	}
	if cfg.Memory < LeastMemory {
		return fmt.Errorf("relay: Memory is %d: it must be at least %d bytes, or 0 for %d", cfg.Memory, LeastMemory, int64(usualMemory))
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 256
	}
	if cfg.MaxStreams < 0 {
		return fmt.Errorf("relay: MaxStreams is %d: it must be at least 1, or 0 for 256", cfg.MaxStreams)
	}
	defer func() { // by what is below
		if err == nil {
			err = cfg.Limits.bound(cfg.MaxCircuits)
		}
	}()
	for _, s := range shares {
		value, usual := s.bounded(cfg), s.of(cfg.Memory)
		if *value < 0 {
			return fmt.Errorf("relay: %s is %d: it must be at least 1, or 0 for %d", s.name, *value, usual)
		}
		if *value == 0 {
			*value = usual
		}
	}
	return nil
}
