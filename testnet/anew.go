package testnet

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"peel/directory"
	"peel/directory/authority"
	"peel/directory/cache"
	"peel/relay"
	"peel/testnet/story"
)

// A machine may be so slow, or have so much else to do, that votes come too late in each period. So, until the client is ready, a period without a
// consensus has authorities and relays begin anew, with a slower schedule.

const (
	longest   = 5 * time.Minute        // no voting grows beyond it
	lookEvery = 100 * time.Millisecond // when a period is over, until it is known what became of it
)

// slower is the schedule after one that left too little time: two and a half times the voting, in a period at least twice as long as that. Its first
// consensus is due when one of the first schedule would be too, for that is when the client asks; nodes have some time before voting begins.
func slower(first, old directory.Schedule, now time.Time) directory.Schedule {
	s := directory.Schedule{Voting: max(old.Voting, min(5*old.Voting/2, longest))}
	s.Period = max(old.Period, (2*s.Voting + time.Second - 1).Truncate(time.Second))
	s.Start = first.Next(now.Add(max(settling, s.Voting/4) + s.Voting))
	return s
}

// verdict is what became of the period whose consensus is due: over says that all authorities are done with it, made that one of them has a consensus
// of it, or a later one, or is about to publish it.
func verdict(all []authority.Status, due time.Time) (over, made bool) {
	over = true
	for _, s := range all {
		if s.Consensus != nil && !s.Consensus.ValidAfter.Before(due) {
			return true, true
		}
		if b := s.Before; b != nil && !b.Period.Before(due) && b.Failed == "" {
			return true, true
		}
		over = over && s.Outcome.Period.After(due)
	}
	return over, false
}

// Ready waits until the network can be used: the client is ready, and authorities and relays do not begin anew any more. Without a wait for the
// latter, streams could be opened just as the relays under them go.
func (n *Net) Ready(ctx context.Context) error {
	if err := n.client.Ready(ctx); err != nil {
		return err
	}
	select {
	case <-n.agreed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// agree gives the authorities more time, as often as it is needed, until the client is ready or ctx ends.
func (n *Net) agree(ctx context.Context) {
	defer close(n.agreed)
	for {
		due := n.schedule().Next(time.Now())
		if n.clientReady(ctx, due) {
			return
		}
		over, made := false, false
		for {
			all := n.voting()
			if len(all) < n.layout.Network.Threshold {
				break // somebody took them away, and no time brings a consensus
			}
			if over, made = verdict(all, due); over {
				break
			}
			if n.clientReady(ctx, time.Now().Add(lookEvery)) {
				return
			}
		}
		if over && !made {
			n.anew(ctx)
		}
	}
}

// clientReady waits until the client is ready or ctx ends, which is when nobody has to wait for it any longer; false: until was earlier.
func (n *Net) clientReady(ctx context.Context, until time.Time) bool {
	wait, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return n.client.Ready(wait) == nil || ctx.Err() != nil
}

// voting is what the authorities know that run and are not frozen.
func (n *Net) voting() (all []authority.Status) {
	for _, nd := range n.authorities {
		if a, ok := nd.member().(*relay.Authority); ok && nd.running() && nd.gate.shut.Load() == nil {
			all = append(all, a.Status())
		}
	}
	return all
}

// schedule is the one that nodes are made with now.
func (n *Net) schedule() directory.Schedule {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.network.Schedule
}

// anew has all authorities and relays that run begin again, with a slower schedule. Those that are down have it when they are restored; the client
// goes on, and hears of it by the consensus.
func (n *Net) anew(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.clientReady(ctx, time.Now()) { // by a list of before
		return
	}
	var again, frozen []*node
	for _, nd := range n.nodes() {
		if !nd.running() {
			continue
		}
		again = append(again, nd)
		if nd.gate.shut.Load() != nil {
			frozen = append(frozen, nd)
		}
		nd.end() // all at once
	}
	for _, nd := range again {
		nd.kill()
	}
	if ctx.Err() != nil {
		return
	}
	network := *n.network
	network.Schedule = slower(n.layout.Network.Schedule, network.Schedule, time.Now())
	n.network = &network
	err := n.rewrite()
	for _, nd := range again {
		if err == nil {
			err = nd.restart(n.ctx, n.failed)
		}
	}
	for _, nd := range frozen {
		if err == nil {
			err = nd.freeze()
		}
	}
	if err != nil {
		n.failed(err)
		return
	}
	if s := n.cfg.Story; s != nil {
		s.Tell(story.Event{At: time.Now(), Kind: story.OfDirectory, Text: "the authorities could not agree in time, and begin anew with " + network.Voting.String() + " for it"})
	}
	if n.cfg.Anew != nil {
		n.cfg.Anew(network.Schedule)
	}
}

// rewrite replaces the network file in Dir.
func (n *Net) rewrite() error {
	if n.cfg.Dir == "" {
		return nil
	}
	text, err := n.network.Encode()
	if err == nil {
		err = cache.WriteFile(filepath.Join(n.cfg.Dir, networkFile), text)
	}
	if err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	return nil
}
