package main

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"peel/cell"
	"peel/cmd/peel/internal/conf"
	"peel/directory/authority"
	"peel/directory/cache"
	"peel/relay"
)

// listsFile is an authority's lists, as peel init makes it.
const listsFile = "lists.toml"

func authorityCommand() *cobra.Command {
	var path string
	var bad misdeeds
	c := &cobra.Command{
		Use: "authority --config FILE", Short: "Run a directory authority", Args: cobra.NoArgs,
		Example: "  peel init network my-network --authorities 4\n  peel authority --config my-network/authority1/authority.toml",
		RunE: func(c *cobra.Command, _ []string) error {
			return inUse(runAuthority(c.Context(), path, &bad, c.ErrOrStderr()))
		},
	}
	configFlag(c, &path)
	bad.flags(c)
	c.AddCommand(authorityStatus())
	return c
}

func authorityStatus() *cobra.Command {
	node := which{kind: "authority"}
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "Show how a running authority's voting goes", Args: cobra.NoArgs,
		Long: `Shows of the period being voted on, and of the one before: whose votes and signatures are here and whose are missing, how many
relays each authority gives which flag, evidence of authorities that signed two things, and when the certificate ends.`,
		Example: "  peel authority status --config authority1/authority.toml",
		RunE: func(c *cobra.Command, _ []string) error {
			return node.show(c.Context(), "/authority", asJSON, c.OutOrStdout())
		},
	}
	node.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// rotateRemedy is what the operator of an authority is told to run when a certificate is missing or ends.
func rotateRemedy(config string) string {
	return fmt.Sprintf("run: peel keys rotate --config %s --identity FILE (or see peel keys --help, if the identity must not come here)", config)
}

func runAuthority(ctx context.Context, path string, bad *misdeeds, w io.Writer) error {
	var f conf.Authority
	if err := conf.Load(path, &f); err != nil {
		return err
	}
	if err := cmp.Or(checkKeyFolder(path, f.Keys), checkState(path, f.State)); err != nil {
		return err
	}
	network, err := conf.NetworkOf(path, f.Network)
	if err != nil {
		return err
	}
	ac, err := authorityKeys(f.Keys, time.Now())
	if err != nil {
		return err
	}
	ac.Remedy = rotateRemedy(path)
	ac.Dir = f.State
	ac.PrivateAddrs, ac.Params, ac.Lists = f.Private, f.Params, f.Lists
	if ac.Allow, err = f.Allowed(); err != nil {
		return err
	}
	link, err := relay.LoadKey[*ecdh.PrivateKey](filepath.Join(f.Keys, linkFile))
	if err != nil {
		return err
	}
	log, level := logger(w, f.Log)
	cfg := relay.Config{Network: network, Keys: relay.Keys{Link: link}, Measure: f.Measure, Log: log}
	if cfg.Villain, err = bad.villain("authority"); err != nil {
		return err
	}
	if cfg.MeasureFrom, err = f.MeasureFrom(); err != nil {
		return err
	}
	if cfg.Memory, err = relayBudget(f.Memory, votesMemory); err != nil {
		return err
	}
	nickname := ""
	for _, a := range network.Authorities {
		if a.LinkKey == cell.Key(link.PublicKey().Bytes()) {
			nickname = a.Nickname
			cfg.Log = cfg.Log.With("node", nickname)
		}
	}
	window, err := openAdmin("authority", nickname, f.State, f.Admin, cfg.Log)
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
	cache.Sweep(f.Keys) // there may be keys in what a crash left of a rotation
	cfg.Log.Info("authority starts", "id", a.ID(), "network", network.Name, "memory_budget_MiB", cfg.Memory>>20)
	if err := sandboxed(cfg.Log, f.Open, []string{f.State, f.Keys, conf.RuntimeFolder()}, append(f.Lists, path, f.Network)...); err != nil {
		return err
	}
	authorityView(window, a)
	bad.window(window)
	reload := reloading(cfg.Log, func() ([]string, error) {
		var next conf.Authority
		changed, err := conf.Reload(path, &f, &next)
		var allowed []cell.NodeID
		if err == nil {
			allowed, err = next.Allowed()
		}
		keys, none := authorityKeys(f.Keys, time.Now())
		if err = errors.Join(err, none); err == nil {
			err = a.Reload(next.Lists, allowed)
		}
		if err != nil {
			return nil, err
		}
		setLevel(level, next.Log)
		f = next
		if err := renew(a, keys); err != nil {
			return nil, fmt.Errorf("the file and its lists were read again, but no other signing key was taken up: %w", err)
		}
		return append(changed, "lists and signing keys (read again)"), nil
	})
	window.Action("reload", reload)
	err = together(ctx, a.Run, window.Run, func(ctx context.Context) error { return reloadOnHangup(ctx, reload) },
		func(ctx context.Context) error {
			return supervised(ctx, cfg.Log, func() string { return fmt.Sprintf("%d relays have sent a descriptor", a.Status().Relays) })
		})
	cfg.Log.Info("authority ends")
	return err
}

// renew has a running authority sign with the newest key of its folder. One that has its identity at hand renews by itself.
func renew(a *relay.Authority, next authority.Config) error {
	if next.Certificate.Identity.IsZero() {
		return nil
	}
	return a.Renew(next.Certificate, next.SigningKey)
}
