package client

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"sync"
)

// secure is a rand.Source that nobody can foresee: the system's. It may be used from any goroutine.
type secure struct{}

func (secure) Uint64() uint64 {
	var b [8]byte
	crand.Read(b[:]) // never fails: without randomness the program ends
	return binary.LittleEndian.Uint64(b[:])
}

// chance draws a number below n from the system's randomness: what decides on paths must not be foreseen (spec/path.md).
func chance(n uint64) uint64 { return rand.New(secure{}).Uint64N(n) }

// dice draw numbers below n. They may be used from any goroutine.
type dice func(n uint64) uint64

// throws are what a client leaves to chance, apart from each other, so that where it comes from a seed each has the same luck in each
// run, however the others turn out.
type throws struct{ guards, paths, directory dice }

// throws are by Config.Chance, or the system's.
func (cfg *Config) throws() throws {
	return throws{cfg.dice(), cfg.dice(), cfg.dice()}
}

func (cfg *Config) dice() dice {
	if cfg.Chance == nil {
		return chance
	}
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(cfg.Chance.Uint64(), cfg.Chance.Uint64()))
	return func(n uint64) uint64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Uint64N(n)
	}
}
