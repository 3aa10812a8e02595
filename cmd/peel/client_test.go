package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/contain"
	"peel/client"
	"peel/directory/dirtest"
)

// A client that reaches no authority says so, and what to do: soon, and then more and more rarely.
func TestAClientThatReachesNoAuthoritySaysWhatToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := dirtest.New(1, 3).Network
		c, err := client.New(client.Config{Network: network, Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("no route to host")
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Hour)
		defer cancel()
		var said strings.Builder
		var wg contain.Group
		wg.Go(nil, func() { c.Run(ctx) })
		begun := time.Now()
		first := time.Duration(0)
		complain(ctx, c, len(network.Authorities), slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{
			ReplaceAttr: func(g []string, a slog.Attr) slog.Attr {
				if a.Key == slog.MessageKey && first == 0 {
					first = time.Since(begun)
				}
				return inPlainWords(g, a)
			},
		})))
		wg.Wait()
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		if want := "no directory authority can be reached; " + reachRemedy; first != 10*time.Second || !strings.Contains(lines[0], want) || !strings.Contains(lines[0], "no route to host") {
			t.Errorf("after %v: %s", first, lines[0])
		}
		if len(lines) < 48 || len(lines) > 54 {
			t.Errorf("%d lines in 8 hours", len(lines))
		}
		if strings.Contains(said.String(), "/peel/") {
			t.Errorf("%s", lines[0])
		}
	})
}
