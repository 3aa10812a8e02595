//go:build race

package dns

func init() { underRace = true }
