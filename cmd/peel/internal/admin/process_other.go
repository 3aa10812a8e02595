//go:build !linux

package admin

func openFiles() (float64, bool) { return 0, false }

func resident() (float64, bool) { return 0, false }

func mostFiles() (float64, bool) { return 0, false }
