package bench

import (
	"os/exec"
	"syscall"
)

// EndWithParent kills the process when the thread that starts it is gone.
func EndWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
