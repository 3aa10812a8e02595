package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"peel/testnet/lab"
	"peel/testnet/plan"
	"peel/testnet/scenarios"
	"peel/testnet/story"
	"peel/testnet/virtual"
)

// labRun is the verb testnet run at work.
type labRun struct {
	trouble
	virtual bool
	quiet   bool
	trace   bool
	report  string
	shrink  int
	out     io.Writer
}

func testnetRunCommand() *cobra.Command {
	r := &labRun{virtual: true}
	c := &cobra.Command{
		Use:   "run [flags] FILE...",
		Short: "Run networks that are described in files, in virtual time",
		Long: `Runs each network that a file describes: its nodes, which are those that people
run; weather, events and villains; loads; and says whether what was expected came,
and whether what must always hold did (docs/testnet.md). A FILE without a dot or a
slash is one of the scenarios that come with the program; "all" is all of them.

Everything happens in memory and in virtual time, in which days pass in seconds, and
what the seed decides is the same each time: the line "trace" tells.`,
		Example: `  peel testnet run two-faces
  peel testnet run --seed 7 --weather bad --churn 5s my.toml
  peel testnet run all`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r.out = c.OutOrStdout()
			return r.run(c.Context(), args)
		},
	}
	f := c.Flags()
	r.trouble.add(c)
	f.BoolVar(&r.virtual, "virtual", true, "run in virtual time (the only ground of this verb so far)")
	f.BoolVarP(&r.quiet, "quiet", "q", false, "say at the end of each how it went, and nothing before")
	f.BoolVar(&r.trace, "trace", false, "print the trace: all that the seed decides")
	f.StringVar(&r.report, "report", "", "write what happened, with plots, into this `file`: one page of HTML (docs/window.md); for one FILE")
	f.IntVar(&r.shrink, "shrink", 30, "when a rule is broken, run up to so many times to find the smallest plan that breaks it; 0: do not")
	return c
}

// plans are those that the arguments name, by the names.
func (r *labRun) plans(args []string) ([]*plan.Plan, error) {
	if len(args) == 1 && args[0] == "all" {
		files, err := scenarios.Files.ReadDir(".")
		if err != nil {
			return nil, err
		}
		args = nil
		for _, f := range files {
			args = append(args, strings.TrimSuffix(f.Name(), ".toml"))
		}
	}
	var all []*plan.Plan
	for _, a := range args {
		var text []byte
		var err error
		if strings.ContainsAny(a, `./\`) {
			text, err = os.ReadFile(a)
		} else if text, err = scenarios.Files.ReadFile(a + ".toml"); err != nil {
			err = fmt.Errorf("testnet run: no scenario is called %q: give a file, as in ./%s.toml, or one of those in docs/testnet.md", a, a)
		}
		if err != nil {
			return nil, err
		}
		p, err := plan.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a, err)
		}
		if err := r.change(p); err != nil {
			return nil, &usageError{err}
		}
		all = append(all, p)
	}
	return all, nil
}

func (r *labRun) run(ctx context.Context, args []string) error {
	if !r.virtual {
		return &usageError{errors.New("--virtual=false: plans run in virtual time only so far; for a network of sockets use peel testnet")}
	}
	plans, err := r.plans(args)
	if err != nil {
		return err
	}
	if r.report != "" && len(plans) != 1 {
		return &usageError{errors.New("--report: a report is of one run: give one file")}
	}
	failed := 0
	for _, p := range plans {
		begun := time.Now()
		res, told, err := r.one(ctx, p, r.quiet)
		if err != nil {
			return err
		}
		if r.report != "" {
			if err := writeReport(r.report, told); err != nil {
				return err
			}
		}
		fmt.Fprint(r.out, res)
		fmt.Fprintf(r.out, "  it took %.1f s of real time\n", time.Since(begun).Seconds())
		if r.trace {
			fmt.Fprintln(r.out, strings.Join(res.Trace(), "\n"))
		}
		if !res.OK() {
			failed++
			if err := r.smallest(ctx, p, res); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	if failed > 0 {
		return &exitError{code: 1, err: fmt.Errorf("testnet run: %d of %d failed", failed, len(plans))}
	}
	return nil
}

// one runs one plan, and has its story told.
func (r *labRun) one(ctx context.Context, p *plan.Plan, quiet bool) (res *lab.Result, told *story.Story, err error) {
	var mu sync.Mutex
	cfg := lab.Config{Plan: p, Stop: func() bool { return ctx.Err() != nil }}
	if !quiet {
		cfg.Progress = func(s string) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintln(r.out, s)
		}
	}
	before := lab.Descriptors()
	e := virtual.Run(func() {
		told = story.New(p.Name, "in virtual time", time.Now())
		cfg.Story = told
		res, err = lab.Virtual(context.Background(), cfg)
		told.End(time.Now())
	})
	switch {
	case err != nil:
		return nil, nil, err
	case res == nil:
		return nil, nil, e
	}
	if e != nil {
		res.Broken = append(res.Broken, lab.Broken{Rule: "no goroutine is left at the end", Text: e.Error()})
	}
	if after := lab.Descriptors(); after > before {
		res.Broken = append(res.Broken, lab.Broken{Rule: "no descriptor is left at the end", Text: fmt.Sprintf("%d are open, and %d were before", after, before)})
	}
	return res, told, nil
}

// smallest finds and prints the smallest plan that breaks the rule that was broken first.
func (r *labRun) smallest(ctx context.Context, p *plan.Plan, res *lab.Result) error {
	if len(res.Broken) == 0 || r.shrink <= 0 || ctx.Err() != nil {
		return nil
	}
	rule := res.Broken[0].Rule
	fmt.Fprintf(r.out, "looking for the smallest plan that breaks the rule %q\n", rule)
	small := lab.Shrink(p, rule, r.shrink, func(q *plan.Plan) (*lab.Result, error) {
		res, _, err := r.one(ctx, q, true)
		return res, err
	})
	text, err := small.Encode()
	if err != nil {
		return err
	}
	fmt.Fprintf(r.out, "seed %d; broken at %v; the smallest plan found:\n\n%s\n", p.Seed, res.Broken[0].At, text)
	again, _, err := r.one(ctx, small, true)
	if err != nil {
		return err
	}
	fmt.Fprintf(r.out, "its trace:\n%s\n", strings.Join(again.Trace(), "\n"))
	return nil
}
