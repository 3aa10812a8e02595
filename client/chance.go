package client

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
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
