//go:build !unix

package main

import "os"

var newnymSignals []os.Signal
