package main

import (
	"context"
	"errors"
	"time"

	"peel/client"
	"peel/cmd/peel/internal/admin"
)

// clientWindow shows a client: what it is doing, never for whom or where to.
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
			b.Why = plainly(why)
		}
		return b
	})
	s.Section("guards", func() any { return guardsShown(c.Guards()) })
	s.Section("use", func() any {
		n := c.Counts()
		races, won := c.Races()
		return struct {
			Circuits int    `json:"circuits"`
			Spare    int    `json:"spare"`
			Building int    `json:"building"`
			Streams  int    `json:"streams"`
			Races    uint64 `json:"races"`
			Won      uint64 `json:"races_won"`
			Again    uint64 `json:"asked_again"`
			Panics   uint64 `json:"panics"`
		}{n.Circuits, n.Spare, n.Building, n.Streams, races, won, c.Again(), c.Panics()}
	})
	s.Page("circuits", func() any { return circuitsPage{circuitsShown(c.Circuits())} })
	s.Action("newnym", func(ctx context.Context) (string, error) { return newCircuits, c.NewIdentity(ctx) })
	s.Ready(func() error {
		if p, _ := c.Bootstrap(); p.Percent < 100 {
			return errors.New(p.String())
		}
		return nil
	})
	s.Metric(
		admin.Metric{Name: "peel_client_open", Help: "What is open now, rounded down to 4.", Round: 4, Keep: true, Label: "kind", Values: func() map[string]float64 {
			n := c.Counts()
			return map[string]float64{"circuits": float64(n.Circuits), "building": float64(n.Building), "streams": float64(n.Streams)}
		}},
		admin.Metric{Name: "peel_client_bootstrap_ratio", Help: "How far the start has come, from 0 to 1.", Value: func() float64 {
			p, _ := c.Bootstrap()
			return float64(p.Percent) / 100
		}},
		admin.Metric{Name: "peel_client_races_total", Help: "Streams asked for on a second circuit since the first was late, rounded down to 8.", Rise: true, Round: 8, Value: func() float64 {
			begun, _ := c.Races()
			return float64(begun)
		}},
		admin.Metric{Name: "peel_client_races_won_total", Help: "Those of these whose second circuit answered first, rounded down to 8.", Rise: true, Round: 8, Value: func() float64 {
			_, won := c.Races()
			return float64(won)
		}},
		admin.Metric{Name: "peel_client_guards_left", Help: "Guards that are not used for some days, since circuits through them fared badly.", Value: func() (n float64) {
			for _, g := range c.Guards() {
				if g.Left {
					n++
				}
			}
			return n
		}},
		admin.Metric{Name: "peel_client_panics_total", Help: "Panics that were contained: each is a bug.", Rise: true, Value: func() float64 { return float64(c.Panics()) }},
		admin.Metric{Name: "peel_client_unwritten_total", Help: "Files of its state that could not be replaced: the disk is full, or broken.", Rise: true, Value: func() float64 { return float64(c.Unwritten()) }},
	)
}

// mostGuardsShown are the preferred ones; the others wait behind them, twenty and more.
const mostGuardsShown = 8

type guardShown struct {
	Nickname string     `json:"nickname"`
	Identity string     `json:"identity"`
	Primary  bool       `json:"primary"`
	Used     bool       `json:"used"`
	State    string     `json:"state"`
	Retry    *time.Time `json:"retry,omitempty"`
}

func guardsShown(all []client.GuardInfo) []guardShown {
	shown := []guardShown{}
	for _, g := range all[:min(len(all), mostGuardsShown)] {
		s := guardShown{Nickname: g.Nickname, Identity: g.ID.String(), Primary: g.Primary, Used: g.Used, State: "untried"}
		switch {
		case !g.Listed:
			s.State = "not listed"
		case g.Left:
			s.State = "left"
		case g.Up:
			s.State = "up"
		case g.Down:
			s.State = "down"
		case g.Suspect:
			s.State = "suspect"
		}
		if !g.Retry.IsZero() {
			at := g.Retry.UTC().Truncate(time.Second)
			s.Retry = &at
		}
		shown = append(shown, s)
	}
	return shown
}

// circuitsPage is what GET /circuits answers.
type circuitsPage struct {
	Circuits []circuitShown `json:"circuits"`
}

type circuitShown struct {
	ID      uint64     `json:"id"`
	Age     int        `json:"age_seconds"`
	Purpose string     `json:"purpose"`
	Closing bool       `json:"closing"`
	Streams int        `json:"streams"`
	Sent    uint64     `json:"cells_sent"`
	Got     uint64     `json:"cells_received"`
	Path    []hopShown `json:"path"`
}

type hopShown struct {
	Nickname string `json:"nickname"`
	Identity string `json:"identity"`
}

func circuitsShown(all []client.CircuitInfo) []circuitShown {
	shown := []circuitShown{}
	for _, i := range all {
		c := circuitShown{ID: i.ID, Age: int(i.Age / time.Second), Purpose: string(i.Purpose), Closing: i.Closing, Streams: i.Streams, Sent: i.Sent, Got: i.Received}
		for _, e := range i.Path {
			c.Path = append(c.Path, hopShown{e.Nickname, e.ID.String()})
		}
		shown = append(shown, c)
	}
	return shown
}

// doorShown is where programs find a client.
type doorShown struct {
	Kind    string `json:"kind"` // socks, unix or dns
	Address string `json:"address"`
}

// shown lists the doors.
func (d *doors) shown() []doorShown {
	all := []doorShown{}
	for _, p := range d.ports {
		kind := "socks"
		if p.Addr().Network() == "unix" {
			kind = "unix"
		}
		all = append(all, doorShown{kind, p.Addr().String()})
	}
	if d.udp != nil {
		all = append(all, doorShown{"dns", d.udp.LocalAddr().String()})
	}
	return all
}

// doorsPage is what GET /doors answers.
type doorsPage struct {
	Doors []doorShown `json:"doors"`
}

// doorsWindow shows where programs find a client, and counts what came.
func doorsWindow(s *admin.Server, d *doors) {
	s.Section("doors", func() any { return d.shown() })
	s.Section("connections", func() any {
		n := d.socks.Stats()
		return struct {
			Open     uint64 `json:"open"`
			Accepted uint64 `json:"accepted"`
			Requests uint64 `json:"requests"`
			Failed   uint64 `json:"failed"`
			Refused  uint64 `json:"refused"`
			Full     uint64 `json:"full"`
			Evicted  uint64 `json:"evicted"`
			Panics   uint64 `json:"panics"`
		}{n.Open, n.Accepted, n.Requests, n.Failed, n.Refused, n.Full, n.Evicted, n.Panics}
	})
	if d.names != nil {
		s.Section("dns", func() any {
			n := d.names.Stats()
			return struct {
				Questions uint64 `json:"questions"`
				Lookups   uint64 `json:"lookups"`
				Cached    uint64 `json:"cached"`
				Full      uint64 `json:"full"`
				Evicted   uint64 `json:"evicted"`
			}{n.Questions, n.Lookups, n.Cached, n.Full, n.Evicted}
		})
	}
	s.Page("doors", func() any { return doorsPage{d.shown()} })
}
