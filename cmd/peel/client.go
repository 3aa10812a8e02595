package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"peel/client"
	"peel/cmd/peel/internal/conf"
)

func clientCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "client --config FILE", Short: "Run a client with ports for your programs (SOCKS, HTTP CONNECT, DNS)", Args: cobra.NoArgs,
		Example: "  peel init client my-client --network network.toml\n  peel client --config my-client/client.toml",
		RunE: func(c *cobra.Command, _ []string) error {
			return inUse(runClient(c.Context(), path, c.OutOrStdout(), c.ErrOrStderr()))
		},
	}
	configFlag(c, &path)
	return c
}

func runClient(ctx context.Context, path string, out, errs io.Writer) error {
	var f conf.Client
	if err := conf.Load(path, &f); err != nil {
		return err
	}
	if err := checkState(path, f.State); err != nil {
		return err
	}
	network, err := conf.NetworkOf(path, f.Network)
	if err != nil {
		return err
	}
	start := newScreen(errs)
	defer start.end()
	log, level := logger(start, f.Log)
	rules, err := f.Rules()
	if err != nil {
		return err
	}
	if f.State == "" {
		log.Warn("no state folder: this start chooses new guards, and so will each, which is a risk (spec/guard.md)")
	}
	memory, err := conf.Size(f.Memory, conf.LeastClientMemory)
	if err != nil {
		return err
	}
	if memory == 0 {
		memory = clientMemory(available())
	}
	newnym, stop := onNewnym()
	defer stop()
	c, err := client.New(client.Config{
		Network: network, Memory: memory, Dir: f.State, Log: log, Paths: rules, NoRacing: f.NoRacing,
		Progress: func(p client.Progress) {
			if !log.Enabled(ctx, slog.LevelInfo) || !start.show(p) {
				log.Info(p.String())
			}
		},
	})
	if err != nil {
		return err
	}
	window, err := openAdmin("client", "", f.State, f.Admin, log)
	if err != nil {
		return err
	}
	defer window.Close()
	clientWindow(window, c)
	d, err := openDoors(&f, log)
	if err != nil {
		var u *usageError
		if errors.As(err, &u) {
			return err
		}
		return about(path, "%w", err)
	}
	reload := reloading(log, func() ([]string, error) {
		var next conf.Client
		changed, err := conf.Reload(path, &f, &next)
		if err := errors.Join(err, conf.SameNetwork(f.Network, network)); err != nil {
			return nil, err
		}
		rules, err := next.Rules()
		if err == nil {
			err = c.Change(rules)
		}
		if err != nil {
			return nil, err
		}
		setLevel(level, next.Log)
		f = next
		return changed, nil
	})
	window.Action("reload", reload)
	written := []string{f.State, conf.RuntimeFolder()}
	for _, l := range f.Listen {
		if socket := l.Unix(); socket != "" {
			written = append(written, filepath.Dir(socket)) // the socket's file goes at the end
		}
	}
	if err := sandboxed(log, f.Open, written, append([]string{path, f.Network}, f.Countries...)...); err != nil {
		return err
	}
	servers := d.servers(c, log)
	doorsWindow(window, d)
	log.Info("client starts", "network", network.Name, "memory_budget_MiB", memory>>20)
	err = together(ctx, append(servers, c.Run, window.Run,
		func(ctx context.Context) error { return heedNewnym(ctx, newnym, c, log) },
		func(ctx context.Context) error { return reloadOnHangup(ctx, reload) },
		func(ctx context.Context) error { return drained(ctx, log, d.socks.Drain) },
		func(ctx context.Context) error {
			return supervised(ctx, log, func() string { p, _ := c.Bootstrap(); return p.String() })
		},
		func(ctx context.Context) error {
			complain(ctx, c, len(network.Authorities), log)
			if c.Ready(ctx) == nil {
				d.announce(out)
			}
			return nil
		})...)
	log.Info("client ends")
	return err
}

// complain says, more and more rarely, what a start that does not come to its end is waiting for; it returns when it has.
func complain(ctx context.Context, c *client.Client, authorities int, log *slog.Logger) {
	for pause := 10 * time.Second; ; pause = min(2*pause, 10*time.Minute) {
		wait, cancel := context.WithTimeout(ctx, pause)
		err := c.Ready(wait)
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		switch p, why := c.Bootstrap(); {
		case why == nil:
		case p.Stage == "directory": // which it leaves once one has answered
			log.Warn("not ready yet: no directory authority can be reached; "+reachRemedy, "authorities", authorities, "last", why)
		default:
			log.Warn("not ready yet", "stage", p.Stage, "why", why)
		}
	}
}
