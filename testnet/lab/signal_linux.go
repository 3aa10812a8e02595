package lab

import (
	"os/exec"
	"syscall"
)

// halt stops a process where it is, without its knowing.
func halt(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGSTOP) }

// goOn lets it go on.
func goOn(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGCONT) }
