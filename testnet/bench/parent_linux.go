package bench

import (
	"os/exec"
	"syscall"
)

// endWithParent kills the process when the thread that started it is gone.
func endWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
