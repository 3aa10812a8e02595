package lab

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"peel/testnet/netns"
	"peel/testnet/plan"
	"peel/testnet/story"
)

// Result is how a run went.
type Result struct {
	Plan      *plan.Plan
	Ready     time.Duration // from the start of the nodes until the first client was ready; 0: none was
	Downloads []Download
	Periods   []Period        // that had a consensus, as they were seen
	Accused   []string        // authorities that signed two things for one period
	Broken    []Broken        // what must always hold, and did not
	Failed    []string        // what was expected, and did not come
	Breaches  int             // circuits that honest relays ended for what came on them, and links likewise
	Ended     int             // of these, the links
	Torn      int             // circuits that clients ended for what came on them
	Most      uint64          // bytes a second that a relay counted for, in any consensus
	Behind    time.Duration   // how old the list of an honest relay or a client was, at most
	Behinder  string          // and whose it was
	Refused   int             // requests of villains that were refused
	Deeds     int             // of villains
	Missed    int             // periods without a consensus
	Again     int             // streams that clients asked for on another circuit by themselves, as one had failed them
	Kills     int             // of relays, after which a new connection was waited for
	Took      []time.Duration // until it worked, in order
	Prompt    int             // of these, after which it came in time
	Stopped   bool            // before its end
	ByHand    int             // what those who watched did to the network
	Packets   netns.Counts    // that a ground carried which carries packets

	end  time.Time // of the timetable
	over time.Time // when the network was taken down
	acts []string
	seen map[string]string
	idle []string // villains
	free []string // villain clients of which too little was refused
	cold []string // clients that were not ready in time
}

// Period is one consensus.
type Period struct {
	ValidAfter time.Time
	Digest     string
	Relays     int
	names      []string // that are running
}

// Broken is something that must always hold, and did not.
type Broken struct {
	At   time.Duration // from the beginning of the timetable
	Rule string
	Text string
}

const mostBroken = 100

// broken notes that something that must always hold does not.
func (l *Lab) broken(rule, format string, a ...any) {
	text := story.Sayf(format, a...)
	b := Broken{At: time.Since(l.begin()), Rule: rule, Text: text}
	l.mu.Lock()
	if len(l.result.Broken) < mostBroken {
		l.result.Broken = append(l.result.Broken, b)
	}
	l.mu.Unlock()
	l.story.Mark(story.Mark{At: time.Now(), Kind: story.OfInvariant, Text: rule})
	l.say(story.OfInvariant, "", "BROKEN: %s: %s", rule, text)
}

// endedByItself notes a node that did, which await waits for too.
func (l *Lab) endedByItself(format string, a ...any) {
	l.broken("a node ended by itself", format, a...)
	select {
	case l.fell <- story.Sayf(format, a...):
	default: // it is not the first
	}
}

// trace adds a line to the trace.
func (l *Lab) trace(format string, a ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.acts = append(l.result.acts, fmt.Sprintf(format, a...))
}

// collect gathers what the nodes counted, while they still run.
func (l *Lab) collect() {
	r := &l.result
	r.over = time.Now()
	l.settle(askTime) // what was asked before now may not tell of the end
	l.look(askTime)
	for _, n := range l.nodes {
		c := n.counted()
		if c.panics > 0 {
			l.broken("no node panics", "%s: %d times", n.name, c.panics)
		}
		if n.honest() {
			r.Breaches += int(c.breaches + c.faults)
			r.Ended += int(c.faults)
		}
		deeds := n.mind.Deeds.Load() + c.deeds
		r.Deeds += int(deeds)
		l.idle(n.name, deeds)
	}
	for i, c := range l.clients {
		r.Again += int(c.Again())
		if p := c.Panics(); p > 0 {
			l.broken("no node panics", "client%d: %d times", i+1, p)
		}
	}
	for _, v := range l.villains {
		r.Refused += int(v.refused.Load())
		if n := v.refused.Load(); n < uint64(v.least) {
			r.free = append(r.free, fmt.Sprintf("%d of %s (%s), which should be %d", n, v.name, v.script, v.least))
		}
		r.Deeds += int(v.deeds.Load())
		l.idle(v.name, v.deeds.Load())
	}
}

// once are the scripts of which one deed is for good.
var once = []string{"boast", "claim", equivocate}

// idle notes a villain that did less than was expected of it: then nothing is shown by how others bore it.
func (l *Lab) idle(name string, deeds uint64) {
	for _, v := range l.plan.Villains {
		if v.Node == name && !slices.Contains(once, v.Script) && deeds < uint64(l.plan.Expect.Deeds) {
			l.result.idle = append(l.result.idle, fmt.Sprintf("%s (%s) did %d", name, v.Script, deeds))
		}
	}
}

// finish looks at what was expected, when all has ended.
func (l *Lab) finish() {
	r := &l.result
	slices.SortFunc(r.Downloads, func(a, b Download) int { return cmp.Or(a.Load-b.Load, a.Index-b.Index) })
	slices.SortFunc(r.Periods, func(a, b Period) int { return a.ValidAfter.Compare(b.ValidAfter) })
	r.Missed = l.missed()
	if len(l.plan.Villains) == 0 && !slices.ContainsFunc(l.plan.Events, func(e plan.Event) bool { return e.Do == plan.Corrupt }) && r.Breaches > 0 {
		l.broken("honest nodes send nothing that others must end circuits or links for", "%d times", r.Breaches)
	}
	if r.Stopped {
		return // what was expected had not the time to come
	}
	l.lookAtDownloads()
	l.lookAtCounts()
	l.lookAtWords()
	l.lookAtKills()
	l.story.End(time.Now())
}

func (r *Result) fail(format string, a ...any) {
	r.Failed = append(r.Failed, fmt.Sprintf(format, a...))
}

func (l *Lab) lookAtDownloads() {
	r, x := &l.result, &l.plan.Expect
	n := len(r.Downloads)
	if n == 0 {
		if len(l.plan.Loads) > 0 {
			r.fail("no download came to its end")
		}
		return
	}
	if c := r.Share(func(d Download) bool { return d.Complete }); c < x.Complete {
		r.fail("complete = %v: %.4f of %d downloads", x.Complete, c, n)
	}
	if c := r.Share(func(d Download) bool { return d.Complete && d.Tries == 1 }); c < x.FirstTry {
		r.fail("first_try = %v: %.4f of %d downloads", x.FirstTry, c, n)
	}
	if f := r.Median(func(d Download) time.Duration { return d.First }); x.FirstByte > 0 && f > time.Duration(x.FirstByte) {
		r.fail("first_byte = %q: %v for half of the downloads", x.FirstByte, f)
	}
	if s := slices.MaxFunc(r.Downloads, func(a, b Download) int { return cmp.Compare(a.Took, b.Took) }); x.Slowest > 0 && s.Took > time.Duration(x.Slowest) {
		r.fail("slowest = %q: one took %v", x.Slowest, s.Took)
	}
}

func (l *Lab) lookAtCounts() {
	r, x := &l.result, &l.plan.Expect
	if r.Missed > x.MissedPeriods {
		r.fail("missed_periods = %d: %d had no consensus", x.MissedPeriods, r.Missed)
	}
	if r.Breaches < x.Breaches {
		r.fail("breaches = %d: honest relays saw %d", x.Breaches, r.Breaches)
	}
	if len(r.free) > 0 || r.Refused < x.Refused {
		r.fail("refused: of requests of clients that are villains %s", cmp.Or(strings.Join(r.free, ", "), fmt.Sprintf("none, which should be %d of each", x.Refused)))
	}
	if len(r.cold) > 0 {
		r.fail("ready = %q, from the first relay list that could be had: %s", x.Ready, strings.Join(r.cold, ", "))
	}
	if len(r.idle) > 0 {
		r.fail("deeds = %d of each villain: %s", x.Deeds, strings.Join(r.idle, ", "))
	}
	if r.Ended < x.Ended {
		r.fail("ended = %d: honest nodes ended %d links", x.Ended, r.Ended)
	}
	if r.Again < x.Again {
		r.fail("again = %d: clients asked for %d streams on another circuit by themselves", x.Again, r.Again)
	}
	if r.Torn < x.Torn {
		r.fail("torn = %d: clients ended %d circuits for what came on them", x.Torn, r.Torn)
	}
	if x.Counts > 0 && r.Most > uint64(x.Counts) {
		r.fail("counts = %q: a relay counted for %d", x.Counts, r.Most)
	}
	if x.Behind > 0 && r.Behind > time.Duration(x.Behind) {
		r.fail("behind = %q: the relay list of %s was %v old", x.Behind, r.Behinder, r.Behind.Round(time.Millisecond))
	}
}

// lookAtWords looks at what nodes told their operators, and whom they accuse.
func (l *Lab) lookAtWords() {
	r, x := &l.result, &l.plan.Expect
	for i, s := range x.Says {
		if !l.said[i].Load() {
			r.fail("says: %s did not tell its operator %q", s.Node, s.Text)
		}
	}
	for _, who := range x.Accused {
		if !slices.Contains(r.Accused, who) {
			r.fail("accused: nobody accuses %s", who)
		}
	}
	for _, who := range r.Accused {
		if !slices.Contains(x.Accused, who) {
			r.fail("accused: %s is accused, which was not expected", who)
		}
	}
}

func (l *Lab) lookAtKills() {
	r, x := &l.result, &l.plan.Expect
	for _, k := range l.kills {
		if k.took == 0 && k.cut {
			continue
		}
		r.Kills++
		r.Took = append(r.Took, cmp.Or(k.took, mostReconnect))
		if k.took > 0 && k.took <= time.Duration(x.Reconnect) {
			r.Prompt++
		}
	}
	slices.Sort(r.Took)
	if r.Kills > 0 && float64(r.Prompt) < x.ReconnectShare*float64(r.Kills) {
		r.fail("reconnect = %q: a new connection worked in time after %d of %d kills", x.Reconnect, r.Prompt, r.Kills)
	}
}

// missed counts the periods without a consensus, from the first one that anybody saw to the end of the run.
func (l *Lab) missed() int {
	r := &l.result
	if r.Stopped {
		return 0
	}
	if len(r.Periods) == 0 {
		return max(1, int(time.Duration(l.plan.Length)/time.Duration(l.plan.Period)))
	}
	period := time.Duration(l.plan.Period)
	first := r.Periods[0].ValidAfter
	last := r.over.Add(-period / 2) // the newest may not have been looked at
	want := int(last.Sub(first)/period) + 1
	return max(0, want-len(r.Periods))
}

// Share is how many of the downloads are so, from 0 to 1.
func (r *Result) Share(is func(Download) bool) float64 {
	n := 0
	for _, d := range r.Downloads {
		if is(d) {
			n++
		}
	}
	return float64(n) / float64(max(1, len(r.Downloads)))
}

// Median is the middle one of a length of time of those downloads that have it.
func (r *Result) Median(of func(Download) time.Duration) time.Duration {
	var all []time.Duration
	for _, d := range r.Downloads {
		if t := of(d); t > 0 {
			all = append(all, t)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// OK says whether all held that must, and all came that was expected.
func (r *Result) OK() bool { return len(r.Broken) == 0 && len(r.Failed) == 0 }

// Trace is what the seed decides, line by line: what befell the network, who was there in each period, and what became of each download.
// It has no finer times than the plan's: in which order goroutines run is nobody's choice.
func (r *Result) Trace() []string {
	lines := []string{fmt.Sprintf("seed %d", r.Plan.Seed)}
	lines = append(lines, r.acts...)
	for i, p := range r.Periods {
		if !p.ValidAfter.Before(r.end) { // whether somebody still saw it is chance
			break
		}
		lines = append(lines, fmt.Sprintf("period %d %s %s running %s", i+1, p.ValidAfter.Format(time.RFC3339), p.Digest, strings.Join(p.names, " ")))
	}
	done := make([]int, len(r.Plan.Loads))
	for _, d := range r.Downloads {
		done[d.Load]++
	}
	for i, ld := range r.Plan.Loads {
		if done[i] < ld.Count && ld.Pause > 0 {
			lines = append(lines, fmt.Sprintf("load %d went on to the end", i+1)) // how often it did is chance
		}
	}
	for _, d := range r.Downloads {
		state := "complete"
		switch ld := &r.Plan.Loads[d.Load]; {
		case !d.Complete:
			state = "failed"
		case done[d.Load] < ld.Count && ld.Pause > 0:
			continue
		}
		lines = append(lines, fmt.Sprintf("load %d download %d %s %s", d.Load+1, d.Index+1, d.Client, state))
	}
	for _, b := range r.Broken {
		lines = append(lines, "broken "+b.Rule)
	}
	return lines
}

// Digest is the SHA-256 of the trace.
func (r *Result) Digest() string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(r.Trace(), "\n"))))
}

// String tells in some lines how the run went.
func (r *Result) String() string {
	var b strings.Builder
	verdict := "ok"
	switch {
	case !r.OK():
		verdict = "FAILED"
	case r.Stopped:
		verdict = "stopped before its end"
	}
	fmt.Fprintf(&b, "%s: %s (seed %d, %v)\n", r.Plan.Name, verdict, r.Plan.Seed, r.Plan.Length)
	for _, k := range r.Broken {
		fmt.Fprintf(&b, "  broken at %v: %s: %s\n", k.At.Round(time.Millisecond), k.Rule, k.Text)
	}
	for _, f := range r.Failed {
		fmt.Fprintf(&b, "  expected %s\n", f)
	}
	if n := len(r.Downloads); n > 0 {
		retried := r.Share(func(d Download) bool { return d.Complete && d.Tries > 1 })
		slow := slices.MaxFunc(r.Downloads, func(a, b Download) int { return cmp.Compare(a.Took, b.Took) })
		fmt.Fprintf(&b, "  downloads: %d, complete %.2f %%, of these after another try %.2f %% (clients tried another circuit %d times by themselves); first byte after %v for half of them; the slowest took %v\n",
			n, 100*r.Share(func(d Download) bool { return d.Complete }), 100*retried, r.Again,
			r.Median(func(d Download) time.Duration { return d.First }).Round(time.Millisecond), slow.Took.Round(time.Millisecond))
	}
	fmt.Fprintf(&b, "  periods: %d with a consensus, %d without\n", len(r.Periods), r.Missed)
	if r.Deeds > 0 {
		fmt.Fprintf(&b, "  villains: %d misdeeds; honest nodes ended %d circuits and %d links for what came, and clients %d circuits; %d requests were refused; accused: %v\n", r.Deeds, r.Breaches-r.Ended, r.Ended, r.Torn, r.Refused, r.Accused)
	}
	if r.Kills > 0 {
		fmt.Fprintf(&b, "  kills: %d; a new connection worked in time after %d: within %v for half of them, %v for all\n", r.Kills, r.Prompt,
			r.Took[len(r.Took)/2].Round(time.Millisecond), r.Took[len(r.Took)-1].Round(time.Millisecond))
	}
	if k := r.Packets; k.Carried > 0 {
		fmt.Fprintf(&b, "  packets: %d arrived, %d were lost, %d dropped by full queues, %d unheard, %d ended their connection\n",
			k.Carried, k.Lost, k.Full, k.Unheard, k.Broken)
	}
	if r.ByHand > 0 {
		fmt.Fprintf(&b, "  done by hand: %d; so the trace is not what the seed decides alone\n", r.ByHand)
	}
	fmt.Fprintf(&b, "  trace: %s\n", r.Digest())
	return b.String()
}

// watching is the label of goroutines that belong to those who watch.
const watching = "watching"

// Watch runs do, whose goroutines, and those that they start, are no part of a run that goes on meanwhile.
func Watch(ctx context.Context, do func(context.Context)) {
	pprof.Do(ctx, pprof.Labels(watching, "yes"), do)
}

// goroutines is how many there are, but those of Watch.
func goroutines() int {
	if runtime.NumGoroutine() > mostProfiled {
		return runtime.NumGoroutine()
	}
	var text bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&text, 1); err != nil {
		return runtime.NumGoroutine()
	}
	return unwatched(text.String())
}

// unwatched counts the goroutines of a profile, but those of Watch.
func unwatched(profile string) (all int) {
	alike := 0 // in the profile stands how many are alike, and then their labels
	for line := range strings.Lines(profile) {
		if n, _, found := strings.Cut(line, " @ "); found {
			alike, _ = strconv.Atoi(n)
			all += alike
		} else if strings.HasPrefix(line, "# labels: ") && strings.Contains(line, `"`+watching+`"`) {
			all -= alike
		}
	}
	return all
}

// mostProfiled bounds what is looked at goroutine by goroutine: more are there while a network runs.
const mostProfiled = 2000

// Left says what of a run is still there; "": nothing. Goroutines of the runtime may take a moment to go.
func (l *Lab) Left() string {
	for deadline := time.Now().Add(10 * time.Second); goroutines() > l.baseline; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Sprintf("%d goroutines, and %d before", goroutines(), l.baseline)
		}
	}
	return ""
}

// Descriptors is how many files and sockets this process has open, but those of connections that came to a port of its own by which it is
// watched, if that is not 0; 0 where that cannot be told.
func Descriptors(watched uint16) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	n := 0
	for _, f := range list {
		if fd, err := strconv.Atoi(f.Name()); watched == 0 || err != nil || !cameTo(fd, watched) {
			n++
		}
	}
	return n
}
