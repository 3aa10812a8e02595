package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"peel/cmd/peel/internal/admin"
)

func circuitsCommand() *cobra.Command {
	node := which{kind: "client"}
	var asJSON bool
	c := &cobra.Command{
		Use: "circuits", Short: "Show the circuits of a running client", Args: cobra.NoArgs,
		Long: `Shows the circuits that a running client has open, the oldest first: what each is for, how many streams are
open on it, and its relays. Where the streams go to is not kept, and not shown.`,
		Example: "  peel circuits --dir my-client\n  peel circuits --config my-client/client.toml --json",
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := node.ask()
			if err != nil {
				return err
			}
			text, err := a.Get(c.Context(), "/circuits")
			if err != nil {
				return err
			}
			if asJSON {
				_, err = c.OutOrStdout().Write(text)
				return err
			}
			return writeCircuits(c.OutOrStdout(), text)
		},
	}
	node.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, with the identities of the relays")
	return c
}

// writeCircuits writes the answer of a client for people.
func writeCircuits(w io.Writer, text []byte) error {
	var p circuitsPage
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("the client's answer: %w", err)
	}
	if len(p.Circuits) == 0 {
		_, err := fmt.Fprintln(w, "no circuits")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "id\tage\tfor\tstreams\tpath")
	for _, c := range p.Circuits {
		way := make([]string, len(c.Path))
		for i, r := range c.Path {
			way[i] = admin.Printable(r.Nickname)
		}
		use := admin.Printable(c.Purpose)
		if c.Closing {
			use += ", no new ones"
		}
		fmt.Fprintf(t, "%d\t%v\t%s\t%d\t%s\n", c.ID, time.Duration(c.Age)*time.Second, use, c.Streams, strings.Join(way, " > "))
	}
	return t.Flush()
}
