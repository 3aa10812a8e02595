package lab

import (
	"context"
	"fmt"
	"os"

	"peel/testnet/memnet"
	"peel/testnet/plan"
)

// Virtual runs a plan within a bubble of virtual time (testnet/virtual, or testing/synctest) and says how it went. cfg needs a Plan only.
func Virtual(ctx context.Context, cfg Config) (*Result, error) {
	cfg.Ground = memory{memnet.New(cfg.Plan.Seed)}
	if cfg.Plan.Kept && cfg.Dir == "" {
		dir, err := os.MkdirTemp("", "peel-lab-")
		if err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
		defer os.RemoveAll(dir)
		cfg.Dir = dir
	}
	l, err := New(cfg)
	if err != nil {
		return nil, err
	}
	return l.Run(ctx)
}

// Shrink leaves out of a plan that broke a rule what was not needed for it, and returns what is left: it breaks the same rule. runs is how
// many times it may be run.
func Shrink(p *plan.Plan, rule string, runs int, run func(*plan.Plan) (*Result, error)) *plan.Plan {
	return plan.Shrink(p, runs, func(q *plan.Plan) bool {
		r, err := run(q)
		if err != nil {
			return false
		}
		for _, b := range r.Broken {
			if b.Rule == rule {
				return true
			}
		}
		return false
	})
}
