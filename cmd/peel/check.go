package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"peel/cmd/peel/internal/conf"
)

func checkCommand() *cobra.Command {
	var kind string
	c := &cobra.Command{
		Use: "check FILE...", Short: "Say what is wrong with configuration files", Args: cobra.MinimumNArgs(1),
		Long: `Reads files as the nodes would, and those they name: the network file, an authority's lists. What a file is for is found
out from its keys. The status is 0 if all are in order, and 2 if not; then what is wrong with each is told with its
file and line: all keys that are misspelt or hold another kind of value than they must, or else all values that cannot be, up to 20.`,
		Example: "  peel check my-relay/relay.toml\n  peel check --kind lists lists.toml",
		RunE: func(c *cobra.Command, args []string) error {
			return checkFiles(args, kind, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&kind, "kind", "", "what the files are for, a `kind`: one of "+strings.Join(conf.Kinds, ", "))
	return c
}

func checkFiles(files []string, kind string, out, errs io.Writer) error {
	bad := 0
	for _, name := range files {
		found, err := conf.Validate(name, kind)
		if err != nil {
			bad++
			fmt.Fprintln(errs, conf.Plain(err))
			var e *conf.Error
			if errors.As(err, &e) {
				for _, more := range e.More() {
					fmt.Fprintln(errs, more)
				}
			}
			continue
		}
		fmt.Fprintf(out, "%s: in order (%s)\n", name, found)
	}
	if bad > 0 {
		return &exitError{code: 2}
	}
	return nil
}
