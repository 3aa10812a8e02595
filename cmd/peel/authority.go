package main

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"peel/cell"
	"peel/cmd/peel/internal/conf"
	"peel/directory"
	"peel/directory/authority"
	"peel/relay"
)

// The files of an authority's key folder, besides its link key.
const (
	identityFile    = "identity.key"
	signingFile     = "signing.key"
	certificateFile = "certificate"
	linkFile        = "link.key"
)

// listsFile is an authority's lists, as peel init makes it.
const listsFile = "lists.toml"

func authorityCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "authority --config FILE", Short: "Run a directory authority", Args: cobra.NoArgs,
		Example: "  peel init network my-network --authorities 4\n  peel authority --config my-network/authority1/authority.toml",
		RunE: func(c *cobra.Command, _ []string) error {
			return inUse(runAuthority(c.Context(), path, c.ErrOrStderr()))
		},
	}
	configFlag(c, &path)
	return c
}

func runAuthority(ctx context.Context, path string, w io.Writer) error {
	var f conf.Authority
	if err := conf.Load(path, &f); err != nil {
		return err
	}
	network, err := conf.LoadNetwork(f.Network)
	if err != nil {
		return err
	}
	ac, err := authorityKeys(f.Keys)
	if err != nil {
		return err
	}
	ac.Dir = f.State
	ac.PrivateAddrs, ac.Params, ac.Lists = f.Private, f.Params, f.Lists
	if ac.Allow, err = f.Allowed(); err != nil {
		return err
	}
	link, err := relay.LoadKey[*ecdh.PrivateKey](filepath.Join(f.Keys, linkFile))
	if err != nil {
		return err
	}
	cfg := relay.Config{Network: network, Keys: relay.Keys{Link: link}, Measure: f.Measure, Log: logger(w, f.Log)}
	if cfg.MeasureFrom, err = f.MeasureFrom(); err != nil {
		return err
	}
	for _, a := range network.Authorities {
		if a.LinkKey == cell.Key(link.PublicKey().Bytes()) {
			cfg.Log = cfg.Log.With("node", a.Nickname)
		}
	}
	window, err := openAdmin("authority", f.State, f.Admin, cfg.Log)
	if err != nil {
		return err
	}
	defer window.Close()
	if cfg.Listeners, err = listenLinks(f.Listen); err != nil {
		return err
	}
	a, err := relay.NewAuthority(cfg, ac)
	if err != nil {
		return err
	}
	cfg.Log.Info("authority starts", "id", a.ID(), "network", network.Name)
	relayWindow(window, a.ID().String(), a.Stats())
	window.Section("authority", func() any { return a.Status() })
	reload := func(context.Context) error { return a.Reload() }
	window.Action("reload", reload)
	err = together(ctx, a.Run, window.Run, func(ctx context.Context) error { return reloadOnHangup(ctx, reload) })
	cfg.Log.Info("authority ends")
	return err
}

// authorityKeys reads the signing key and its certificate, or, where there is none yet, the identity that makes them.
func authorityKeys(dir string) (authority.Config, error) {
	var c authority.Config
	text, err := os.ReadFile(filepath.Join(dir, certificateFile))
	if errors.Is(err, fs.ErrNotExist) {
		c.Identity, err = relay.LoadKey[ed25519.PrivateKey](filepath.Join(dir, identityFile))
		return c, err
	}
	if err != nil {
		return c, fmt.Errorf("certificate: %w", err)
	}
	if c.Certificate, err = directory.ParseCertificate(text); err != nil {
		return c, fmt.Errorf("%s: %w", filepath.Join(dir, certificateFile), err)
	}
	c.SigningKey, err = relay.LoadKey[ed25519.PrivateKey](filepath.Join(dir, signingFile))
	return c, err
}
