package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"peel/cell"
	"peel/cmd/peel/internal/conf"
	"peel/directory"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// errDiffer ends peel consensus diff as diff(1) ends when the two are not the same.
var errDiffer = &exitError{code: 1}

// diffShown is what peel consensus diff prints as JSON.
type diffShown struct {
	From    string            `json:"from"`
	To      string            `json:"to"`
	Header  map[string][2]any `json:"header"` // what differs: from and to
	Dropped []relayShown      `json:"dropped"`
	Added   []relayShown      `json:"added"`
	Changed []relayChange     `json:"changed"`
	Bytes   int               `json:"diff_bytes"` // of the diff that is sent, without compression
	Whole   int               `json:"whole_bytes"`
}

type relayChange struct {
	Identity cell.NodeID       `json:"identity"`
	Nickname string            `json:"nickname"`
	Fields   map[string][2]any `json:"fields"`
}

func consensusDiffCommand() *cobra.Command {
	var a asked
	c := &cobra.Command{
		Use: "diff FROM [TO]", Short: "Show what changed from one consensus to another; the status is 1 if anything did",
		Example: "  peel consensus diff yesterday.txt my-client/state\n  peel consensus diff my-client/state --network network.toml",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			from, err := a.consensus(c.Context(), args[0])
			if err != nil {
				return err
			}
			to, err := a.consensus(c.Context(), first(args[1:]))
			if err != nil {
				return err
			}
			d, err := compare(from, to)
			if err != nil {
				return err
			}
			if a.json {
				err = printJSON(c.OutOrStdout(), d)
			} else {
				err = d.print(c.OutOrStdout())
			}
			if err == nil && d.From != d.To {
				err = errDiffer
			}
			return err
		},
	}
	a.flags(c)
	return c
}

func compare(from, to *directory.Consensus) (*diffShown, error) {
	whole := to.Append(nil)
	text, err := directory.MakeDiff(from.Append(nil), whole)
	if err != nil {
		return nil, err
	}
	d := &diffShown{
		From: from.Header.Digest().String(), To: to.Header.Digest().String(), Bytes: len(text), Whole: len(whole),
		Header: map[string][2]any{}, Dropped: []relayShown{}, Added: []relayShown{}, Changed: []relayChange{},
	}
	a, b := showConsensus(from), showConsensus(to)
	for _, f := range []struct {
		name     string
		from, to any
	}{
		{"network", a.Network.String(), b.Network.String()}, {"method", a.Method, b.Method},
		{"valid_after", stamp(a.ValidAfter), stamp(b.ValidAfter)}, {"fresh_until", stamp(a.FreshUntil), stamp(b.FreshUntil)},
		{"valid_until", stamp(a.ValidUntil), stamp(b.ValidUntil)}, {"weights", a.Weights, b.Weights},
		{"params", fmt.Sprint(a.Params), fmt.Sprint(b.Params)}, {"relays", a.Relays, b.Relays}, {"root", a.Root, b.Root},
	} {
		if f.from != f.to {
			d.Header[f.name] = [2]any{f.from, f.to}
		}
	}
	for i := range from.Entries {
		e := &from.Entries[i]
		if n, ok := to.Lookup(e.ID); !ok {
			d.Dropped = append(d.Dropped, showRelay(e))
		} else if fields := changedFields(showRelay(e), showRelay(n)); len(fields) > 0 {
			d.Changed = append(d.Changed, relayChange{e.ID, e.Nickname, fields})
		}
	}
	for i := range to.Entries {
		if e := &to.Entries[i]; !has(from, e.ID) {
			d.Added = append(d.Added, showRelay(e))
		}
	}
	return d, nil
}

func has(c *directory.Consensus, id cell.NodeID) bool {
	_, ok := c.Lookup(id)
	return ok
}

func changedFields(a, b relayShown) map[string][2]any {
	fields := map[string][2]any{}
	for _, f := range []struct {
		name     string
		from, to any
	}{
		{"nickname", a.Nickname, b.Nickname}, {"addresses", a.Addresses, b.Addresses}, {"link_key", a.LinkKey.String(), b.LinkKey.String()},
		{"onion_key", a.OnionKey.String(), b.OnionKey.String()}, {"flags", a.Flags, b.Flags}, {"bandwidth", a.Bandwidth, b.Bandwidth},
		{"version", a.Version, b.Version}, {"family", a.Family, b.Family}, {"policy", a.Policy, b.Policy},
	} {
		if fmt.Sprint(f.from) != fmt.Sprint(f.to) {
			fields[f.name] = [2]any{f.from, f.to}
		}
	}
	return fields
}

func (d *diffShown) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, name := range sortedKeys(d.Header) {
		fmt.Fprintf(w, "%s\t%v -> %v\n", name, d.Header[name][0], d.Header[name][1])
	}
	for _, r := range d.Dropped {
		fmt.Fprintf(w, "- %s\t%s\n", r.Identity, r.Nickname)
	}
	for _, r := range d.Added {
		fmt.Fprintf(w, "+ %s\t%s\n", r.Identity, r.Nickname)
	}
	for _, r := range d.Changed {
		for _, name := range sortedKeys(r.Fields) {
			fmt.Fprintf(w, "~ %s\t%s\t%s: %v -> %v\n", r.Identity, r.Nickname, name, r.Fields[name][0], r.Fields[name][1])
		}
	}
	fmt.Fprintf(w, "%d dropped, %d added, %d changed; the diff has %d bytes, the whole %d\n", len(d.Dropped), len(d.Added), len(d.Changed), d.Bytes, d.Whole)
	return w.Flush()
}

// check is one line of what peel consensus verify finds.
type check struct {
	Name   string `json:"name"` // entries, network, signature, threshold, time
	Signer string `json:"signer,omitempty"`
	OK     bool   `json:"ok"`
	Needed bool   `json:"needed"` // one that fails makes the consensus invalid
	Text   string `json:"text"`
}

// verified is what peel consensus verify prints as JSON.
type verified struct {
	Digest string  `json:"digest,omitempty"`
	OK     bool    `json:"ok"`
	Checks []check `json:"checks"`
}

func consensusVerifyCommand() *cobra.Command {
	var a asked
	var at string
	c := &cobra.Command{
		Use: "verify [FILE|FOLDER] --network FILE", Short: "Check a consensus as a client does, and say what each check and each signature came to",
		Example: "  peel consensus verify my-client/state --network network.toml\n  peel consensus verify old.txt --network network.toml --at 2026-03-01T12:30:00Z",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			now := time.Now()
			if at != "" {
				var err error
				if now, err = time.Parse(time.RFC3339, at); err != nil {
					return &usageError{fmt.Errorf("--at %q: give a time such as 2026-03-01T12:30:00Z", at)}
				}
			}
			if err := a.load(); err != nil {
				return err
			}
			if a.loaded == nil {
				return &usageError{errors.New("--network FILE is needed: it says whose signatures count")}
			}
			text, err := a.text(c.Context(), first(args))
			if err != nil {
				return err
			}
			v := verifyConsensus(text, a.loaded, now)
			if a.json {
				err = printJSON(c.OutOrStdout(), v)
			} else {
				err = v.print(c.OutOrStdout())
			}
			if err == nil && !v.OK {
				err = &exitError{code: 1}
			}
			return err
		},
	}
	a.flags(c)
	c.Flags().StringVar(&at, "at", "", "check as if it were this `time` (default: now)")
	return c
}

// verifyConsensus makes every check, also after one failed, as far as there is something to check.
func verifyConsensus(text []byte, n *directory.Network, now time.Time) *verified {
	v := &verified{OK: true}
	add := func(name, signer string, needed bool, err error, good string) {
		k := check{Name: name, Signer: signer, OK: err == nil, Needed: needed, Text: good}
		if err != nil {
			k.Text = conf.Plain(err)
			v.OK = v.OK && !needed
		}
		v.Checks = append(v.Checks, k)
	}
	c, err := directory.ParseConsensus(text)
	if err != nil {
		add("entries", "", true, err, "")
		return v
	}
	v.Digest = c.Header.Digest().String()
	add("entries", "", true, nil, fmt.Sprintf("%d relays, in order, under root %s", len(c.Entries), c.Root))
	err = nil
	if c.Network != n.ID() {
		err = &directory.NetworkError{Document: "consensus", Have: c.Network, Want: n.ID()}
	}
	add("network", "", true, err, fmt.Sprintf("%s, %s", n.Name, n.ID()))
	good := 0
	for _, auth := range n.Authorities {
		err := errors.New("did not sign")
		for i := range c.Signatures {
			if s := &c.Signatures[i]; s.Certificate.Identity == auth.ID {
				if err = c.CheckSignature(s); err == nil {
					good++
					break
				}
			}
		}
		add("signature", auth.Nickname, false, err, "good, by a key that its identity certified")
	}
	for i := range c.Signatures {
		if id := c.Signatures[i].Certificate.Identity; !isAuthority(n, id) {
			add("signature", id.String(), false, errors.New("is no authority of this network: does not count"), "")
		}
	}
	err = nil
	if good < n.Threshold {
		err = fmt.Errorf("%d good signatures, but %d of %d are needed", good, n.Threshold, len(n.Authorities))
	}
	add("threshold", "", true, err, fmt.Sprintf("%d good signatures; %d of %d are needed", good, n.Threshold, len(n.Authorities)))
	var t *directory.TimeError
	err = nil
	if e := c.SignedHeader.Verify(n, now); errors.As(e, &t) {
		err = t
	} else if now.After(c.ValidUntil) || now.Add(directory.MaxSkew).Before(c.ValidAfter) {
		err = fmt.Errorf("it holds from %s to %s; it is %s", stamp(c.ValidAfter), stamp(c.ValidUntil), stamp(now))
	}
	add("time", "", true, err, fmt.Sprintf("holds from %s to %s", stamp(c.ValidAfter), stamp(c.ValidUntil)))
	return v
}

func isAuthority(n *directory.Network, id cell.NodeID) bool {
	_, ok := n.Authority(id)
	return ok
}

func (v *verified) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, k := range v.Checks {
		word := "ok"
		switch {
		case !k.OK && k.Needed:
			word = "FAILED"
		case !k.OK:
			word = "no"
		}
		name := k.Name
		if k.Signer != "" {
			name += " of " + k.Signer
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", word, name, k.Text)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	last := "valid: clients of this network use it"
	if !v.OK {
		last = "NOT VALID: clients of this network refuse it"
	}
	_, err := fmt.Fprintln(out, last)
	return err
}
