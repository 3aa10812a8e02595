package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peel/cell/contain"
	"peel/cmd/peel/internal/sealed"
)

// passphraseEnv is an environment variable with a passphrase. A flag's value would stand in the list of processes for all to see.
const passphraseEnv = "PEEL_PASSPHRASE"

// passphrase is where a passphrase comes from: a file, the environment, or the terminal.
type passphrase struct {
	file string
	env  string // another variable than passphraseEnv; "": that one
}

func (p *passphrase) flags(c *cobra.Command) {
	c.Flags().StringVar(&p.file, "passphrase-file", "", "a `file` whose first line is the passphrase (default: $"+passphraseEnv+", or ask)")
}

// mostPassphrase is the longest passphrase in bytes.
const mostPassphrase = 1024

// get asks for a passphrase; for a new one, twice where a person types it.
func (p *passphrase) get(what string, isNew bool, c asker) ([]byte, error) {
	b, err := p.read(what, isNew, c)
	switch {
	case err != nil:
		return nil, err
	case len(b) == 0:
		return nil, &usageError{errors.New("the passphrase is empty")}
	case len(b) > mostPassphrase:
		return nil, &usageError{fmt.Errorf("the passphrase is longer than %d bytes", mostPassphrase)}
	case isNew && len(b) < sealed.MinPassphrase:
		return nil, &usageError{fmt.Errorf("the passphrase has %d bytes: give at least %d; five or six random words are good", len(b), sealed.MinPassphrase)}
	}
	return b, nil
}

func (p *passphrase) read(what string, isNew bool, c asker) ([]byte, error) {
	if p.file != "" {
		return fromFile(p.file)
	}
	env := cmp.Or(p.env, passphraseEnv)
	if s := os.Getenv(env); s != "" {
		return []byte(s), nil
	}
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		or := " or give --passphrase-file"
		if p.env != "" { // that file has another
			or = ""
		}
		return nil, &usageError{fmt.Errorf("no passphrase for %s: there is no terminal to ask on; set %s%s", what, env, or)}
	}
	b, err := ask(c, in, "Passphrase for "+what+": ")
	if err != nil || !isNew {
		return b, err
	}
	again, err := ask(c, in, "The same again: ")
	if err != nil {
		return nil, err
	}
	defer clear(again)
	if !bytes.Equal(b, again) {
		return nil, errors.New("the two passphrases differ: nothing was written")
	}
	return b, nil
}

// ask reads a line from the terminal, which does not show it. A signal ends that, and the terminal shows again what is typed: the
// goroutine that reads is then left to the end of the program, which follows, as only another line would wake it.
func ask(c asker, in int, prompt string) (b []byte, err error) {
	fmt.Fprint(c.ErrOrStderr(), prompt)
	defer fmt.Fprintln(c.ErrOrStderr())
	was, err := term.GetState(in)
	if err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	type line struct {
		text []byte
		err  error
	}
	typed := make(chan line, 1)
	contain.Go(func(bug *contain.Panic) { typed <- line{nil, bug} }, func() {
		b, err := term.ReadPassword(in)
		typed <- line{b, err}
	})
	select {
	case l := <-typed:
		b, err = l.text, l.err
	case <-c.Context().Done():
		err = errors.Join(errors.New("interrupted"), term.Restore(in, was))
	}
	if err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	return b, nil
}

// fromFile is the first line of a file that others cannot read.
func fromFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, onTheLine(fmt.Errorf("passphrase: %w", err))
	}
	if runtime.GOOS != "windows" && st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		return nil, about(path, "others than its owner can read this passphrase (mode %04o): run chmod 600 %s", st.Mode().Perm(), path)
	}
	f, err := os.Open(path) // may be a pipe, as in <(pass show peel)
	if err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostPassphrase+2))
	if err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	b, _, _ = bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(b, []byte("\r")), nil
}
