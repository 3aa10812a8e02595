//go:build race

package testnet

import "time"

// The race detector makes everything five to ten times as slow: the authorities need the time.
func init() { small.Period, small.Voting = 8*time.Second, 4*time.Second }
