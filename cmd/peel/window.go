package main

import (
	"errors"
	"sync/atomic"

	"peel/client"
	"peel/cmd/peel/internal/admin"
	"peel/relay"
)

// counted is a counter as a metric reads it.
func counted(n *atomic.Uint64) func() float64 { return func() float64 { return float64(n.Load()) } }

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
		}{id, t.Circuits.Load() / 64 * 64, t.HandshakesFailed.Load() / 8 * 8, t.HandshakesShed.Load() / 8 * 8, t.LinksRefused.Load() / 8 * 8, t.Panics.Load()}
	})
	s.Metric(
		admin.Metric{Name: "peel_relay_circuits_total", Help: "Circuits answered, rounded down to 64.", Rise: true, Round: 64, Value: counted(&t.Circuits)},
		admin.Metric{Name: "peel_relay_cells_total", Help: "Cells of circuits passed on or ended here, both ways, rounded down to 1024.", Rise: true, Round: 1024, Value: counted(&t.Cells)},
		admin.Metric{Name: "peel_relay_handshakes_refused_total", Help: "Circuit handshakes not answered, rounded down to 8.", Rise: true, Round: 8, Label: "reason",
			Values: func() map[string]float64 {
				return map[string]float64{"failed": float64(t.HandshakesFailed.Load()), "busy": float64(t.HandshakesShed.Load())}
			}},
		admin.Metric{Name: "peel_relay_exits_total", Help: "Streams to the world, rounded down to 64.", Rise: true, Round: 64, Label: "result",
			Values: func() map[string]float64 {
				return map[string]float64{"connected": float64(t.Exits.Load()), "failed": float64(t.ExitsFailed.Load())}
			}},
		admin.Metric{Name: "peel_relay_links_refused_total", Help: "Links not taken, rounded down to 8.", Rise: true, Round: 8, Value: counted(&t.LinksRefused)},
		admin.Metric{Name: "peel_relay_panics_total", Help: "Panics that were contained: each is a bug.", Rise: true, Value: counted(&t.Panics)},
	)
}

// clientWindow shows a client.
func clientWindow(s *admin.Server, c *client.Client) {
	s.Section("bootstrap", func() any {
		p, why := c.Bootstrap()
		b := struct {
			Percent int    `json:"percent"`
			Stage   string `json:"stage"`
			Text    string `json:"text"`
			Why     string `json:"failed_last,omitempty"`
		}{p.Percent, p.Stage, p.Text, ""}
		if why != nil {
			b.Why = why.Error()
		}
		return b
	})
	s.Ready(func() error {
		if p, _ := c.Bootstrap(); p.Percent < 100 {
			return errors.New(p.String())
		}
		return nil
	})
	s.Metric(admin.Metric{Name: "peel_client_bootstrap_ratio", Help: "How far the start has come, from 0 to 1.", Value: func() float64 {
		p, _ := c.Bootstrap()
		return float64(p.Percent) / 100
	}})
}
