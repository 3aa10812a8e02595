package lab

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"peel/client"
	"peel/client/path"
	"peel/directory"
	"peel/directory/authority"
	"peel/testnet/story"
)

// watch looks at the network again and again: at its periods, its counters, and what must always hold.
func (l *Lab) watch(ctx context.Context) {
	period := time.Duration(l.plan.Period)
	every := min(max(period/4, time.Second), max(time.Minute, period/60))
	if l.ground.Traits().Real { // it takes its time, whoever looks
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.look(lookTime)
		case <-ctx.Done():
			return
		}
	}
}

// look is one look at everything. It waits for nodes that are processes, but for no more than wait.
func (l *Lab) look(wait time.Duration) {
	l.looking.Lock()
	defer l.looking.Unlock()
	l.refresh(wait)
	now := time.Now()
	best := make(map[time.Time]story.Period) // of what authorities know of each period, what that one has who has most
	take := func(p story.Period) {
		if b, there := best[p.ValidAfter]; !p.ValidAfter.IsZero() && (!there || len(p.Signatures)+len(p.Votes) > len(b.Signatures)+len(b.Votes)) {
			best[p.ValidAfter] = p
		}
	}
	for _, n := range l.nodes {
		lists, life := n.consensus()
		if life != n.seen {
			n.shown, n.seen = [2]*directory.Consensus{}, life
		}
		for i, c := range lists {
			if n.shown[i] != c {
				l.forth(n.name, n.shown[i], c)
				n.shown[i] = c
				l.saw(n.name, c)
			}
		}
		if n.role == roleRelay && n.honest() && n.up() {
			l.old(n.name, now, newest(lists))
		}
		if s := n.status(); s != nil {
			for _, e := range s.Evidence {
				l.accuse(n.name, e.Authority, e.Kind)
			}
			if n.honest() {
				take(l.period(&s.Outcome, s.Phase))
				if s.Before != nil {
					take(l.period(s.Before, "done"))
				}
			}
		}
		l.story.Carried(n.name, n.counted().cells)
	}
	for _, p := range best {
		l.story.Period(p)
	}
	for i, c := range l.clients {
		if cons := c.Consensus(); cons != nil {
			if l.shown[i] != cons {
				l.forth(fmt.Sprintf("client%d", i+1), l.shown[i], cons)
				l.shown[i] = cons
				l.saw(fmt.Sprintf("client%d", i+1), cons)
			}
		}
		l.old(fmt.Sprintf("client%d", i+1), now, c.Consensus())
		l.story.Circuits(now, fmt.Sprintf("client%d", i+1), c.circuits(now))
	}
	l.story.Sample(now)
}

// old notes how old the list of an honest relay or a client is, once the network is ready; nil: it has none.
func (l *Lab) old(who string, now time.Time, c *directory.Consensus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := l.network.Schedule.Start
	if c != nil {
		since = c.ValidAfter
	}
	if age := now.Sub(since); !now.Before(l.begin()) && age > l.result.Behind {
		l.result.Behind, l.result.Behinder = age, who
	}
}

// newest is the newest of some lists; nil: there is none.
func newest(lists []*directory.Consensus) (c *directory.Consensus) {
	for _, x := range lists {
		if c == nil || x.ValidAfter.After(c.ValidAfter) {
			c = x
		}
	}
	return c
}

// forth notes that a node has another list than it had, which must be newer.
func (l *Lab) forth(who string, before, c *directory.Consensus) {
	if before != nil && c.ValidAfter.Before(before.ValidAfter) {
		l.broken("no node goes back to an older relay list", "%s has that of %s UTC, and had that of %s UTC", who,
			c.ValidAfter.UTC().Format(time.TimeOnly), before.ValidAfter.UTC().Format(time.TimeOnly))
	}
}

// honest says whether the node is none of the villains of the plan.
func (n *node) honest() bool { return n.mind.Script() == "" && n.script == "" }

// saw notes a consensus that somebody holds: for one period there is one, and no other.
func (l *Lab) saw(who string, c *directory.Consensus) {
	at := c.ValidAfter.UTC().Format(time.RFC3339)
	digest := c.Header.Digest().String()
	if directory.Root(c.Entries) != c.Root {
		l.broken("the relays in a list are those that the authorities signed", "in the list of %s that %s holds others stand", at, who)
	}
	l.mu.Lock()
	before, there := l.result.seen[at]
	if !there {
		l.result.seen[at] = digest
		p := Period{ValidAfter: c.ValidAfter, Digest: digest, Relays: len(c.Entries), names: running(c)}
		for i := range c.Entries {
			l.result.Most = max(l.result.Most, c.Entries[i].Bandwidth)
		}
		l.result.Periods = append(l.result.Periods, p)
	}
	l.mu.Unlock()
	if there && before != digest {
		l.broken("there is one consensus for a period", "for %s %s holds %s, and another node %s", at, who, digest, before)
	}
	if there {
		return
	}
	l.story.Tell(story.Event{At: time.Now(), Kind: story.OfDirectory, Text: fmt.Sprintf("the consensus of %s UTC lists %d relays and is signed by %d of %d authorities",
		c.ValidAfter.UTC().Format(time.TimeOnly), len(c.Entries), len(c.Signatures), l.plan.Authorities)})
	for i := range c.Entries {
		e := &c.Entries[i]
		l.story.Change(e.Nickname, func(n *story.Node) {
			n.Bandwidth = e.Bandwidth
			n.Flags = strings.Fields(e.Flags.String())
		})
	}
}

// running names the relays that a consensus says are there, with what they may be.
func running(c *directory.Consensus) []string {
	var names []string
	for i := range c.Entries {
		if e := &c.Entries[i]; e.Flags.Has(directory.Running) {
			names = append(names, e.Nickname)
		}
	}
	slices.Sort(names)
	return names
}

func (l *Lab) accuse(by, whom, kind string) {
	l.mu.Lock()
	key := "evidence " + whom
	_, there := l.result.seen[key]
	l.result.seen[key] = kind
	if !there {
		l.result.Accused = append(l.result.Accused, whom)
	}
	l.mu.Unlock()
	if !there {
		l.say(story.OfVillain, whom, "is accused by %s: it signed two %s for one period", by, kind)
	}
}

// period is what an authority knows of one.
func (l *Lab) period(o *authority.Outcome, phase string) story.Period {
	return story.Period{
		ValidAfter: o.Period, Phase: phase, Votes: o.Votes, Signatures: o.Signatures, Differ: o.Differ, Twice: o.Equivocated, Needed: o.Needed,
		Of: l.plan.Authorities, Digest: o.Header,
	}
}

// checkPath holds a circuit to the rules of paths (spec/path.md).
func (l *Lab) checkPath(who string, p path.Path) {
	why := ""
	for i, a := range p {
		for _, b := range p[:i] {
			switch {
			case a.ID == b.ID:
				why = fmt.Sprintf("%s is in it twice", a.Nickname)
			case l.plan.Relays.Count <= 250 && sameNet(a.Addrs, b.Addrs):
				why = fmt.Sprintf("%s and %s are in one /16", b.Nickname, a.Nickname)
			case l.oneFamily(a.Nickname, b.Nickname):
				why = fmt.Sprintf("%s and %s are of one family", b.Nickname, a.Nickname)
			}
		}
	}
	if why != "" {
		l.broken("no path breaks the rules", "%s: %v: %s", who, hops(p), why)
	}
}

func sameNet(a, b []netip.AddrPort) bool {
	for _, x := range a {
		for _, y := range b {
			if p, err := x.Addr().Prefix(16); err == nil && x.Addr().Is4() && p.Contains(y.Addr()) {
				return true
			}
		}
	}
	return false
}

func (l *Lab) oneFamily(a, b string) bool {
	f := l.plan.Special(a).Family
	return f != "" && f == l.plan.Special(b).Family
}

func hops(p path.Path) []string {
	var names []string
	for _, e := range p {
		names = append(names, e.Nickname)
	}
	return names
}

// tellCircuit tells the story of one event of a client.
func (l *Lab) tellCircuit(name string, p []string, e client.Event) {
	c := story.Circuit{Client: name, ID: e.Circuit, Path: p, Begun: e.Time}
	if e.Err != nil {
		c.Why = story.Words(e.Err)
	}
	text := fmt.Sprintf("circuit %d ", e.Circuit)
	switch e.Kind {
	case client.EventCircuitBegun:
		c.State = story.Building
		text += "is being built: " + strings.Join(p, " → ")
	case client.EventCircuitBuilt:
		c.State = story.Open
		text += "is open: " + strings.Join(p, " → ")
	case client.EventCircuitFailed:
		c.State = story.Failed
		text += "could not be built: " + c.Why
	case client.EventCircuitLate:
		c.State, c.Why = story.Failed, "it took too long, and another was tried"
		text += "takes too long, and another is tried"
	case client.EventCircuitClosed:
		c.State = story.Closed
		if text += "is closed"; c.Why != "" {
			text += ": " + c.Why
		}
	case client.EventBootstrap:
		l.story.Tell(story.Event{At: e.Time, Node: name, Kind: story.OfStart, Text: e.Progress.String()})
		return
	default:
		return
	}
	l.story.Circuit(e.Time, name, c, text)
}

// user is a client as loads have it.
type user interface {
	Ready(context.Context) error
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	Consensus() *directory.Consensus
	Panics() uint64
	Again() uint64 // streams that it asked for on another circuit by itself
	circuits(now time.Time) []story.Circuit
	pathOf(net.Conn) []string // of a connection that DialContext made; nil: nobody can tell
}

// inner is a client in this process.
type inner struct {
	*client.Client
	name string
}

func (c *inner) pathOf(conn net.Conn) []string { return hops(client.PathOf(conn)) }

func (c *inner) circuits(now time.Time) []story.Circuit {
	all := c.Circuits()
	list := make([]story.Circuit, 0, len(all))
	for _, i := range all {
		list = append(list, story.Circuit{
			Client: c.name, ID: i.ID, Path: hops(i.Path), State: stateOf(i.Closing), Purpose: string(i.Purpose), Streams: i.Streams, Sent: i.Sent, Received: i.Received,
			Begun: now.Add(-i.Age),
		})
	}
	return list
}

func stateOf(closing bool) string {
	if closing {
		return story.Closing
	}
	return story.Open
}

// mostReconnect is how long a new connection is waited for.
const mostReconnect = time.Minute

// reconnect waits for a new connection to work after a relay was killed.
func (l *Lab) reconnect(killed string, at time.Time) {
	k := new(kill)
	l.mu.Lock()
	l.kills = append(l.kills, k)
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(l.ctx, mostReconnect)
	defer cancel()
	var s *service
	for _, any := range l.services {
		if s == nil || cmp.Less(any.name, s.name) {
			s = any
		}
	}
	for s != nil && ctx.Err() == nil {
		c, err := l.clients[0].DialContext(ctx, "tcp", s.at().String())
		if err == nil {
			c.Close()
			took := time.Since(at)
			l.mu.Lock()
			k.took = took
			l.mu.Unlock()
			if took > time.Duration(l.plan.Expect.Reconnect) {
				l.say(story.OfNode, "client1", "has a new connection only %v after the end of %s", took.Round(time.Millisecond), killed)
			}
			return
		}
		sleepUntil(ctx, time.Now().Add(10*time.Millisecond))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k.cut = time.Since(at) < time.Duration(l.plan.Expect.Reconnect)
}
