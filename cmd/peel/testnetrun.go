package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"peel/cell/contain"
	"peel/cmd/peel/internal/conf"
	"peel/cmd/peel/internal/window"
	"peel/testnet/lab"
	"peel/testnet/plan"
	"peel/testnet/scenarios"
	"peel/testnet/story"
	"peel/testnet/virtual"
)

// labRun is the verb testnet run at work.
type labRun struct {
	trouble
	ground string
	quiet  bool
	trace  bool
	report string
	shrink int
	web    string
	stays  bool // the window, when all is over
	pace   float64
	out    io.Writer
	stderr io.Writer

	window *window.Window // nil: there is none
}

func testnetRunCommand() *cobra.Command {
	r := &labRun{ground: groundVirtual}
	known, usual := scenarioNames()
	c := &cobra.Command{
		Use:   "run [flags] FILE...",
		Short: "Run networks that are described in files",
		Long: `Runs each network that a file describes: its nodes, which are those that people
run; weather, events and villains; loads; and says whether what was expected came,
and whether what must always hold did (docs/testnet.md). A FILE without a dot or a
slash is one of the scenarios that come with the program; "all" is all of them but
those that take long.

The scenarios are: ` + strings.Join(usual, ", ") + "; and, which take long: " + strings.Join(known[:len(known)-len(usual)], ", ") + `.

--ground says what the network stands on:

virtual     memory, in virtual time, in which days pass in seconds; what the seed
            decides is the same each time: the line "trace" tells
loopback    sockets of this machine, in real time, all nodes in this process; what is
            sent takes its time, and is held up, on a line in memory
processes   sockets of this machine, in real time, each node a process: nothing lies
            between them, and kill, freeze and restart are signals
namespaces  processes as well, each on a machine with a kernel's network of its own;
            between them packets are delayed and lost; Linux and root only

The window, a web page, shows it meanwhile, and after it if you give --web; --pace has
virtual time pass slowly enough to watch.`,
		Example: `  peel testnet run two-faces
  peel testnet run --seed 7 --weather bad --churn 5s my.toml
  peel testnet run --web 127.0.0.1:0 --pace 1 kill-relays
  peel testnet run --ground loopback rolling-restart
  peel testnet run all`,
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
			names := slices.DeleteFunc(append([]string{"all"}, known...), func(s string) bool { return !strings.HasPrefix(s, begun) })
			return names, cobra.ShellCompDirectiveDefault // files, where there are none
		},
		RunE: func(c *cobra.Command, args []string) error {
			r.out, r.stderr, r.stays = c.OutOrStdout(), c.ErrOrStderr(), c.Flags().Changed("web")
			if r.ground != groundVirtual && !c.Flags().Changed("shrink") {
				r.shrink = 0 // a run takes its time
			}
			return r.run(c.Context(), args)
		},
	}
	f := c.Flags()
	r.trouble.add(c)
	checkedVar(f, &r.ground, "ground", r.ground, "what the network stands on, a `ground`: "+strings.Join(grounds, ", "), oneOf(grounds...))
	f.BoolVarP(&r.quiet, "quiet", "q", false, "say at the end of each how it went, and nothing before")
	f.BoolVar(&r.trace, "trace", false, "print the trace: all that the seed decides")
	f.StringVar(&r.report, "report", "", "write what happened, with plots, into this `file`: one page of HTML (docs/window.md); for one FILE")
	checkedVar(f, &r.web, "web", "127.0.0.1:0", "`address` of the window; port 0 picks a free one, off: none; if it is given, the window stays until Ctrl-C (with --quiet, default: off)", orNone(aPage, "", "off"))
	f.Float64Var(&r.pace, "pace", 0, "a `number`: at most so many seconds of virtual time in a second; 0: as many as the machine can")
	f.IntVar(&r.shrink, "shrink", 30, "when a rule is broken, run up to so many `times` to find the smallest plan that breaks it; 0: do not, as usual in real time")
	return c
}

// scenario is a file that comes with the program.
func scenario(name string) ([]byte, error) {
	text, err := scenarios.Files.ReadFile(name + ".toml")
	if err != nil {
		text, err = scenarios.Long.ReadFile("long/" + name + ".toml")
	}
	return text, err
}

// scenarioNames are those of all scenarios, and of those that "all" is.
func scenarioNames() (all, usual []string) {
	names := func(f embed.FS, dir string) (names []string) {
		files, err := f.ReadDir(dir)
		if err != nil {
			panic(err) // cannot be: it is part of the program
		}
		for _, f := range files {
			if name, ok := strings.CutSuffix(f.Name(), ".toml"); ok {
				names = append(names, name)
			}
		}
		return names
	}
	usual = names(scenarios.Files, ".")
	return append(names(scenarios.Long, "long"), usual...), usual
}

// plans are those that the arguments name, by the names. The error tells what is wrong with all of them.
func (r *labRun) plans(args []string) (plans []*plan.Plan, err error) {
	all, usual := scenarioNames()
	if len(args) == 1 && args[0] == "all" {
		args = usual
	}
	var wrong []error
	for _, a := range args {
		p, err := readPlan(a, all)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		if err := r.change(p); err != nil {
			return nil, &usageError{err}
		}
		plans = append(plans, p)
	}
	if len(wrong) > 0 {
		return nil, &usageError{errors.Join(wrong...)}
	}
	return plans, nil
}

// readPlan reads the plan that an argument names: a file, or one of the scenarios.
func readPlan(name string, known []string) (*plan.Plan, error) {
	if strings.ContainsAny(name, `./\`) {
		return conf.LoadPlan(name)
	}
	text, err := scenario(name)
	if err != nil && name == "all" {
		return nil, errors.New("\"all\" is all scenarios: it stands alone")
	}
	if err != nil {
		return nil, fmt.Errorf("no scenario is called %q: %sgive a file, as in ./%[1]s.toml, or one of those that peel testnet run --help names", name, meantWord(name, known))
	}
	return conf.ParsePlan(name, text)
}

func (r *labRun) run(ctx context.Context, args []string) error {
	if err := r.check(); err != nil {
		return &usageError{err}
	}
	plans, err := r.plans(args)
	if err != nil {
		return err
	}
	if r.report != "" && len(plans) != 1 {
		return &usageError{errors.New("--report: a report is of one run: give one file")}
	}
	var first *plan.Plan // that can run
	for _, p := range plans {
		err := r.refuse(p)
		if err != nil && len(plans) == 1 {
			return err
		}
		if err == nil && first == nil {
			first = p
		}
	}
	if r.report != "" {
		if err := writeReport(r.report, story.New(plans[0].Name, r.ground, time.Now())); err != nil { // better now than at the end
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := untilNobodyReads(r.out, cancel)
	r.out = out
	if first != nil {
		end, err := r.show(ctx, first)
		if err != nil {
			return err
		}
		defer end()
	}
	done, err := r.all(ctx, plans)
	if err = errors.Join(err, out.broken()); err != nil {
		return err
	}
	if r.window != nil && r.stays && ctx.Err() == nil {
		fmt.Fprintln(r.out, "the window stays until Ctrl-C")
		<-ctx.Done()
	}
	return done.err(len(plans))
}

// check says which flags have values that cannot be.
func (r *labRun) check() error {
	switch {
	case r.pace != 0 && r.ground != groundVirtual:
		return errors.New("--pace: only virtual time has a pace: leave it out, or leave out --ground")
	case math.IsNaN(r.pace) || r.pace < 0 || r.pace > 0 && r.pace < 0.01 || r.pace > 1e6:
		return errors.New("--pace: give a number from 0.01 to 1000000, or 0")
	case r.shrink < 0 || r.shrink > mostShrink:
		return fmt.Errorf("--shrink %d: give how many runs there may be to find a smaller plan, at most %d; 0: none", r.shrink, mostShrink)
	}
	return nil
}

// mostShrink is how often a plan may be run to find a smaller one.
const mostShrink = 10_000

// tally is what became of plans.
type tally struct{ ran, failed, refused int }

// err says what there is to say of so many plans that did not all go well. That some were refused has been said; if it is all of them, nothing ran.
func (t tally) err(all int) error {
	var what []string
	for _, c := range []struct {
		n    int
		does string
	}{{t.failed, "failed"}, {t.refused, "cannot run here"}, {all - t.ran - t.refused, "did not run"}} {
		if c.n > 0 {
			what = append(what, fmt.Sprintf("%d of %d %s", c.n, all, c.does))
		}
	}
	if t.failed == 0 && t.ran > 0 && t.ran+t.refused == all {
		return nil
	}
	err := fmt.Errorf("testnet run: %s", strings.Join(what, ", "))
	if t.refused == all {
		return &usageError{err}
	}
	return &exitError{code: 1, err: err}
}

// all runs the plans, one after the other, until ctx ends. Of several, those that cannot run on the ground are left out.
func (r *labRun) all(ctx context.Context, plans []*plan.Plan) (done tally, err error) {
	for _, p := range plans {
		if ctx.Err() != nil {
			break
		}
		begun := time.Now()
		res, told, err := r.one(ctx, p, true)
		if no := new(refusal); errors.As(err, &no) && len(plans) > 1 {
			done.refused++
			fmt.Fprintf(r.out, "%s: cannot run here: %s\n", p.Name, plainly(err))
			continue
		}
		if err != nil {
			return done, err
		}
		done.ran++
		told.Conclude(res.OK(), res.String())
		fmt.Fprint(r.out, res)
		fmt.Fprintf(r.out, "  it took %.1f s of real time\n", time.Since(begun).Seconds())
		if r.report != "" {
			if err := writeReport(r.report, told); err != nil {
				return done, err
			}
			fmt.Fprintln(r.out, "report written to", r.report)
		}
		if r.trace {
			fmt.Fprintln(r.out, strings.Join(res.Trace(), "\n"))
		}
		if !res.OK() {
			done.failed++
			if err := r.smallest(ctx, p, res); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

// show opens the window, if there shall be one. The func returned closes it.
func (r *labRun) show(ctx context.Context, p *plan.Plan) (end func(), err error) {
	if noWindow(r.web) || r.quiet && !r.stays {
		return func() {}, nil
	}
	var forget func()
	r.window, forget, err = openWindow(r.web, "", story.New(p.Name, r.ground, time.Now()), story.Actions{})
	if err != nil {
		if r.stays {
			return nil, err
		}
		fmt.Fprintln(r.stderr, "peel: warning: there is no window:", err)
		return func() {}, nil
	}
	fmt.Fprintln(r.out, "window:", r.window.Link())
	ctx, cancel := context.WithCancel(ctx)
	var wg contain.Group
	wg.Go(nil, func() {
		lab.Watch(ctx, func(ctx context.Context) {
			if err := r.window.Run(ctx); err != nil {
				fmt.Fprintln(r.stderr, "peel: warning:", err)
			}
		})
	})
	return func() {
		cancel()
		wg.Wait()
		forget()
	}, nil
}

// one runs one plan, and has its story told; watched: to those who run it as well.
func (r *labRun) one(ctx context.Context, p *plan.Plan, watched bool) (res *lab.Result, told *story.Story, err error) {
	var mu sync.Mutex
	pace := 0.0
	if watched {
		pace = r.pace
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg contain.Group
	defer wg.Wait()
	defer cancel()
	pacer := newPacer(ctx, pace)
	defer pacer.end()
	wg.Go(func(*contain.Panic) { cancel() }, func() { pacer.run(ctx) })
	cfg := lab.Config{Plan: p}
	if watched && !r.quiet {
		cfg.Progress = func(s string) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintln(r.out, s)
		}
	}
	port := uint16(0)
	if r.window != nil {
		port = r.window.Port()
	}
	before := lab.Descriptors(port)
	var left string
	if r.ground == groundVirtual {
		cfg.Second = pacer.second
		e := virtual.Run(func() {
			told = story.New(p.Name, "in virtual time", time.Now())
			cfg.Story = told
			if watched && r.window != nil {
				r.window.Show(told, pacer.actions(p.WeatherNames()))
			}
			res, err = lab.Virtual(context.Background(), cfg)
			told.End(time.Now())
		})
		if e != nil {
			left = e.Error()
		}
		if res == nil && err == nil {
			err = e
		}
	} else {
		res, told, left, err = r.real(ctx, cfg, watched)
	}
	if err != nil {
		return nil, nil, err
	}
	if left != "" {
		res.Broken = append(res.Broken, lab.Broken{Rule: "no goroutine is left at the end", Text: left})
	}
	if after := lab.Descriptors(port); after > before {
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
		res, _, err := r.one(ctx, q, false)
		return res, err
	})
	text, err := small.Encode()
	if err != nil {
		return err
	}
	fmt.Fprintf(r.out, "seed %d; broken at %v; the smallest plan found:\n\n%s\n", p.Seed, res.Broken[0].At, text)
	again, _, err := r.one(ctx, small, false)
	if err != nil {
		return err
	}
	fmt.Fprintf(r.out, "its trace:\n%s\n", strings.Join(again.Trace(), "\n"))
	return nil
}
