package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Whenever a caller's context ends, before the client runs, while it starts, and at each moment of a request: the call ends with it, and nothing that it
// had stays taken.
func TestCallsMayBeCancelledAtEveryMoment(t *testing.T) {
	for what, do := range map[string]func(context.Context, *Client) error{
		"DialContext": func(ctx context.Context, c *Client) error {
			conn, err := c.DialContext(ctx, "tcp", "www.example:443")
			if err == nil {
				err = conn.Close()
			}
			return err
		},
		"DialEarly": func(ctx context.Context, c *Client) error {
			conn, err := c.DialEarly(ctx, "tcp", "www.example:443", []byte("first"))
			if err == nil {
				err = conn.Close()
			}
			return err
		},
		"Resolve": func(ctx context.Context, c *Client) error { _, err := c.Resolve(ctx, "www.example"); return err },
		"Ready":   func(ctx context.Context, c *Client) error { return c.Ready(ctx) },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 12)
			w.delayed = func() time.Duration { return 5 * time.Millisecond }
			c := w.client(Config{Spare: 1})
			ended := 0
			for i := range 60 {
				if i == 1 {
					run(t, c)
				}
				ctx, cancel := context.WithCancel(t.Context())
				after := time.Duration(i) * 400 * time.Microsecond
				time.AfterFunc(after, cancel)
				began := time.Now()
				err := do(ctx, c.Isolated(i))
				if err != nil && !errors.Is(err, context.Canceled) || time.Since(began) > after {
					t.Errorf("%s, cancelled after %v: %v, %v", what, after, time.Since(began), err)
				}
				if i == 59 && err != nil {
					t.Errorf("%s: still under way after %v", what, after)
				}
				if err != nil {
					ended++
				}
				cancel()
			}
			if ended < 5 {
				t.Errorf("%s: only %d were cancelled", what, ended)
			}
			time.Sleep(time.Minute)
			c.pool.mu.Lock()
			for h := range c.pool.circs {
				if h.users != 0 || h.circuit != nil && !h.circuit.Quiet() {
					t.Errorf("%s: %d users and streams of a circuit are left", what, h.users)
				}
			}
			c.pool.mu.Unlock()
		})
	}
}
