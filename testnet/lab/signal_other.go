//go:build !linux

package lab

import (
	"errors"
	"os/exec"
)

func halt(*exec.Cmd) error { return errors.ErrUnsupported }

func goOn(*exec.Cmd) error { return errors.ErrUnsupported }
