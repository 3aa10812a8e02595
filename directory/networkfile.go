package directory

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"peel/cell"
	"peel/directory/strict"
)

// MaxNetworkFile bounds network.toml, in bytes.
const MaxNetworkFile = 64 << 10

// networkFile is network.toml as it is written.
type networkFile struct {
	Name      string           `toml:"name"`
	Threshold int              `toml:"threshold"`
	Schedule  scheduleTable    `toml:"schedule"`
	Authority []authorityTable `toml:"authority"`
}

type scheduleTable struct {
	Start  any    `toml:"start"`
	Period string `toml:"period"`
	Voting any    `toml:"voting"`
}

type authorityTable struct {
	Nickname  string   `toml:"nickname"`
	Identity  string   `toml:"identity"`
	LinkKey   string   `toml:"link_key"`
	Addresses []string `toml:"addresses"`
}

// ParseNetwork parses and checks network.toml. A key it does not know is refused, with its line and
// the nearest key there is. The schedule comes back with its defaults filled in.
func ParseNetwork(text []byte) (*Network, error) {
	if len(text) > MaxNetworkFile {
		return nil, fmt.Errorf("directory: network: %d bytes, but at most %d are allowed", len(text), MaxNetworkFile)
	}
	var f networkFile
	err := strict.Decode(text, &f)
	n, wrong := f.network()
	if err == nil && len(wrong) == 0 {
		wrong = n.check()
	}
	if err := strict.With(err, wrong.in(text)); err != nil {
		return nil, fmt.Errorf("directory: network: %w", err)
	}
	return n, nil
}

// faults are what is wrong with a network, by the keys of its file.
type faults []struct {
	key string // as strict.At takes it; of an authority's table as a whole: ending in a point
	err error
}

func (f *faults) at(key string, err error) {
	if err != nil {
		*f = append(*f, struct {
			key string
			err error
		}{key, err})
	}
}

// in are they as mistakes in a file, each with its line.
func (f faults) in(text []byte) (all []*strict.Error) {
	for _, x := range f[:min(len(f), strict.MostTold)] {
		e := strict.At(text, x.key, x.err).(*strict.Error)
		e.Key, e.Text = strings.TrimSuffix(x.key, "."), x.err.Error()
		all = append(all, e)
	}
	return all
}

// network is what the file says, and what in it says nothing.
func (f *networkFile) network() (*Network, faults) {
	var wrong faults
	s, key, err := f.Schedule.schedule()
	if err != nil {
		wrong.at("schedule."+key, fmt.Errorf("schedule: %w", err))
	}
	n := &Network{Name: f.Name, Threshold: f.Threshold, Schedule: s}
	for i, t := range f.Authority {
		a := AuthorityInfo{Nickname: t.Nickname}
		bad := func(key string, err error) {
			if err != nil {
				wrong.at(fmt.Sprintf("authority[%d].%s", i, key), fmt.Errorf("authority %d (%s): %s: %w", i+1, clip(t.Nickname), key, err))
			}
		}
		a.ID, err = cell.ParseNodeID(t.Identity)
		bad("identity", err)
		a.LinkKey, err = cell.ParseKey(t.LinkKey)
		bad("link_key", err)
		for _, s := range t.Addresses {
			addr, err := netip.ParseAddrPort(s)
			if err != nil {
				bad("addresses", fmt.Errorf("%q is not an address and a port, such as 192.0.2.1:9001 or [2001:db8::1]:9001", clip(s)))
			}
			a.Addrs = append(a.Addrs, addr)
		}
		n.Authorities = append(n.Authorities, a)
	}
	return n, wrong
}

// schedule also says which key an error is about.
func (t *scheduleTable) schedule() (s Schedule, key string, err error) {
	start, ok := t.Start.(time.Time)
	if t.Start != nil && !ok || strings.HasSuffix(start.Location().String(), "-local") { // so the TOML library calls this machine's zone, where none is named
		return s, "start", fmt.Errorf("start: must be a time of UTC, such as 2026-01-01T00:00:00Z, without quotes")
	}
	s.Start = start
	if t.Period != "" {
		p, err := time.ParseDuration(t.Period)
		if err != nil || p <= 0 {
			return s, "period", fmt.Errorf("period: %q is not a duration, such as \"1h\"", clip(t.Period))
		}
		s.Period = p
	}
	if s.Voting, err = voting(t.Voting, s.WithDefaults().Period); err != nil {
		return s, "voting", err
	}
	return s.WithDefaults(), "", nil
}

// voting reads a duration, or the fraction of the period that it is.
func voting(v any, period time.Duration) (time.Duration, error) {
	switch v := v.(type) {
	case nil:
		return 0, nil
	case string:
		if d, err := time.ParseDuration(v); err == nil && d > 0 {
			return d, nil
		}
	case float64:
		if d := time.Duration(v * float64(period)); v > 0 && v < 1 && d > 0 {
			return d, nil
		}
	}
	return 0, fmt.Errorf("voting: must be a duration, such as \"10m\", or a fraction of the period, such as 0.25")
}

// Encode returns the network as a commented network.toml that ParseNetwork takes.
func (n *Network) Encode() ([]byte, error) {
	if err := n.Check(); err != nil {
		return nil, err
	}
	s := n.Schedule.WithDefaults()
	var b strings.Builder
	fmt.Fprintf(&b, `# A peel network. Every node needs this file, the same on all: the name, the threshold and the
# identities of the authorities make the network's id, and nodes of two networks do not talk.
# Network id: %s

name = %q

# How many of the authorities must sign a directory: of %d at least %d. The network then bears %d of
# them being dishonest: they cannot give two clients two different directories.
threshold = %d

[schedule]
# A new directory begins to hold at start and at every period after it. The authorities use the
# voting time before that moment to agree on it (a duration, or a fraction of the period).
start = %s
period = %q
voting = %q
`, n.ID(), n.Name, len(n.Authorities), MinThreshold(len(n.Authorities)), Faults(len(n.Authorities)), n.Threshold,
		s.Start.Format(timeFormat), s.Period.String(), s.Voting.String())
	for _, a := range n.Authorities {
		addrs := make([]string, len(a.Addrs))
		for i, addr := range a.Addrs {
			addrs[i] = fmt.Sprintf("%q", addr.String())
		}
		fmt.Fprintf(&b, `
[[authority]]
nickname = %q
identity = %q
link_key = %q
addresses = [%s]
`, a.Nickname, a.ID.String(), a.LinkKey.String(), strings.Join(addrs, ", "))
	}
	return []byte(b.String()), nil
}
