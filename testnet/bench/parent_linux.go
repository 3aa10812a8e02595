package bench

import (
	"os/exec"
	"syscall"
)

// EndWithParent kills the process when the thread that starts it is gone, and keeps from it a Ctrl-C, which is for this process:
// that ends it in order.
func EndWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig, cmd.SysProcAttr.Setpgid = syscall.SIGKILL, true
}
