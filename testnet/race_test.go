//go:build race

package testnet

import (
	"testing"
	"time"
)

// The race detector makes everything five to ten times as slow: the authorities need the time, and the processor.
func init() {
	small.Period, small.Voting = 10*time.Second, 5*time.Second
	beside, together = func(*testing.T) {}, 1
}
