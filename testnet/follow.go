package testnet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"peel/client"
	"peel/client/path"
	"peel/directory"
	"peel/directory/authority"
	"peel/relay"
	"peel/testnet/story"
)

// Names, in the story of a network, of what has no nickname.
const (
	ClientName = "client"
	WorldName  = "world" // all that exits connect to
)

// followEvery is how often the counters of a network are read.
const followEvery = time.Second

// introduce tells of all nodes, before they run.
func (n *Net) introduce() {
	s := n.cfg.Story
	if s == nil {
		return
	}
	for _, a := range n.layout.Authorities {
		s.Node(story.Node{Name: a.Nickname, Role: story.Authority, Addr: a.Addr.String(), State: story.Starting})
	}
	for _, r := range n.layout.Relays {
		x := story.Node{Name: r.Nickname, Role: story.Relay, Addr: r.Addr.String(), State: story.Starting}
		if r.Exit {
			x.Flags = []string{"Exit"}
		}
		s.Node(x)
	}
	c := story.Node{Name: ClientName, Role: story.Client, State: story.Starting}
	if n.whole {
		c.Addr = ClientAddr.String()
	}
	s.Node(c)
	s.Node(story.Node{Name: WorldName, Role: story.Server, State: story.Up})
}

// follow tells the story of the network until ctx ends.
func (n *Net) follow(ctx context.Context) {
	s := n.cfg.Story
	if s == nil {
		<-ctx.Done()
		return
	}
	for _, nd := range n.nodes() {
		s.State(nd.name, story.Up)
	}
	s.State(ClientName, story.Up)
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var seen followed
	for {
		select {
		case at := <-tick.C:
			n.look(&seen, at)
		case <-ctx.Done():
			s.End(time.Now())
			return
		}
	}
}

// followed is what was told of the directory.
type followed struct {
	entries time.Time // of the consensus whose entries were told
	made    time.Time // of the last consensus that was told to be there
}

// look reads all counters.
func (n *Net) look(seen *followed, at time.Time) {
	s := n.cfg.Story
	var statuses []authority.Status
	for _, nd := range n.nodes() {
		m := nd.member()
		s.Carried(nd.name, m.Stats().Cells.Load())
		if a, ok := m.(*relay.Authority); ok && nd.running() {
			statuses = append(statuses, a.Status())
		}
	}
	for _, p := range periods(statuses, len(n.authorities)) {
		s.Period(p)
		if p.Made() && p.ValidAfter.After(seen.made) {
			seen.made = p.ValidAfter
			s.Tell(story.Event{At: at, Kind: story.OfDirectory, Text: fmt.Sprintf("the consensus of %s UTC is signed by %d of %d authorities",
				p.ValidAfter.UTC().Format(time.TimeOnly), len(p.Signatures), p.Of)})
		}
	}
	if c := n.client.Consensus(); c != nil && c.ValidAfter.After(seen.entries) {
		seen.entries = c.ValidAfter
		n.tellEntries(c)
	}
	var open []story.Circuit
	for _, i := range n.client.Circuits() {
		c := story.Circuit{
			ID: i.ID, Path: nicknames(i.Path), State: story.Open, Purpose: string(i.Purpose), Streams: i.Streams, Sent: i.Sent, Received: i.Received, Begun: at.Add(-i.Age),
		}
		if i.Closing {
			c.State = story.Closing
		}
		open = append(open, c)
	}
	s.Circuits(at, ClientName, open)
	s.Sample(at)
}

// tellEntries tells what a consensus says of each relay.
func (n *Net) tellEntries(c *directory.Consensus) {
	for _, r := range n.layout.Relays {
		listed := false
		for i := range c.Entries {
			e := &c.Entries[i]
			if e.Nickname != r.Nickname {
				continue
			}
			listed = true
			n.cfg.Story.Change(r.Nickname, func(x *story.Node) { x.Flags, x.Bandwidth = strings.Fields(e.Flags.String()), e.Bandwidth })
		}
		if !listed {
			n.cfg.Story.Change(r.Nickname, func(x *story.Node) { x.Flags, x.Bandwidth = nil, 0 })
		}
	}
}

func nicknames(p path.Path) []string {
	var all []string
	for _, e := range p {
		all = append(all, e.Nickname)
	}
	return all
}

// periods joins what authorities know of the periods: a vote or signature that one of them has is there.
func periods(all []authority.Status, of int) []story.Period {
	by := map[time.Time]*story.Period{}
	var order []time.Time
	take := func(o *authority.Outcome, phase string) {
		if o.Period.IsZero() {
			return
		}
		p := by[o.Period]
		if p == nil {
			p = &story.Period{ValidAfter: o.Period, Phase: phase, Of: of}
			by[o.Period] = p
			order = append(order, o.Period)
		}
		join(&p.Votes, o.Votes)
		join(&p.Signatures, o.Signatures)
		join(&p.Differ, o.Differ)
		join(&p.Twice, o.Equivocated)
		p.Needed = max(p.Needed, o.Needed)
		if p.Digest == "" {
			p.Digest = o.Header
		}
	}
	for i := range all {
		if b := all[i].Before; b != nil {
			take(b, "done")
		}
		take(&all[i].Outcome, all[i].Phase)
	}
	slices.SortFunc(order, time.Time.Compare)
	var joined []story.Period
	for _, t := range order {
		joined = append(joined, *by[t])
	}
	return joined
}

func join(to *[]string, names []string) {
	for _, n := range names {
		if !slices.Contains(*to, n) {
			*to = append(*to, n)
		}
	}
	slices.Sort(*to)
}

// events tells the story of the client's circuits; nil: nobody wants it.
func (n *Net) events() func(client.Event) {
	s := n.cfg.Story
	if s == nil {
		return nil
	}
	return func(e client.Event) {
		c := story.Circuit{ID: e.Circuit, Path: nicknames(e.Path)}
		text := fmt.Sprintf("circuit %d ", e.Circuit)
		switch e.Kind {
		case client.EventBootstrap:
			s.Tell(story.Event{At: e.Time, Node: ClientName, Kind: story.OfStart, Text: e.Progress.String()})
			return
		case client.EventNewIdentity:
			s.Tell(story.Event{At: e.Time, Node: ClientName, Kind: story.OfNode, Text: "has a new identity"})
			return
		case client.EventCircuitBegun:
			c.State, c.Begun = story.Building, e.Time
			text += "is being built: " + strings.Join(c.Path, " → ")
		case client.EventCircuitBuilt:
			c.State = story.Open
			text += "is open: " + strings.Join(c.Path, " → ")
		case client.EventCircuitFailed:
			c.State, c.Why = story.Failed, why(e.Err)
			text += "could not be built: " + c.Why
		case client.EventCircuitLate:
			c.State, c.Why = story.Failed, "it took too long, and another was tried"
			text += "takes too long, and another is tried"
		case client.EventCircuitClosed:
			c.State, c.Why = story.Closed, "nothing needed it any longer"
			text += "is closed"
			if e.Err != nil {
				c.Why = why(e.Err)
				text += ": " + c.Why
			}
		default:
			return
		}
		s.Circuit(e.Time, ClientName, c, text)
	}
}

func why(err error) string {
	if err == nil {
		return "nobody says why"
	}
	return story.Words(err)
}

// Actions are what those who watch may do to the network; it has weather if it has a plan.
func (n *Net) Actions() story.Actions {
	told := func(do func(string) error, state, kind, text string) func(string) error {
		return func(node string) error {
			if node == ClientName || node == WorldName {
				return errors.New("testnet: only relays and authorities can be killed, frozen and restored")
			}
			if err := do(node); err != nil {
				return err
			}
			if s := n.cfg.Story; s != nil {
				now := time.Now()
				s.State(node, state)
				s.Tell(story.Event{At: now, Node: node, Kind: story.OfNode, Text: text})
				s.Mark(story.Mark{At: now, Kind: kind, Text: node + " " + text})
			}
			return nil
		}
	}
	a := story.Actions{
		Kill:    told(n.Kill, story.Down, "kill", "was killed"),
		Freeze:  told(n.Freeze, story.Frozen, "freeze", "was frozen"),
		Restore: told(n.Restore, story.Up, "restore", "works again"),
	}
	if n.internet != nil {
		a.SetWeather, a.Weathers = n.SetWeather, n.cfg.Plan.WeatherNames()
	}
	return a
}
