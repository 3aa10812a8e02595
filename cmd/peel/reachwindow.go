package main

import (
	"errors"
	"fmt"
	"time"

	"peel/cmd/peel/internal/admin"
	"peel/relay"
)

// kindOfAddress is how the window names an address: it is in the configuration.
func kindOfAddress(x relay.Reach) string {
	if x.Addr.Addr().Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// reachWindow shows whether others reach a relay.
func reachWindow(s *admin.Server, r *relay.Relay) {
	type shown struct {
		Verdict   relay.Verdict `json:"others_reach_it"`
		Why       string        `json:"why,omitempty"`
		Tested    *time.Time    `json:"tested,omitempty"`
		Announced bool          `json:"announced"`
	}
	s.Section("reachable", func() any {
		all := map[string]shown{}
		for _, x := range r.Reach() {
			one := shown{x.Verdict, x.Why, nil, x.Announced}
			if !x.At.IsZero() {
				at := x.At.UTC().Truncate(time.Second)
				one.Tested = &at
			}
			all[kindOfAddress(x)] = one
		}
		return all
	})
	s.Metric(admin.Metric{
		Name: "peel_relay_reachable", Help: "1: others reach the relay at its address of this kind; 0: they do not; -1: it is not known.", Label: "kind",
		Values: func() map[string]float64 {
			all := map[string]float64{}
			for _, x := range r.Reach() {
				value := -1.0
				switch x.Verdict {
				case relay.Reached:
					value = 1
				case relay.Unreached:
					value = 0
				}
				all[kindOfAddress(x)] = value
			}
			return all
		}})
	s.Warning(func() string {
		for _, x := range r.Reach() {
			if x.Verdict == relay.Unreached {
				return fmt.Sprintf("others do not reach this relay by %s: %s", kindOfAddress(x), x.Why)
			}
		}
		return ""
	})
	// It is no condition of /readyz: what lets connections in only once a node is ready would wait for ever for what comes by them.
}

// announces says why a relay announces no address; nil: it does.
func announces(all []relay.Reach) error {
	why := errors.New("others are trying whether they reach this relay")
	for _, x := range all {
		if x.Announced {
			return nil
		}
		if x.Verdict == relay.Unreached {
			why = fmt.Errorf("others do not reach this relay by %s: %s", kindOfAddress(x), x.Why)
		}
	}
	return why
}
