package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newTerminal is a terminal: what a person has before them, and what a program runs on.
func newTerminal(t *testing.T) (person, program *os.File) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("needs a terminal: ", err)
	}
	person = os.NewFile(uintptr(fd), "person")
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skip("needs a terminal: ", err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// Ctrl-C, where a passphrase is to be typed, ends peel, and the terminal shows again what is typed.
func TestAnInterruptEndsTheQuestionForAPassphrase(t *testing.T) {
	t.Parallel()
	person, program := newTerminal(t)
	file := filepath.Join(t.TempDir(), "identity")
	cmd := exec.Command("peel", "keys", "create", file)
	cmd.Env = append(os.Environ(), passphraseEnv+"=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	person.SetReadDeadline(time.Now().Add(time.Minute))
	var said []byte
	until := func(text string) {
		for b := make([]byte, 100); !bytes.Contains(said, []byte(text)); {
			n, err := person.Read(b)
			if said = append(said, b[:n]...); err != nil {
				t.Errorf("no %q: %v: %q", text, err, said)
				cmd.Process.Kill()
				return
			}
		}
	}
	shows := func() bool {
		s, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
		return err != nil || s.Lflag&unix.ECHO != 0
	}
	until("Passphrase for ")
	for end := time.Now().Add(time.Minute); shows() && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // until what is typed is not shown
	}
	person.WriteString("\x03")
	until("interrupted")
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v: %q", err, said)
	}
	if !shows() {
		t.Error("the terminal does not show what is typed")
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("there is an identity")
	}
}
