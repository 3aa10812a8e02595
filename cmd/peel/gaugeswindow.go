package main

import (
	"sync"
	"sync/atomic"
	"time"

	"peel/cell/link"
	"peel/cmd/peel/internal/admin"
	"peel/relay"
)

// recent looks at most once a second: metrics are asked for one after the other.
func recent[T any](look func() T) func() T {
	var mu sync.Mutex
	var at time.Time
	var last T
	return func() T {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); at.IsZero() || now.Sub(at) >= time.Second {
			last, at = look(), now
		}
		return last
	}
}

// gaugesWindow shows what a relay holds, of how much that it may, and what goes over its links; also for the node of an authority.
func gaugesWindow(s *admin.Server, look func() relay.Gauges, t *relay.Stats) {
	look = recent(look)
	type links struct {
		Dialled int `json:"dialled"`
		Nodes   int `json:"from_nodes"`
		Clients int `json:"from_clients"`
		Most    int `json:"there_may_be"`
	}
	type use struct {
		What string `json:"what"`
		Unit string `json:"unit,omitempty"` // "": they are counted
		Now  int64  `json:"now"`
		Most int64  `json:"most"`
	}
	s.Section("links", func() any {
		g := look()
		return links{g.Links.Dialed, down(g.Links.Nodes, 8), down(g.Links.Clients, 8), g.MostLinks}
	})
	s.Section("limits", func() any {
		g := look()
		all := []use{
			{"circuits", "", int64(down(g.Circuits, 64)), int64(g.MostCircuits)}, {"streams", "", int64(down(g.Streams, 64)), int64(g.MostStreams)},
			{"dials and look-ups", "", int64(down(g.Dials, 8)), int64(g.MostDials)}, {"extensions", "", int64(down(g.Extensions, 8)), int64(g.MostExtensions)},
			{"handshakes waiting", "", int64(down(g.Waiting, 8)), int64(g.MostWaiting)},
		}
		for _, q := range g.Queues {
			all = append(all, use{queueNames[q.Name], admin.Bytes, q.Used >> 16 << 16, q.Most})
		}
		return all
	})
	s.Metric(openMetrics(look)...)
	s.Metric(trafficMetrics(look)...)
	s.Metric(workMetrics(look, t)...)
}

func down(n, step int) int { return n / step * step }

// queueNames are what waits in the queues of relay.Gauges.
var queueNames = map[string]string{"cells": "cells that wait for links", "hosts": "data that hosts do not take"}

// openMetrics are what there is now, of how much.
func openMetrics(look func() relay.Gauges) []admin.Metric {
	queues := func(of func(relay.Queue) int64) func() map[string]float64 {
		return func() map[string]float64 {
			m := make(map[string]float64)
			for _, q := range look().Queues {
				m[q.Name] = float64(of(q))
			}
			return m
		}
	}
	return []admin.Metric{
		{Name: "peel_relay_open", Help: "What is open or under way now, rounded down to 16.", Round: 16, Keep: true, Label: "kind", Values: func() map[string]float64 {
			g := look()
			return map[string]float64{"circuits": float64(g.Circuits), "streams": float64(g.Streams), "dials": float64(g.Dials), "extensions": float64(g.Extensions),
				"handshakes": float64(g.Waiting)}
		}},
		{Name: "peel_relay_open_most", Help: "How many of these there may be; one more is refused as busy.", Label: "kind", Values: func() map[string]float64 {
			g := look()
			return map[string]float64{"circuits": float64(g.MostCircuits), "streams": float64(g.MostStreams), "dials": float64(g.MostDials),
				"extensions": float64(g.MostExtensions), "handshakes": float64(g.MostWaiting), "links": float64(g.MostLinks)}
		}},
		{Name: "peel_relay_links", Help: "Links open: dialled by us, by peers that have a name (nodes) and by those without (clients), rounded down to 8.", Round: 8, Keep: true, Label: "kind",
			Values: func() map[string]float64 {
				k := look().Links
				return map[string]float64{"dialled": float64(k.Dialed), "nodes": float64(k.Nodes), "clients": float64(k.Clients)}
			}},
		{Name: "peel_relay_queue_bytes", Help: "Memory that waits: cells for links, data for hosts, rounded down to 64 KiB.", Round: 1 << 16, Keep: true, Label: "queue",
			Values: queues(func(q relay.Queue) int64 { return q.Used })},
		{Name: "peel_relay_queue_budget_bytes", Help: "How much of it there may be.", Label: "queue", Values: queues(func(q relay.Queue) int64 { return q.Most })},
	}
}

// trafficMetrics are what went over links.
func trafficMetrics(look func() relay.Gauges) []admin.Metric {
	both := func(of func(link.Stats) (in, out uint64)) func() map[string]float64 {
		return func() map[string]float64 {
			in, out := of(look().Traffic)
			return map[string]float64{"in": float64(in), "out": float64(out)}
		}
	}
	return []admin.Metric{
		{Name: "peel_link_bytes_total", Help: "Bytes of records read from links and written to them, rounded down to 1 MiB.", Rise: true, Round: 1 << 20, Keep: true, Label: "direction",
			Values: both(func(s link.Stats) (uint64, uint64) { return s.BytesIn, s.BytesOut })},
		{Name: "peel_link_cells_total", Help: "Cells of every kind read from links and written to them, rounded down to 1024.", Rise: true, Round: 1024, Label: "direction",
			Values: both(func(s link.Stats) (uint64, uint64) { return s.CellsIn, s.CellsOut })},
		{Name: "peel_link_padding_cells_total", Help: "Those of these cells that are padding, rounded down to 1024.", Rise: true, Round: 1024, Label: "direction",
			Values: both(func(s link.Stats) (uint64, uint64) { return s.PaddingIn, s.PaddingOut })},
		{Name: "peel_links_ended_total", Help: "Links that ended, by why, rounded down to 8.", Rise: true, Round: 8, Label: "reason", Values: func() map[string]float64 {
			m := make(map[string]float64)
			for i, n := range look().Traffic.Errors {
				m[link.Reason(i).String()] = float64(n)
			}
			return m
		}},
	}
}

// workMetrics are what was done.
func workMetrics(look func() relay.Gauges, t *relay.Stats) []admin.Metric {
	var bounds []float64
	for _, b := range relay.WaitBounds {
		bounds = append(bounds, b.Seconds())
	}
	results := func(by map[string]*atomic.Uint64) func() map[string]float64 {
		return func() map[string]float64 {
			m := make(map[string]float64)
			for name, n := range by {
				m[name] = float64(n.Load())
			}
			return m
		}
	}
	return []admin.Metric{
		{Name: "peel_relay_handshakes_total", Help: "Circuit handshakes, by what became of them, rounded down to 64.", Rise: true, Round: 64, Keep: true, Label: "result",
			Values: results(map[string]*atomic.Uint64{"answered": &t.Circuits, "failed": &t.HandshakesFailed, "busy": &t.HandshakesShed})},
		{Name: "peel_relay_handshake_wait_seconds", Help: "How long circuit handshakes waited for a worker; counts rounded down to 64.", Round: 64, Bounds: bounds,
			Classes: func() ([]uint64, float64) { n, sum := t.Waits.Counts(); return n, sum.Seconds() }},
		{Name: "peel_relay_drops_total", Help: "What was ended before its time, or refused, by why, rounded down to 8.", Rise: true, Round: 8, Keep: true, Label: "reason",
			Values: func() map[string]float64 {
				return map[string]float64{"breach": float64(t.Breaches.Load()), "memory": float64(look().Ended), "circuit": float64(t.CircuitsShed.Load()),
					"link": float64(t.LinksShed.Load()), "rate": float64(t.Limited.Load()), "stuck": float64(t.Stuck.Load()),
					"busy": float64(t.Busy.Load()), "one_hop": float64(t.OneHop.Load())}
			}},
		{Name: "peel_relay_directory_requests_total", Help: "Requests for directory documents, rounded down to 8.", Rise: true, Round: 8, Label: "document",
			Values: func() map[string]float64 {
				m := make(map[string]float64)
				for name, n := range t.Asked.Counts() {
					m[name] = float64(n)
				}
				return m
			}},
		{Name: "peel_relay_lookups_total", Help: "Names and addresses looked up for clients, rounded down to 64.", Rise: true, Round: 64, Label: "result",
			Values: results(map[string]*atomic.Uint64{"found": &t.Lookups.Found, "missing": &t.Lookups.Missing, "failed": &t.Lookups.Failed})},
	}
}
