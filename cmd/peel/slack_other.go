//go:build !linux

package main

// settle has nothing to do here.
func settle() {}
