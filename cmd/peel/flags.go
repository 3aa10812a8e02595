package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"peel/cmd/peel/internal/conf"
	"peel/cmd/peel/internal/page"
)

// checked is a flag that takes a text, and says at once of one that it cannot take: before anything is begun, and as wrong use.
type checked struct {
	text  *string
	check func(string) error
}

func (c *checked) String() string { return *c.text }
func (c *checked) Type() string   { return "string" }

func (c *checked) Set(s string) error {
	err := c.check(s)
	if err == nil {
		*c.text = s
	}
	return err
}

// checkedVar adds a flag that takes what check finds nothing wrong with.
func checkedVar(f *pflag.FlagSet, text *string, name, usual, usage string, check func(string) error) {
	*text = usual
	f.Var(&checked{text, check}, name, usage)
}

// anAddress is for flags that take an address and a port, such as the example.
func anAddress(example string) func(string) error {
	return func(s string) error {
		if !conf.IsAddress(s) {
			return fmt.Errorf("give an address and a port, such as %s", example)
		}
		return nil
	}
}

// orNone lets a flag take one of some words, too.
func orNone(check func(string) error, words ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(words, s) {
			return nil
		}
		return check(s)
	}
}

// aPage is for flags that take the address of a page.
func aPage(s string) error {
	if err := anAddress("127.0.0.1:9270")(s); err != nil {
		return err
	}
	return page.CheckListen(s)
}

// oneOf is for flags that take one of a few words.
func oneOf(words ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(words, s) {
			return nil
		}
		return errors.New(meantWord(s, words) + "give one of " + strings.Join(words, ", "))
	}
}
