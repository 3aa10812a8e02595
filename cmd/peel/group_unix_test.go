//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup makes a command the first of a process group, which ends as one.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func endGroup(c *exec.Cmd) {
	syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
	syscall.Kill(-c.Process.Pid, syscall.SIGINT) // at once
}
