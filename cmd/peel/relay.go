package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"peel/cmd/peel/internal/conf"
	"peel/relay"
)

func relayCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "relay --config FILE", Short: "Run a relay", Args: cobra.NoArgs,
		Example: "  peel init relay my-relay --network network.toml --nickname Fennel\n  peel relay --config my-relay/relay.toml",
		RunE: func(c *cobra.Command, _ []string) error {
			return inUse(runRelay(c.Context(), path, c.ErrOrStderr()))
		},
	}
	configFlag(c, &path)
	return c
}

func runRelay(ctx context.Context, path string, w io.Writer) error {
	var f conf.Relay
	if err := conf.Load(path, &f); err != nil {
		return err
	}
	network, err := conf.LoadNetwork(f.Network)
	if err != nil {
		return err
	}
	keys, err := relay.LoadKeys(f.Keys)
	if err != nil {
		return err
	}
	cfg := relay.Config{
		Network: network, Keys: keys, Nickname: f.Nickname, Contact: f.Contact, Dir: f.State, KeyDir: f.Keys, Log: logger(w, f.Log).With("node", f.Nickname),
	}
	if cfg.Addrs, err = f.Addrs(); err != nil {
		return err
	}
	if cfg.Bandwidth, err = f.Rate(); err != nil {
		return err
	}
	if cfg.Memory, err = conf.Size(f.Memory, conf.LeastRelayMemory); err != nil {
		return err
	}
	if cfg.Memory == 0 {
		cfg.Memory = relayMemory(available())
	}
	keepWithin(cfg.Memory)
	if cfg.Exit, err = f.Policy(); err != nil {
		return err
	}
	if cfg.Family, err = f.Relatives(); err != nil {
		return err
	}
	window, err := openAdmin("relay", f.State, f.Admin, cfg.Log)
	if err != nil {
		return err
	}
	defer window.Close()
	if cfg.Listeners, err = listenLinks(f.Listen); err != nil {
		return err
	}
	r, err := relay.New(cfg)
	if err != nil {
		return err
	}
	cfg.Log.Info("relay starts", "id", r.ID(), "network", network.Name, "exit", len(cfg.Exit) > 0, "memory_budget_MiB", cfg.Memory>>20)
	relayWindow(window, r.ID().String(), r.Stats())
	keysWindow(window, r)
	err = together(ctx, r.Run, window.Run)
	cfg.Log.Info("relay ends")
	return err
}
