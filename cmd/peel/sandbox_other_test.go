//go:build !linux

package main

import "fmt"

func inside() { fmt.Println("no landlock") }
