//go:build race

package exit

func init() { underRace = true }
