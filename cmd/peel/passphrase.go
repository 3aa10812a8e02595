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
func (p *passphrase) get(what string, isNew bool, errs io.Writer) ([]byte, error) {
	b, err := p.read(what, isNew, errs)
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

func (p *passphrase) read(what string, isNew bool, errs io.Writer) ([]byte, error) {
	if p.file != "" {
		return fromFile(p.file)
	}
	env := cmp.Or(p.env, passphraseEnv)
	if s := os.Getenv(env); s != "" {
		return []byte(s), nil
	}
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return nil, &usageError{fmt.Errorf("no passphrase for %s: there is no terminal to ask on; set %s or give --passphrase-file", what, env)}
	}
	b, err := ask(in, "Passphrase for "+what+": ", errs)
	if err != nil || !isNew {
		return b, err
	}
	again, err := ask(in, "The same again: ", errs)
	if err != nil {
		return nil, err
	}
	defer clear(again)
	if !bytes.Equal(b, again) {
		return nil, errors.New("the two passphrases differ: nothing was written")
	}
	return b, nil
}

// ask reads a line from the terminal, which does not show it.
func ask(in int, prompt string, errs io.Writer) ([]byte, error) {
	fmt.Fprint(errs, prompt)
	b, err := term.ReadPassword(in)
	fmt.Fprintln(errs)
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
