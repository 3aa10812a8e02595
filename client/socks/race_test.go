//go:build race

package socks

func init() { underRace = true }
