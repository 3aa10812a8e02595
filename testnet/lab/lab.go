// Package lab runs a plan: the nodes of a network, the shipped code, on a ground; what befalls them; loads; and it watches what must
// always hold (docs/testnet.md).
package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"peel/directory"
	"peel/testnet/plan"
	"peel/testnet/story"
)

// Config says what is run, and who is told.
type Config struct {
	Plan     *plan.Plan
	Ground   Ground
	Story    *story.Story                   // is told what happens; nil: nobody is
	Dir      string                         // of nodes that keep something; needed where the plan says so
	Progress func(string)                   // is told, in a line, what happens; nil: nobody is
	Log      func(node string) *slog.Logger // nil: silent

	Processes *Processes // authorities, relays and clients are processes, on a Ground that is an Outside; nil: they are in this process

	// Second is called once a second, in virtual time by a goroutine of its bubble, into which nothing else comes from outside: with what may be
	// done to the network, and look, which has the Story told how things are now. While it waits for something from outside of the bubble,
	// time does not pass. false: end. nil: nobody looks.
	Second func(can story.Actions, look func()) (goOn bool)
}

// Lab is a network under a plan: made by New, run once by Run.
type Lab struct {
	cfg     Config
	plan    *plan.Plan
	ground  Ground
	network *directory.Network
	beginAt atomic.Int64 // of the timetable, in Unix nanoseconds
	story   *story.Story

	nodes    []*node // authorities, then relays
	byName   map[string]*node
	clients  []user
	doors    []*door  // those of them that are processes
	outside  Outside  // of processes
	starter  *starter // of processes; nil: there are none
	villains []*villainClient
	services map[string]*service
	places   map[netip.Addr]string // of machines; no longer changes after New

	machines    []Machine
	clientAddrs []netip.AddrPort
	clientHosts map[string]*host
	looking     sync.Mutex             // held during a look; goes before mu
	shown       []*directory.Consensus // that look saw last, of each client; guarded by looking
	said        []atomic.Bool          // of plan.Expect.Says

	mu       sync.Mutex
	kills    []*kill
	result   Result
	running  sync.WaitGroup // of all that Run starts and waits for
	hand     chan struct{}  // of who does something to the network, from when it has started: one at a time, the timetable or somebody who watches; closed: it is over
	started  atomic.Bool    // all there is on the ground, or it is over
	fell     chan string    // of a node that ended by itself, the first: how
	ctx      context.Context
	baseline int // goroutines before
}

// New makes the nodes' keys and addresses. It starts nothing.
func New(cfg Config) (*Lab, error) {
	if err := cfg.Plan.Check(); err != nil {
		return nil, err
	}
	outside, ok := cfg.Ground.(Outside)
	if cfg.Processes != nil && (!ok || cfg.Dir == "") {
		return nil, errors.New("lab: processes need a folder, and a ground that they can be started on")
	}
	if err := Refuse(cfg.Plan, cfg.Ground, cfg.Processes != nil); err != nil {
		return nil, err
	}
	if cfg.Plan.Kept && cfg.Dir == "" {
		return nil, errors.New("lab: nodes of this plan keep what they know: a folder is needed")
	}
	if cfg.Log == nil {
		cfg.Log = func(string) *slog.Logger { return slog.New(slog.DiscardHandler) }
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	l := &Lab{
		cfg: cfg, plan: cfg.Plan, ground: cfg.Ground, outside: outside, byName: make(map[string]*node), services: make(map[string]*service),
		places: make(map[netip.Addr]string), baseline: goroutines(), hand: make(chan struct{}, 1), fell: make(chan string, 1),
	}
	l.shown = make([]*directory.Consensus, cfg.Plan.Clients)
	l.clientHosts, l.said = make(map[string]*host), make([]atomic.Bool, len(cfg.Plan.Expect.Says))
	l.result.Plan = cfg.Plan
	l.result.seen = make(map[string]string)
	if l.story = cfg.Story; l.story == nil {
		l.story = story.New(cfg.Plan.Name, cfg.Ground.Traits().Name, time.Now())
	}
	if err := l.lay(time.Now()); err != nil {
		return nil, errors.Join(err, l.ground.End())
	}
	return l, nil
}

// Refuse says what of a plan cannot be had on a ground, with nodes that are processes or not, and what to do. It begins nothing.
func Refuse(p *plan.Plan, g Ground, processes bool) error {
	if err := g.Refuse(p); err != nil || !processes {
		return err
	}
	return refuseOutside(p)
}

// Run runs the plan to its end, or until ctx ends, and says how it went. The error is of what kept it from running at all.
func (l *Lab) Run(ctx context.Context) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.ctx = ctx
	err := l.start(ctx)
	l.hand <- struct{}{} // end takes it too
	if err != nil {
		if ctx.Err() == nil {
			return nil, errors.Join(err, l.end(cancel))
		}
		l.stopped() // what it was at then could not be done any more
		if err := l.end(cancel); err != nil {
			return nil, err
		}
		l.finish()
		return &l.result, nil
	}
	l.started.Store(true)
	started := time.Now()
	l.running.Go(func() { l.watch(ctx) })
	if l.cfg.Second != nil {
		l.running.Go(func() {
			for sleepUntil(ctx, time.Now().Add(time.Second)) {
				if !l.cfg.Second(l.Actions(), func() { l.look(lookTime) }) {
					cancel(nil)
				}
			}
		})
	}
	l.running.Go(func() {
		if l.clients[0].Ready(ctx) == nil {
			took := time.Since(started)
			l.mu.Lock()
			l.result.Ready = took
			l.mu.Unlock()
			l.say(story.OfStart, "client1", "is ready after %v", took.Round(time.Millisecond))
		}
	})
	if l.plan.Expect.Ready > 0 {
		l.awaitClients(ctx)
	}
	err = l.play(ctx)
	if err := errors.Join(err, l.end(cancel)); err != nil {
		return nil, err
	}
	l.finish()
	return &l.result, nil
}

// awaitClients notes which clients are not ready in time. It does not wait for that.
func (l *Lab) awaitClients(ctx context.Context) {
	since := l.network.Schedule.Start
	for i, c := range l.clients {
		l.running.Go(func() {
			in, cancel := context.WithDeadline(ctx, since.Add(time.Duration(l.plan.Expect.Ready)))
			defer cancel()
			if err := c.Ready(in); err != nil {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.result.cold = append(l.result.cold, story.Sayf("client%d was not (%v)", i+1, err))
			}
		})
	}
}

// start starts all there is on the ground.
func (l *Lab) start(ctx context.Context) error {
	if err := l.ground.Begin(ctx, l.machines); err != nil {
		return err
	}
	if err := l.setWeather(l.plan.Weather); err != nil {
		return err
	}
	for i := 1; i <= l.plan.Relays.Count; i++ {
		if err := l.limit(l.byName[fmt.Sprintf("relay%d", i)], 0); err != nil {
			return err
		}
	}
	if l.cfg.Processes != nil {
		l.starter = newStarter()
	}
	for _, s := range l.services {
		if err := s.start(l); err != nil {
			return err
		}
	}
	for _, n := range l.nodes {
		if err := n.start(); err != nil {
			return err
		}
	}
	return l.startClients(ctx)
}

// play waits for the network, and then lets happen what the plan says.
func (l *Lab) play(ctx context.Context) error {
	if !sleepUntil(ctx, l.begin()) {
		l.stopped()
		return nil
	}
	if l.ground.Traits().Real {
		if err := l.await(ctx); ctx.Err() != nil {
			l.stopped()
			return nil
		} else if err != nil {
			return err
		}
	}
	end := l.begin().Add(time.Duration(l.plan.Length))
	l.mu.Lock()
	l.result.end = end
	l.mu.Unlock()
	life, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	var acting, loads sync.WaitGroup
	acting.Go(func() { l.act(life) })
	for i := range l.plan.Loads {
		loads.Go(func() { l.load(ctx, i, end) })
	}
	for _, v := range l.villains {
		acting.Go(func() { v.run(life) })
	}
	loads.Wait()
	acting.Wait()
	<-life.Done()
	if ctx.Err() != nil {
		l.stopped()
	}
	return nil
}

// stopped notes that somebody ended the run before its time.
func (l *Lab) stopped() {
	l.mu.Lock()
	l.result.Stopped = true
	l.mu.Unlock()
}

// mostWait is how long the first client may need to be ready, in real time.
const mostWait = 2 * time.Minute

// morePeriods is how many more may go by until all relays are known.
const morePeriods = 4

// await waits for the first client, and until it knows all relays: on a busy machine some are too late for the first consensus, and what
// the plan does to others would leave no path. Then it has the timetable begin. It waits no longer when a node ends by itself.
func (l *Lab) await(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, mostWait)
	ready := make(chan error, 1)
	go func() {
		err := l.clients[0].Ready(wait)
		if err == nil {
			l.awaitRelays(wait)
		}
		ready <- err
	}()
	var err error
	select {
	case err = <-ready:
		cancel()
	case how := <-l.fell:
		cancel()
		<-ready
		return fmt.Errorf("lab: the network is not ready: a node ended by itself: %s", how)
	}
	if err != nil {
		return fmt.Errorf("lab: the network is not ready after %v; on a slow or busy machine give the plan more than period = %q and voting = %q: client1: %w",
			mostWait, l.plan.Period, l.plan.Voting, err)
	}
	l.setBegin(time.Now())
	return nil
}

// awaitRelays waits until the first client knows all relays, for some periods at most: one that is a villain may stay away.
func (l *Lab) awaitRelays(ctx context.Context) {
	end := time.Now().Add(morePeriods * time.Duration(l.plan.Period))
	for time.Now().Before(end) {
		if c := l.clients[0].Consensus(); c != nil && len(c.Entries) >= l.plan.Relays.Count || !sleepUntil(ctx, time.Now().Add(50*time.Millisecond)) {
			return
		}
	}
}

// begin is when the timetable begins; on grounds of real time it may move until it has.
func (l *Lab) begin() time.Time { return time.Unix(0, l.beginAt.Load()) }

func (l *Lab) setBegin(t time.Time) { l.beginAt.Store(t.UnixNano()) }

// end stops all that runs, and waits until it is gone.
func (l *Lab) end(cancel context.CancelCauseFunc) error {
	<-l.hand // nobody does anything to it from here on
	close(l.hand)
	l.started.Store(true)
	l.collect()
	l.story.End(time.Now()) // how the network is taken down is no part of it
	cancel(nil)
	l.endPrograms()
	for _, n := range l.nodes {
		n.stop(false)
	}
	for _, s := range l.services {
		s.stop()
	}
	l.running.Wait()
	err := l.ground.End()
	if g, ok := l.ground.(*namespaces); ok {
		l.result.Packets = g.packets.Counts()
	}
	return err
}

func sleepUntil(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// say tells of an event whoever wants to know.
func (l *Lab) say(kind, node, format string, a ...any) {
	now := time.Now()
	text := story.Sayf(format, a...)
	l.story.Tell(story.Event{At: now, Node: node, Kind: kind, Text: text})
	if node != "" {
		text = node + " " + text
	}
	l.cfg.Progress(fmt.Sprintf("%9s  %s", time.Duration(now.Sub(l.begin())).Round(time.Millisecond*100), text))
}

// dialer dials as the machine at an address.
func (l *Lab) dialer(a netip.Addr) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		return l.ground.Dial(ctx, a, network, addr)
	}
}

// folder is a node's own; "": it keeps nothing.
func (l *Lab) folder(name string) (string, error) {
	if !l.plan.Kept {
		return "", nil
	}
	dir := l.cfg.Dir + string(os.PathSeparator) + name
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	return dir, nil
}
