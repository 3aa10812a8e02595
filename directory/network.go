package directory

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"peel/cell"
)

// Limits of a network.
const (
	MaxAuthorities = 32
	MaxNetworkName = 64
	MinPeriod      = time.Second
	MaxPeriod      = 24 * time.Hour
	MinVoting      = 100 * time.Millisecond
)

// Network is all that a new client or relay must know: who the authorities are, how many of them
// must sign, and when. It is the file network.toml.
type Network struct {
	Name        string
	Threshold   int // how many authorities must sign a consensus
	Schedule        // when
	Authorities []AuthorityInfo
}

// AuthorityInfo is an authority as everybody knows it.
type AuthorityInfo struct {
	Nickname string
	ID       cell.NodeID // its identity, and its NodeID on links
	LinkKey  cell.Key    // it answers circuits with this key too, as its onion key
	Addrs    []netip.AddrPort
}

// Schedule says when a consensus is made. One begins to hold at Start and at every whole number of
// Periods after it; the authorities use the Voting time before that moment to agree on it. Zero
// values stand for their defaults (see WithDefaults).
type Schedule struct {
	Start  time.Time     // whole seconds; 1970-01-01T00:00:00Z
	Period time.Duration // whole seconds; 1 hour
	Voting time.Duration // half of Period, at most 10 minutes
}

// WithDefaults returns the schedule with its zero values replaced.
func (s Schedule) WithDefaults() Schedule {
	if s.Start.IsZero() {
		s.Start = time.Unix(0, 0)
	}
	s.Start = s.Start.UTC()
	if s.Period == 0 {
		s.Period = time.Hour
	}
	if s.Voting == 0 {
		s.Voting = min(s.Period/2, 10*time.Minute)
	}
	return s
}

// Next is when the first consensus after now begins to hold.
func (s Schedule) Next(now time.Time) time.Time {
	s = s.WithDefaults()
	if now.Before(s.Start) {
		return s.Start
	}
	return s.Start.Add((now.Sub(s.Start)/s.Period + 1) * s.Period)
}

func (s Schedule) check() error {
	s = s.WithDefaults()
	switch {
	case s.Period < MinPeriod || s.Period > MaxPeriod || s.Period%time.Second != 0:
		return fmt.Errorf("period %s: must be whole seconds, %s to %s", s.Period, MinPeriod, MaxPeriod)
	case !writableTime(s.Start):
		return fmt.Errorf("start: must be a whole second of 1970 to 9999")
	case s.Voting < MinVoting || s.Voting > s.Period:
		return fmt.Errorf("voting %s: must be %s to the period, %s", s.Voting, MinVoting, s.Period)
	}
	return nil
}

// Faults is how many dishonest or silent authorities of n a network bears: the largest F with
// n ≥ 3F+1.
func Faults(n int) int { return max(0, (n-1)/3) }

// MinThreshold is the least number of signatures of n authorities with which no F of them can make
// two consensuses for one period: ⌊(n+F)/2⌋+1, and all of fewer than four.
func MinThreshold(n int) int {
	if n < 4 {
		return n
	}
	return (n+Faults(n))/2 + 1
}

// ID names the network: SHA-256 over its name, its threshold and the sorted identities of its
// authorities. (spec/directory.md, section 3)
func (n *Network) ID() cell.NetworkID {
	ids := make([]cell.NodeID, len(n.Authorities))
	for i := range n.Authorities {
		ids[i] = n.Authorities[i].ID
	}
	slices.SortFunc(ids, func(a, b cell.NodeID) int { return bytes.Compare(a[:], b[:]) })
	b := appendLine([]byte("peel network id v1\n"), "name", n.Name)
	b = appendLine(b, "threshold", strconv.Itoa(n.Threshold))
	for _, id := range ids {
		b = appendLine(b, "authority", id.String())
	}
	return sha256.Sum256(b)
}

// Authority returns the authority with an identity.
func (n *Network) Authority(id cell.NodeID) (*AuthorityInfo, bool) {
	for i := range n.Authorities {
		if n.Authorities[i].ID == id {
			return &n.Authorities[i], true
		}
	}
	return nil, false
}

// Check returns what is wrong with the network, in words for the person who wrote it.
func (n *Network) Check() error {
	if wrong := n.check(); len(wrong) > 0 {
		return fmt.Errorf("directory: network: %w", wrong[0].err)
	}
	return nil
}

func (n *Network) check() (wrong faults) {
	wrong.at("name", checkNetworkName(n.Name))
	if err := n.Schedule.check(); err != nil {
		wrong.at("schedule", fmt.Errorf("schedule: %w", err))
	}
	count := len(n.Authorities)
	if count < 1 || count > MaxAuthorities {
		wrong.at("authority", fmt.Errorf("%d authorities: a network has 1 to %d", count, MaxAuthorities))
		return wrong
	}
	if least := MinThreshold(count); n.Threshold < least {
		wrong.at("threshold", fmt.Errorf("threshold %d of %d authorities: with fewer than %d signatures %d dishonest of them could give two clients two different directories; set threshold = %d",
			n.Threshold, count, least, max(1, Faults(count)), least))
	}
	if n.Threshold > count {
		wrong.at("threshold", fmt.Errorf("threshold %d: there are only %d authorities", n.Threshold, count))
	}
	for i := range n.Authorities {
		if err := n.checkAuthority(i); err != nil {
			wrong.at(fmt.Sprintf("authority[%d].", i), fmt.Errorf("authority %d (%s): %w", i+1, clip(n.Authorities[i].Nickname), err))
		}
	}
	return wrong
}

func (n *Network) checkAuthority(i int) error {
	a := &n.Authorities[i]
	if err := CheckNickname(a.Nickname); err != nil {
		return err
	}
	if err := a.ID.Check(); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if a.LinkKey.IsZero() {
		return fmt.Errorf("link key missing")
	}
	if err := CheckAddrs(a.Addrs); err != nil {
		return err
	}
	for _, b := range n.Authorities[:i] {
		switch {
		case b.Nickname == a.Nickname:
			return fmt.Errorf("an authority of this nickname stands before it")
		case b.ID == a.ID:
			return fmt.Errorf("%s has the same identity", b.Nickname)
		case b.LinkKey == a.LinkKey:
			return fmt.Errorf("%s has the same link key", b.Nickname)
		}
		for _, addr := range a.Addrs {
			if slices.Contains(b.Addrs, addr) {
				return fmt.Errorf("%s has the address %s as well", b.Nickname, addr)
			}
		}
	}
	return nil
}

func checkNetworkName(s string) error {
	if len(s) < 1 || len(s) > MaxNetworkName {
		return fmt.Errorf("name %q: must have 1 to %d characters", clip(s), MaxNetworkName)
	}
	for _, c := range []byte(s) {
		if !alnum(c) && c != '.' && c != '-' {
			return fmt.Errorf("name %q: only letters, digits, . and - are allowed", s)
		}
	}
	return nil
}
