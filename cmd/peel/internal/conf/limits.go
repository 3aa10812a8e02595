package conf

import "fmt"

// mostBound is beyond what any relay can do.
const mostBound = 1_000_000

// Bound is a key of relay.toml that bounds what others may have or ask for; 0: the default.
type Bound struct {
	Key   string
	Value *int
	why   []string
}

// Bounds are all of them: what there may be in all, and what one address may have and ask for.
func (c *Relay) Bounds() []Bound {
	return []Bound{
		{"max_links", &c.MaxLinks, []string{
			"What others may have in all: links, circuits, and streams that end here. 0: as many as memory_budget is for. When all are",
			"taken, whoever has most makes room for those who have less.",
		}},
		{"max_circuits", &c.MaxCircuits, nil},
		{"max_streams", &c.MaxStreams, nil},
		{"address_links", &c.AddrLinks, []string{
			"What one address of clients (an IPv4 address, an IPv6 /64) may have at a time: links (0: 128), and circuits (0: an eighth of all).",
			"Other relays, which carry many people's circuits, and programs on this machine have no such limits.",
		}},
		{"address_circuits", &c.AddrCircuits, nil},
		{"address_link_rate", &c.AddrLinkRate, []string{
			"What one such address may begin a second, and ten times as much at once: links (0: 10), circuits (0: 30), circuits that go on to",
			"another relay (0: 30), and streams that end here (0: 60).",
		}},
		{"address_create_rate", &c.AddrCreateRate, nil},
		{"address_extend_rate", &c.AddrExtendRate, nil},
		{"address_stream_rate", &c.AddrStreamRate, nil},
	}
}

// checkBounds says which of them have values that cannot be.
func (c *Relay) checkBounds(m *mistakes) {
	for _, b := range c.Bounds() {
		if *b.Value < 0 || *b.Value > mostBound {
			m.at(b.Key, fmt.Errorf("%d: must be 1 to %d, or 0 for the default", *b.Value, mostBound))
		}
	}
}

// bounds writes them.
func (c *Relay) bounds(t *text) {
	for _, b := range c.Bounds() {
		if b.why != nil {
			t.explain(b.why)
		}
		fmt.Fprintf(t, "%s = %d\n", b.Key, *b.Value)
	}
	t.flag("no_address_limits", c.NoAddr, "true: addresses are not told apart, for a relay behind something that hides them. Every link then stands for itself.")
}
