package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"peel/cell"
	"peel/cell/link"
	"peel/circuit"
	"peel/cmd/peel/internal/conf"
	"peel/directory"
	"peel/directory/cache"
)

func consensusCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "consensus", Short: "Look into the directory: show, compare and verify it",
		Long: `Look into the directory that relays and clients use. A consensus is a file, or the state folder of a node
that keeps one; without any it is fetched from an authority of the network file.`,
	}
	verbsOnly(c)
	c.AddCommand(consensusShowCommand(), consensusDiffCommand(), consensusVerifyCommand())
	return c
}

// asked is what the verbs of consensus have in common.
type asked struct {
	network string
	json    bool
	loaded  *directory.Network
}

func (a *asked) flags(c *cobra.Command) {
	c.Flags().StringVar(&a.network, "network", "", "the network `file`")
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
}

// load reads the network file, if one is named.
func (a *asked) load() (err error) {
	if a.network != "" && a.loaded == nil {
		a.loaded, err = conf.LoadNetwork(a.network)
	}
	return inUse(err)
}

const consensusTimeout = 2 * time.Minute

// text is that of a consensus: of the file or folder, or, where there is none, what an authority of the network hands out.
func (a *asked) text(ctx context.Context, name string) ([]byte, error) {
	if name != "" {
		return readConsensus(name)
	}
	if err := a.load(); err != nil {
		return nil, err
	}
	if a.loaded == nil {
		return nil, &usageError{errors.New("give a consensus (a file, or a node's state folder), or --network FILE to fetch it")}
	}
	ctx, cancel := context.WithTimeout(ctx, consensusTimeout)
	defer cancel()
	links := link.NewPool(link.PoolConfig{Link: link.Config{Network: a.loaded.ID()}, Dial: new(net.Dialer).DialContext})
	defer links.Close()
	var failed []error
	for _, i := range rand.Perm(len(a.loaded.Authorities)) {
		to := a.loaded.Authorities[i]
		text, err := cache.Get(ctx, func(ctx context.Context) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
			defer cancel()
			conn, err := links.Get(ctx, link.Peer{ID: to.ID, Key: to.LinkKey, Addrs: to.Addrs})
			if err != nil {
				return nil, err
			}
			return circuit.DialDirectory(ctx, conn, circuit.Config{Network: a.loaded.ID()},
				circuit.Hop{ID: to.ID, LinkKey: to.LinkKey, OnionKey: to.LinkKey, Addrs: to.Addrs})
		}, cache.Path, directory.MaxConsensus)
		if err == nil {
			return text, nil
		}
		failed = append(failed, fmt.Errorf("authority %s: %w", to.Nickname, err))
	}
	return nil, fmt.Errorf("no authority handed out a consensus: %w", errors.Join(failed...))
}

// readConsensus reads one from a file, or from the state folder of a node.
func readConsensus(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err == nil && info.IsDir() {
		for _, below := range []string{"consensus", filepath.Join("state", "consensus")} {
			if i, e := os.Stat(filepath.Join(name, below)); e == nil && i.Mode().IsRegular() {
				name, info = filepath.Join(name, below), i
			}
		}
		if info.IsDir() {
			return nil, about(name, "no consensus is kept in this folder: give the state folder of a node that has run")
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &usageError{about(name, "no such file or folder: give a consensus, or the state folder of a node that has run")}
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, directory.MaxConsensus+1)) // one more is told by the parser
	if err != nil {
		return nil, about(name, "%w", err)
	}
	return text, nil
}

func (a *asked) consensus(ctx context.Context, name string) (*directory.Consensus, error) {
	text, err := a.text(ctx, name)
	if err != nil {
		return nil, err
	}
	c, err := directory.ParseConsensus(text)
	if err != nil && name != "" {
		return nil, about(name, "%w", err)
	}
	return c, err
}

// relayShown is a relay as JSON shows it.
type relayShown struct {
	Identity  cell.NodeID   `json:"identity"`
	Nickname  string        `json:"nickname"`
	Addresses []string      `json:"addresses"`
	LinkKey   cell.Key      `json:"link_key"`
	OnionKey  cell.Key      `json:"onion_key"`
	Flags     []string      `json:"flags"`
	Bandwidth uint64        `json:"bandwidth"`
	Version   string        `json:"version"`
	Family    []cell.NodeID `json:"family,omitempty"`
	Policy    []string      `json:"policy,omitempty"`
}

func showRelay(e *directory.Entry) relayShown {
	s := relayShown{
		Identity: e.ID, Nickname: e.Nickname, LinkKey: e.LinkKey, OnionKey: e.OnionKey, Flags: strings.Fields(e.Flags.String()),
		Bandwidth: e.Bandwidth, Version: e.Version, Family: e.Family,
	}
	for _, a := range e.Addrs {
		s.Addresses = append(s.Addresses, a.String())
	}
	for _, r := range e.Policy {
		s.Policy = append(s.Policy, r.String())
	}
	return s
}

// consensusShown is a consensus as JSON shows it. Keys never change their meaning; new ones may come.
type consensusShown struct {
	Digest     string           `json:"digest"`
	Network    cell.NetworkID   `json:"network"`
	Method     int              `json:"method"`
	ValidAfter time.Time        `json:"valid_after"`
	FreshUntil time.Time        `json:"fresh_until"`
	ValidUntil time.Time        `json:"valid_until"`
	Params     directory.Params `json:"params"`
	Weights    string           `json:"weights"`
	Root       string           `json:"root"`
	Signatures int              `json:"signatures"`
	Relays     int              `json:"relays"`
	Bandwidth  uint64           `json:"bandwidth"` // of all, bytes per second
	Flags      map[string]int   `json:"flags"`     // relays that have each
	Listed     []relayShown     `json:"listed"`    // those that were asked for
}

func consensusShowCommand() *cobra.Command {
	var a asked
	var flags, relays []string
	var list bool
	c := &cobra.Command{
		Use: "show [FILE|FOLDER]", Short: "Show a consensus: its header and how many relays have each flag, or single relays",
		Long: `Shows the header of a consensus and how many relays have each flag; with --relays, all relays after that. With --relay or --flag
it shows those alone, a line each: identity, nickname, addresses, bandwidth, flags and exit policy. As JSON there is always all of it.`,
		Example: "  peel consensus show my-client/state\n  peel consensus show --network network.toml --flag Exit --flag Fast\n" +
			"  peel consensus show my-client/state --relay relay7 --json",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			want, err := directory.ParseFlags("")
			for _, f := range flags {
				one, e := directory.ParseFlags(f)
				if e != nil || one == 0 {
					return &usageError{fmt.Errorf("--flag: there is no flag %q: there are %s", f, directory.AllFlags)}
				}
				want |= one
			}
			if err != nil {
				return err
			}
			cons, err := a.consensus(c.Context(), first(args))
			if err != nil {
				return err
			}
			s := showConsensus(cons)
			for i := range cons.Entries {
				if e := &cons.Entries[i]; (list || len(flags)+len(relays) > 0) && e.Flags.Has(want) && named(e, relays) {
					s.Listed = append(s.Listed, showRelay(e))
				}
			}
			switch chosen := len(flags)+len(relays) > 0; {
			case a.json:
				return printJSON(c.OutOrStdout(), s)
			case chosen && len(s.Listed) == 0:
				return fmt.Errorf("no relay of this consensus is what --relay and --flag ask for: it has %d, which --relays lists", s.Relays)
			case chosen:
				return s.printListed(c.OutOrStdout())
			}
			return s.print(c.OutOrStdout())
		},
	}
	a.flags(c)
	c.Flags().StringArrayVar(&flags, "flag", nil, "list the relays that have the `flag`; of several, all of them")
	c.Flags().StringArrayVar(&relays, "relay", nil, "list the relays of this `nickname`, or whose identity begins so")
	c.Flags().BoolVar(&list, "relays", false, "list all relays")
	return c
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// named says whether a relay is one of those.
func named(e *directory.Entry, relays []string) bool {
	for _, r := range relays {
		if e.Nickname == r || len(r) >= 4 && strings.HasPrefix(e.ID.String(), r) {
			return true
		}
	}
	return len(relays) == 0
}

func showConsensus(c *directory.Consensus) *consensusShown {
	s := &consensusShown{
		Digest: c.Header.Digest().String(), Network: c.Network, Method: c.Method, ValidAfter: c.ValidAfter, FreshUntil: c.FreshUntil,
		ValidUntil: c.ValidUntil, Params: c.Params, Weights: c.Weights.String(), Root: c.Root.String(),
		Signatures: len(c.Signatures), Relays: len(c.Entries), Flags: map[string]int{}, Listed: []relayShown{},
	}
	if s.Params == nil {
		s.Params = directory.Params{}
	}
	for _, f := range directory.AllFlags.List() {
		s.Flags[f.String()] = 0
	}
	for i := range c.Entries {
		s.Bandwidth += c.Entries[i].Bandwidth
		for _, f := range c.Entries[i].Flags.List() {
			s.Flags[f.String()]++
		}
	}
	return s
}

func (s *consensusShown) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "consensus\t%s\n", s.Digest)
	fmt.Fprintf(w, "network\t%s\n", s.Network)
	fmt.Fprintf(w, "holds\tfrom %s, fresh until %s, to %s\n", stamp(s.ValidAfter), stamp(s.FreshUntil), stamp(s.ValidUntil))
	fmt.Fprintf(w, "method\t%d\n", s.Method)
	fmt.Fprintf(w, "signatures\t%d, not checked here (peel consensus verify does)\n", s.Signatures)
	for _, name := range sortedKeys(s.Params) {
		fmt.Fprintf(w, "parameter\t%s = %d\n", name, s.Params[name])
	}
	fmt.Fprintf(w, "weights\t%s\n", s.Weights)
	fmt.Fprintf(w, "root\t%s\n", s.Root)
	fmt.Fprintf(w, "relays\t%d, together %.1f MB/s\n", s.Relays, float64(s.Bandwidth)/1e6)
	for _, f := range directory.AllFlags.List() {
		fmt.Fprintf(w, "  %s\t%d\n", f, s.Flags[f.String()])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return s.printListed(out)
}

// printListed prints the relays that were asked for, a line each.
func (s *consensusShown) printListed(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, r := range s.Listed {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f MB/s\t%s\t%s\n", r.Identity, r.Nickname, strings.Join(r.Addresses, " "), float64(r.Bandwidth)/1e6,
			strings.Join(r.Flags, " "), strings.Join(r.Policy, ", "))
	}
	return w.Flush()
}

// moment is a time for people; in documents and JSON it is stamp.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
