package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peel/cmd/peel/internal/admin"
	"peel/relay"
	"peel/testnet/plan"
	"peel/testnet/villain"
)

// misdeeds are how a node of a test network misbehaves, if it does (docs/testnet.md).
type misdeeds struct {
	script string
	seed   uint64
	mind   *villain.Mind // nil: it is honest

	oneHop bool // as an exit it may be the only relay of a circuit
}

// flags adds what peel testnet run starts villains with, and peel testnet bench its relays. It is not for people, and nothing that works in a network of theirs.
func (m *misdeeds) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&m.script, "villain", "", "misbehave by a script, in a test network")
	f.Uint64Var(&m.seed, "villain-seed", 0, "chance of the misdeeds")
	f.BoolVar(&m.oneHop, "one-hop", false, "let an exit be the only relay of a circuit, in a test network: for peel testnet bench")
	for _, name := range []string{"villain", "villain-seed", "one-hop"} {
		if err := f.MarkHidden(name); err != nil {
			panic(err) // cannot be: the flag was just added
		}
	}
}

// villain is the node's bad side; nil: it has none. relay.New refuses one outside of test networks.
func (m *misdeeds) villain(role string) (*relay.Villain, error) {
	if m.script == "" {
		return nil, nil
	}
	if known := plan.Scripts[role]; !slices.Contains(known, m.script) || m.script == "equivocate" {
		return nil, &usageError{fmt.Errorf("--villain %q: %sgive one of %s", m.script, meantWord(m.script, known), strings.Join(known, ", "))}
	}
	m.mind = villain.NewMind(m.seed, time.Sleep)
	m.mind.Set(m.script)
	return &relay.Villain{Cells: m.mind.Cells, Directory: m.mind.Directory, Observed: m.mind.Claim}, nil
}

// window shows how often the node misbehaved, if it does.
func (m *misdeeds) window(s *admin.Server) {
	if m.mind != nil {
		s.Metric(admin.Metric{Name: "peel_villain_deeds_total", Help: "Misdeeds of a node of a test network.", Rise: true, Value: counted(&m.mind.Deeds)})
	}
}
