package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"peel/cmd/peel/internal/admin"
	"peel/directory/authority"
	"peel/relay"
)

// counted is a counter as a metric reads it.
func counted(n *atomic.Uint64) func() float64 { return func() float64 { return float64(n.Load()) } }

// relayView shows all of a relay.
func relayView(s *admin.Server, r *relay.Relay) {
	relayWindow(s, r.ID().String(), r.Stats())
	gaugesWindow(s, r.Gauges, r.Stats())
	placeWindow(s, r)
	reachWindow(s, r)
	trafficWindow(s, r)
	keysWindow(s, r)
}

// authorityView shows all of an authority's node.
func authorityView(s *admin.Server, a *relay.Authority) {
	relayWindow(s, a.ID().String(), a.Stats())
	gaugesWindow(s, a.Gauges, a.Stats())
	authorityWindow(s, a)
}

// relayWindow shows a relay, or the node of an authority.
func relayWindow(s *admin.Server, id string, t *relay.Stats) {
	s.Section("relay", func() any {
		return struct {
			ID               string `json:"identity"`
			Circuits         uint64 `json:"circuits_made"`
			HandshakesFailed uint64 `json:"handshakes_failed"`
			HandshakesShed   uint64 `json:"handshakes_shed"`
			LinksRefused     uint64 `json:"links_refused"`
			Panics           uint64 `json:"panics"`
		}{id, t.Circuits.Load() / 64 * 64, t.HandshakesFailed.Load() / 64 * 64, t.HandshakesShed.Load() / 64 * 64, t.LinksRefused.Load() / 8 * 8, t.Panics.Load()}
	})
	s.Warning(func() string {
		if n := t.Panics.Load(); n > 0 {
			return fmt.Sprintf("%d panics were contained: each is a bug; the log has them, please report it", n)
		}
		return ""
	})
	s.Metric(
		admin.Metric{Name: "peel_relay_circuits_total", Help: "Circuits answered, rounded down to 64.", Rise: true, Round: 64, Keep: true, Value: counted(&t.Circuits)},
		admin.Metric{Name: "peel_relay_cells_total", Help: "Cells of circuits passed on or ended here, both ways, rounded down to 1024.", Rise: true, Round: 1024, Keep: true, Value: counted(&t.Cells)},
		admin.Metric{Name: "peel_relay_exits_total", Help: "Streams to the world, rounded down to 64.", Rise: true, Round: 64, Keep: true, Label: "result",
			Values: func() map[string]float64 {
				return map[string]float64{"connected": float64(t.Exits.Load()), "failed": float64(t.ExitsFailed.Load())}
			}},
		admin.Metric{Name: "peel_relay_links_refused_total", Help: "Links not taken, rounded down to 8.", Rise: true, Round: 8, Value: counted(&t.LinksRefused)},
		admin.Metric{Name: "peel_relay_panics_total", Help: "Panics that were contained: each is a bug.", Rise: true, Value: counted(&t.Panics)},
		admin.Metric{Name: "peel_relay_unwritten_total", Help: "Files of its state that could not be replaced: the disk is full, or broken.", Rise: true, Value: counted(&t.Unwritten)},
	)
}

// trafficWindow shows how much of a relay's quota is used, and whether it was overloaded.
func trafficWindow(s *admin.Server, r *relay.Relay) {
	s.Section("traffic", func() any {
		t := r.Traffic()
		shown := struct {
			Sent       uint64     `json:"sent_MB,omitempty"`
			Quota      uint64     `json:"quota_MB,omitempty"`
			Ends       *time.Time `json:"period_ends,omitempty"`
			Paused     bool       `json:"paused"`
			Overloaded *time.Time `json:"overloaded,omitempty"`
		}{t.Sent / 1e6, t.Quota / 1e6, nil, t.Paused, nil}
		if t.Quota > 0 {
			ends := t.Ends.UTC()
			shown.Ends = &ends
		}
		if hour := r.Overloaded(time.Now()); !hour.IsZero() {
			shown.Overloaded = &hour
		}
		return shown
	})
	s.Metric(
		admin.Metric{Name: "peel_relay_quota_bytes", Help: "How much the relay may send in a period; 0: as much as comes.", Value: func() float64 { return float64(r.Traffic().Quota) }},
		admin.Metric{Name: "peel_relay_quota_used_bytes", Help: "How much of it is used, rounded down to 1 MiB.", Round: 1 << 20, Value: func() float64 { return float64(r.Traffic().Sent) }},
		admin.Metric{Name: "peel_relay_paused", Help: "1: the quota is used up, and nothing new is taken; 0: it is not.", Value: func() float64 {
			if r.Traffic().Paused {
				return 1
			}
			return 0
		}},
		admin.Metric{Name: "peel_relay_overloaded_seconds", Help: "The hour in which the relay was overloaded last, in seconds since 1970; 0: none of late.", Value: func() float64 {
			if hour := r.Overloaded(time.Now()); !hour.IsZero() {
				return float64(hour.Unix())
			}
			return 0
		}},
	)
}

// placeWindow shows where a relay stands in the directory, and what it offers.
func placeWindow(s *admin.Server, r *relay.Relay) {
	type consensus struct {
		Listed     bool       `json:"relay_is_listed"`
		ValidAfter *time.Time `json:"consensus_of"`
		ValidUntil *time.Time `json:"consensus_holds_until"`
		Relays     int        `json:"relays"`
	}
	s.Section("directory", func() any {
		p := r.Place()
		c := consensus{Listed: p.Listed, Relays: p.Relays}
		if !p.ValidAfter.IsZero() {
			c.ValidAfter, c.ValidUntil = &p.ValidAfter, &p.ValidUntil
		}
		return c
	})
	s.Section("offer", func() any {
		p := r.Place()
		rules := []string{}
		for _, rule := range p.Exit {
			rules = append(rules, rule.String())
		}
		return struct {
			Bandwidth uint64   `json:"bandwidth_bytes_a_second"`
			Observed  uint64   `json:"most_of_the_day_bytes_a_second"`
			Draining  bool     `json:"ends_soon"`
			Exit      []string `json:"exit_policy"`
		}{p.Bandwidth, p.Observed, p.Draining, rules}
	})
	s.Warning(func() string { return r.Place().Clock })
	s.Warning(func() string {
		if t := r.Traffic(); t.Paused {
			return "the quota is used up: the relay pauses until " + moment(t.Ends)
		}
		return ""
	})
	s.Warning(func() string {
		p := r.Place()
		switch {
		case p.ValidAfter.IsZero():
			return "there is no directory yet: can the relay reach the authorities?"
		case time.Now().After(p.ValidUntil):
			return "the newest directory here is too old: can the relay reach the authorities, and do they work?"
		case !p.Listed && announces(r.Reach()) == nil: // else it cannot, and another warning says why
			return "the directory does not list this relay, so clients do not use it: the log says what the authorities make of it"
		}
		return ""
	})
	s.Warning(func() string {
		made, next, _ := r.OnionKeys()
		if now := time.Now(); now.Sub(next) > next.Sub(made)/4 && now.Before(r.Place().ValidUntil) { // else nothing says that the clock is right
			return "the onion key should have been replaced: can the relay write its key folder?"
		}
		return ""
	})
	s.Ready(func() error {
		if r.Place().ValidAfter.IsZero() {
			return errors.New("no directory yet")
		}
		return nil
	})
}

// keysWindow shows how old a relay's onion key is.
func keysWindow(s *admin.Server, r *relay.Relay) {
	s.Section("keys", func() any {
		made, next, previous := r.OnionKeys()
		shown := struct {
			Made     time.Time  `json:"onion_key_made"`
			Next     time.Time  `json:"onion_key_next"`
			Previous bool       `json:"previous_honoured"`
			Ends     *time.Time `json:"certificate_ends,omitempty"` // of the signing key; none: the identity signs
			Warning  string     `json:"certificate_warning,omitempty"`
		}{made.UTC(), next.UTC(), previous, nil, r.CertificateWarning(time.Now())}
		if c, ok := r.Certificate(); ok {
			shown.Ends = &c.NotAfter
		}
		return shown
	})
	s.Metric(admin.Metric{Name: "peel_relay_certificate_end_seconds", Help: "When the certificate of the signing key ends, in seconds since 1970; 0: the identity signs.", Value: func() float64 {
		if c, ok := r.Certificate(); ok {
			return float64(c.NotAfter.Unix())
		}
		return 0
	}})
	s.Metric(admin.Metric{Name: "peel_relay_onion_key_made_seconds", Help: "When the onion key in use was made, in seconds since 1970.", Value: func() float64 {
		made, _, _ := r.OnionKeys()
		return float64(made.Unix())
	}})
}

// authorityWindow shows how the voting goes.
func authorityWindow(s *admin.Server, a *relay.Authority) {
	s.Section("authority", func() any { return a.Status() })
	s.Page("authority", func() any { return a.Status() })
	now := recent(a.Status)
	of := func(n func(authority.Status) int) func() float64 {
		return func() float64 { return float64(n(now())) }
	}
	s.Metric(
		admin.Metric{Name: "peel_authority_certificate_end_seconds", Help: "When the certificate of the signing key ends, in seconds since 1970.",
			Value: func() float64 { return float64(now().Certificate.NotAfter.Unix()) }},
		admin.Metric{Name: "peel_authority_certificate_warning", Help: "1: the certificate of the signing key needs a successor now (peel authority status says why); 0: it does not.",
			Value: func() float64 {
				if now().Certificate.Warning != "" {
					return 1
				}
				return 0
			}},
		admin.Metric{Name: "peel_authority_descriptors", Help: "Relays whose descriptors are here.", Value: of(func(s authority.Status) int { return s.Relays })},
		admin.Metric{Name: "peel_authority_evidence", Help: "Proofs here that an authority signed two things for one period.", Value: of(func(s authority.Status) int { return len(s.Evidence) })},
		admin.Metric{Name: "peel_authority_votes", Help: "Votes of the last period that are here.", Value: of(func(s authority.Status) int {
			if s.Before == nil {
				return 0
			}
			return len(s.Before.Votes)
		})},
		admin.Metric{Name: "peel_authority_signatures", Help: "Signatures of the last period's consensus that are here.", Value: of(func(s authority.Status) int {
			if s.Before == nil {
				return 0
			}
			return len(s.Before.Signatures)
		})},
		admin.Metric{Name: "peel_authority_consensus_valid_until_seconds", Help: "When the newest consensus here ends, in seconds since 1970; 0: there is none.", Value: func() float64 {
			if c := now().Consensus; c != nil {
				return float64(c.ValidUntil.Unix())
			}
			return 0
		}},
		admin.Metric{Name: "peel_authority_relays", Help: "Relays that this authority gives a flag in its newest vote.", Label: "flag", Values: func() map[string]float64 {
			s := now()
			counts := s.Flags
			if len(counts) == 0 && s.Before != nil {
				counts = s.Before.Flags
			}
			for _, c := range counts {
				if c.Authority == s.Authority {
					return map[string]float64{"running": float64(c.Running), "valid": float64(c.Valid), "guard": float64(c.Guard), "exit": float64(c.Exit),
						"fast": float64(c.Fast), "stable": float64(c.Stable), "hsdir": float64(c.HSDir), "badexit": float64(c.BadExit), "middleonly": float64(c.MiddleOnly)}
				}
			}
			return nil
		}},
	)
	s.Warning(func() string { return a.Status().Certificate.Warning })
	s.Warning(func() string {
		if len(a.Status().Evidence) > 0 {
			return "an authority signed two things for one period: peel authority status shows whose"
		}
		return ""
	})
	s.Ready(func() error {
		if a.Status().Consensus == nil {
			return errors.New("no consensus yet")
		}
		return nil
	})
}
