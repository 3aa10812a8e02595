package directory

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"peel/cell"
)

// mostHeard bounds whose clocks are remembered: the last of different nodes.
const mostHeard = 15

// A Clock judges our own clock by those of other nodes, which tell theirs in each link handshake. The zero
// value has heard of none and bears MaxSkew. Its methods may be called from any goroutine.
type Clock struct {
	Limit time.Duration // how much it bears; 0: MaxSkew. Set before use

	mu    sync.Mutex
	heard []heardClock // guarded by mu, as all below; the last at the end
	wrong bool         // what was said last
}

type heardClock struct {
	node  cell.NodeID
	ahead time.Duration
}

// Heard takes in how far the clock of a node is ahead of ours.
func (c *Clock) Heard(node cell.NodeID, ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = slices.DeleteFunc(c.heard, func(h heardClock) bool { return h.node == node })
	if len(c.heard) == mostHeard {
		c.heard = slices.Delete(c.heard, 0, 1)
	}
	c.heard = append(c.heard, heardClock{node, ahead})
}

// Forget forgets what was heard: our clock was set since.
func (c *Clock) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = nil
}

// Skew estimates how far our clock is behind (ahead of, if negative), from the clocks of so many nodes:
// it is their median, of two middle ones that nearer to ours, so that no single node makes us doubt.
// 0 from fewer than two.
func (c *Clock) Skew() (behind time.Duration, nodes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.heard)
	if n < 2 {
		return 0, n
	}
	all := make([]time.Duration, n)
	for i, h := range c.heard {
		all[i] = h.ahead
	}
	slices.Sort(all)
	low, high := all[(n-1)/2], all[n/2]
	switch {
	case low > 0:
		return low, n
	case high < 0:
		return high, n
	}
	return 0, n
}

// Wrong says whether our clock is off by more than it may.
func (c *Clock) Wrong() bool {
	behind, _ := c.Skew()
	limit := c.Limit
	if limit == 0 {
		limit = MaxSkew
	}
	return behind.Abs() > limit
}

// Warning returns a sentence to show, once when our clock is found to be wrong, and once when it is right
// again; else "".
func (c *Clock) Warning() string {
	now := c.Wrong()
	c.mu.Lock()
	was := c.wrong
	c.wrong = now
	c.mu.Unlock()
	if now == was {
		return ""
	}
	if !now {
		_, n := c.Skew()
		return fmt.Sprintf("this clock is right again, as the clocks of %d other nodes say", n)
	}
	return c.String()
}

// String says what other nodes' clocks say of ours.
func (c *Clock) String() string {
	behind, n := c.Skew()
	switch {
	case n < 2:
		return "the clocks of other nodes are not known yet"
	case !c.Wrong():
		return fmt.Sprintf("this clock agrees with those of %d other nodes", n)
	case behind > 0:
		return fmt.Sprintf("this clock is wrong: it is about %s behind those of %d other nodes; set it, and let it follow a time server", span(behind), n)
	}
	return fmt.Sprintf("this clock is wrong: it is about %s ahead of those of %d other nodes; set it, and let it follow a time server", span(-behind), n)
}

// Explain adds to a TimeError what other nodes' clocks say: whether ours is at fault or there is no
// newer consensus. Any other error stays as it is.
func (c *Clock) Explain(err error) error {
	var t *TimeError
	if _, n := c.Skew(); errors.As(err, &t) && n >= 2 {
		return fmt.Errorf("%w; %s", err, c.sentence(t))
	}
	return err
}

func (c *Clock) sentence(t *TimeError) string {
	if !c.Wrong() && t.Err == ErrExpired {
		return c.String() + ", so the authorities have published no newer one, or nobody asked has it"
	}
	return c.String()
}
