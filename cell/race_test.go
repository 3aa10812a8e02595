//go:build race

package cell_test

// The race detector slows the mutation loop fifteenfold and has nothing to find in it.
func init() { mutations /= 20 }
