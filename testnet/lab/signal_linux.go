package lab

import (
	"os/exec"
	"syscall"
)

// apartFromTerminal keeps a Ctrl-C, which is for this process, from the one that is started.
func apartFromTerminal(cmd *exec.Cmd) { cmd.SysProcAttr.Setpgid = true }

// halt stops a process where it is, without its knowing.
func halt(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGSTOP) }

// goOn lets it go on.
func goOn(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGCONT) }
