//go:build unix

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// notified starts a node as a service manager does, and ends it with SIGTERM when it has said that it is ready and alive; it prints
// what it was told.
func notified() {
	err := func() error {
		dir, err := os.MkdirTemp("", "n")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/s", Net: "unixgram"})
		if err != nil {
			return err
		}
		defer socket.Close()
		cmd := exec.Command(os.Args[1], os.Args[2:]...)
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+dir+"/s", "WATCHDOG_USEC=200000")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		b := make([]byte, 4096)
		for alive := 0; ; {
			socket.SetReadDeadline(time.Now().Add(time.Minute))
			n, err := socket.Read(b)
			if err != nil {
				cmd.Process.Kill()
				return errors.Join(err, cmd.Wait())
			}
			fmt.Printf("%s\n", b[:n])
			if strings.Contains(string(b[:n]), "WATCHDOG=1") {
				if alive++; alive == 2 {
					if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
						return err
					}
				}
			}
			if strings.Contains(string(b[:n]), "STOPPING=1") {
				return cmd.Wait()
			}
		}
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "notified:", err)
		os.Exit(1)
	}
}
