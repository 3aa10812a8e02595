package lab

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"peel/testnet/plan"
	"peel/testnet/scenarios"
)

// quick are the scenarios that run with the quick tests.
var quick = []string{"first-page.toml"}

// lighter makes what a scenario carries less, so that all of them can be run each time: it has as much to bear. peel testnet run has the
// whole.
var lighter = map[string]func(*plan.Plan){
	"kill-relays.toml": func(p *plan.Plan) { p.Loads[0].Size = 256 << 10 },
}

// mostShrunk is how often a test runs a plan that broke a rule to find the smallest that does.
const mostShrunk = 12

func TestScenarios(t *testing.T) {
	files, err := scenarios.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 15 {
		t.Fatalf("%d scenarios", len(files))
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(f.Name(), ".toml"), func(t *testing.T) {
			t.Parallel()
			text, err := scenarios.Files.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			p, err := plan.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(quick, f.Name()) && os.Getenv("PEEL_SLOW") == "" {
				t.Skip("needs some seconds of CPU: set PEEL_SLOW=1 to run it")
			}
			if change := lighter[f.Name()]; change != nil {
				change(p)
			}
			r := virtual(t, p)
			switch {
			case len(r.Broken) > 0:
				t.Errorf("%s\n%s", r, smallest(r, func(q *plan.Plan) (*Result, error) { return virtual(t, q), nil }))
			case !r.OK():
				t.Error(r)
			default:
				t.Log(r)
			}
		})
	}
}

// smallest tells how a rule came to be broken: the seed, when, the smallest plan found that still breaks it, and its trace.
func smallest(r *Result, run func(*plan.Plan) (*Result, error)) string {
	b := r.Broken[0]
	small := Shrink(r.Plan, b.Rule, mostShrunk, run)
	text, err := small.Encode()
	if err != nil {
		return err.Error()
	}
	again, err := run(small)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("seed %d; %q broken at %v; the smallest plan found that breaks it, run again by peel testnet run ./FILE.toml:\n\n%s\nits trace:\n%s", r.Plan.Seed, b.Rule, b.At, text, strings.Join(again.Trace(), "\n"))
}

// Who reads that a rule was broken is given the seed, when it was, and no more of the plan than it takes.
func TestABrokenRuleIsToldWithTheSmallestPlan(t *testing.T) {
	text, err := scenarios.Files.ReadFile("rolling-restart.toml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	p.Seed = 4711
	guilty := p.Events[1].Node
	run := func(q *plan.Plan) (*Result, error) {
		r := &Result{Plan: q, end: time.Now()}
		for _, e := range q.Events {
			r.acts = append(r.acts, e.Do+" "+e.Node)
			if e.Node == guilty && len(r.Broken) == 0 {
				r.Broken = []Broken{{At: 7 * time.Second, Rule: "no node panics"}}
			}
		}
		return r, nil
	}
	r, _ := run(p)
	told := smallest(r, run)
	for _, want := range []string{"seed 4711", `"no node panics" broken at 7s`, "node = \"" + guilty + "\"", "its trace:\nseed 4711\n" + p.Events[1].Do + " " + guilty + "\nbroken no node panics"} {
		if !strings.Contains(told, want) {
			t.Errorf("%q is not told:\n%s", want, told)
		}
	}
	if n := strings.Count(told, "[[event]]"); n != 1 {
		t.Errorf("%d events are left of %d, and one would do:\n%s", n, len(p.Events), told)
	}
}
