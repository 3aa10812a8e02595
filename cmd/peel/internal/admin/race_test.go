//go:build race

package admin

func init() { underRace = true }
