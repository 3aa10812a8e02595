package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"

	"peel/cell"
	"peel/directory"
	"peel/relay/exit"
)

// Settings are what of a Config can be changed while the relay runs; their fields mean the same.
type Settings struct {
	Addrs     []netip.AddrPort
	Contact   string
	Family    []cell.NodeID
	Bandwidth uint64
	Rate      uint64
	Burst     uint64
	Exit      directory.Policy
	Resolver  exit.Resolver
}

// Settings are those of a configuration.
func (cfg *Config) Settings() Settings {
	return Settings{Addrs: cfg.Addrs, Contact: cfg.Contact, Family: cfg.Family, Bandwidth: cfg.Bandwidth, Rate: cfg.Rate, Burst: cfg.Burst, Exit: cfg.Exit, Resolver: cfg.Resolver}
}

// settled are settings in use.
type settled struct {
	Settings
	exit     *exit.Dialer  // nil: no exit
	replaced chan struct{} // closed when others are in use, and the descriptor says something else
}

// settle checks settings and makes what they need. It changes nothing.
func (r *Relay) settle(s Settings) (*settled, error) {
	s.Addrs = append([]netip.AddrPort(nil), s.Addrs...) // of no length: nil, so that Change sees that they are the same
	s.Family, s.Exit = append([]cell.NodeID(nil), s.Family...), append(directory.Policy(nil), s.Exit...)
	if s.Bandwidth == 0 {
		s.Bandwidth = defaultBandwidth
	}
	if len(s.Addrs) == 0 {
		s.Addrs = listenerAddrs(r.cfg.Listeners)
	}
	next := &settled{Settings: s, replaced: make(chan struct{})}
	when := r.cfg.Now()
	if c, ok := r.Certificate(); ok && c.Valid(when) != nil {
		when = c.NotBefore // settings are no worse for a certificate that has ended: a reload takes them before it takes the next one
	}
	if _, err := r.describe(&s, when); err != nil {
		return nil, err
	}
	if len(s.Exit) == 0 {
		return next, nil
	}
	own := make([]netip.Addr, len(s.Addrs))
	for i, a := range s.Addrs {
		own[i] = a.Addr()
	}
	var err error
	if next.exit, err = exit.New(exit.Config{Policy: s.Exit, Own: own, Resolver: s.Resolver, Connect: r.cfg.Connect, MaxPending: 2 * mostDials, Lookups: &r.stats.Lookups}); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	return next, nil
}

// same says whether settings mean the same. A resolver is the same only if it is that very one.
func (s *Settings) same(o *Settings) bool {
	a, b := *s, *o
	a.Resolver, b.Resolver = nil, nil
	return s.Resolver == o.Resolver && reflect.DeepEqual(a, b)
}

// lets says whether a stream may be connected to an address.
func (s *settled) lets(at netip.AddrPort) bool {
	return s.exit != nil && s.exit.Allows(at.Addr(), at.Port())
}

// Change puts other settings in the place of those in use: all of them, or, with an error, none. Streams to addresses and
// ports that the new policy does not accept are ended; all others run on. The authorities get another descriptor if it says
// something else. It may be called at any time.
func (r *Relay) Change(s Settings) error {
	if r.cfg.Directory != nil {
		return errors.New("relay: an authority's node has no settings")
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	next, err := r.settle(s)
	if err != nil {
		return err
	}
	now := r.settled.Load()
	if now.same(&next.Settings) {
		return nil
	}
	r.settled.Store(next)
	r.linkCfg.Rate.Set(next.Rate, next.Burst)
	close(now.replaced)
	if r.cutForbidden() > 0 {
		r.log.Info("streams that the new exit policy forbids were ended")
	}
	return nil
}
