package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"peel/cmd/peel/internal/conf"
	"peel/directory"
	"peel/relay"
	"peel/relay/exit"
	"peel/relay/exit/dns"
	"peel/testnet/villain"
)

func relayCommand() *cobra.Command {
	var path string
	var bad misdeeds
	c := &cobra.Command{
		Use: "relay --config FILE", Short: "Run a relay", Args: cobra.NoArgs,
		Example: "  peel init relay my-relay --network network.toml --nickname Fennel --advertise 192.0.2.1:9001\n  peel relay --config my-relay/relay.toml",
		RunE: func(c *cobra.Command, _ []string) error {
			return inUse(runRelay(c.Context(), path, &bad, c.ErrOrStderr()))
		},
	}
	configFlag(c, &path)
	bad.flags(c)
	return c
}

// resolver asks the DNS servers that a relay's file names; nil: the system's do.
func resolver(f *conf.Relay, log *slog.Logger) (exit.Resolver, error) {
	servers, err := f.Servers()
	if err != nil {
		return nil, err
	}
	r, err := dns.New(dns.Config{Servers: servers})
	if err != nil {
		return nil, err
	}
	if err := r.Check(); err != nil && len(f.Exit) > 0 {
		log.Warn("the exit can look up no names", "why", err)
	}
	if len(servers) == 0 {
		return nil, nil
	}
	return r, nil
}

// notice is what an exit shows; nil: nothing.
func notice(f *conf.Relay) (*exit.Notice, error) {
	n, err := noticeOf(f)
	if err != nil {
		return nil, fmt.Errorf("exit_notice: %w", err)
	}
	return n, nil
}

// noticeOf is notice, whose errors do not say which key of the configuration they are about.
func noticeOf(f *conf.Relay) (*exit.Notice, error) {
	if f.Notice == "" {
		return nil, nil
	}
	if f.Notice == conf.UsualNotice {
		return exit.UsualNotice(f.Contact), nil
	}
	n, err := exit.ReadNotice(f.Notice)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, about(f.Notice, "no such file: write the page there, or set exit_notice to %q", conf.UsualNotice)
	}
	return n, err
}

// showNotice listens for who wants to read what an exit is, and returns what answers them with n.
func showNotice(f *conf.Relay, n *exit.Notice) (run func(context.Context) error, err error) {
	if n == nil {
		return func(ctx context.Context) error { <-ctx.Done(); return nil }, nil
	}
	ls, err := listenLinks(f.NoticeListen())
	if err != nil {
		return nil, fmt.Errorf("exit_notice: %w (ports below 1024 are for root, or for who has CAP_NET_BIND_SERVICE: exit_notice_listen can name another)", err)
	}
	return func(ctx context.Context) error { return n.Run(ctx, ls) }, nil
}

func runRelay(ctx context.Context, path string, bad *misdeeds, w io.Writer) error {
	var f conf.Relay
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
	log, level := logger(w, f.Log)
	cfg, err := relayConfig(&f, network, bad, log.With("node", f.Nickname))
	if err != nil {
		return err
	}
	window, err := openAdmin("relay", f.Nickname, f.State, f.Admin, cfg.Log)
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
	shown, err := notice(&f)
	if err != nil {
		return err
	}
	show, err := showNotice(&f, shown)
	if err != nil {
		return err
	}
	cfg.Log.Info("relay starts", "id", r.ID(), "network", network.Name, "exit", len(cfg.Exit) > 0, "memory_budget_MiB", cfg.Memory>>20)
	if err := sandboxed(cfg.Log, f.Open, []string{f.State, f.Keys, conf.RuntimeFolder()}, path, f.Network, ownNotice(&f)); err != nil {
		return err
	}
	relayView(window, r)
	bad.window(window)
	asks := cfg.Resolver
	reload := reloading(cfg.Log, func() ([]string, error) {
		signer, unsigned := nextSigner(r, f.Keys)
		var next conf.Relay
		changed, err := conf.Reload(path, &f, &next)
		if err := errors.Join(err, unsigned, conf.SameNetwork(f.Network, network)); err != nil {
			return nil, err
		}
		s, err := relaySettings(&next)
		if err != nil {
			return nil, err
		}
		if s.Resolver = asks; !slices.Equal(next.Resolvers, f.Resolvers) {
			if s.Resolver, err = resolver(&next, cfg.Log); err != nil {
				return nil, err
			}
		}
		page, err := notice(&next)
		if err == nil {
			err = r.Change(s)
		}
		if err != nil {
			return nil, err
		}
		if signer != nil {
			was, _ := r.Certificate()
			if err := r.Renew(*signer); err != nil {
				return nil, err // which it is not: it was asked above
			}
			if was != signer.Certificate {
				changed = append(changed, "signing key")
			}
		}
		if asks = s.Resolver; page != nil && shown.Change(page) {
			changed = append(changed, "exit notice")
		}
		setLevel(level, next.Log)
		f = next
		return changed, nil
	})
	window.Action("reload", reload)
	err = together(ctx, r.Run, window.Run, show, func(ctx context.Context) error { return reloadOnHangup(ctx, reload) },
		func(ctx context.Context) error { return drained(ctx, cfg.Log, r.Drain) },
		func(ctx context.Context) error { return supervised(ctx, cfg.Log, r.Summary) })
	cfg.Log.Info("relay ends")
	return err
}

// relayConfig is what a configuration says, but for where the relay listens.
func relayConfig(f *conf.Relay, network *directory.Network, bad *misdeeds, log *slog.Logger) (relay.Config, error) {
	cfg := relay.Config{Network: network, Nickname: f.Nickname, Dir: f.State, KeyDir: f.Keys, Log: log, AssumeReachable: f.Assume}
	var err error
	if cfg.Keys, err = relay.LoadKeys(f.Keys); err != nil {
		return cfg, err
	}
	s, err := relaySettings(f)
	if err != nil {
		return cfg, err
	}
	cfg.Addrs, cfg.Contact, cfg.Family, cfg.Exit = s.Addrs, s.Contact, s.Family, s.Exit
	cfg.Rate, cfg.Burst, cfg.Bandwidth = s.Rate, s.Burst, villain.Offer(bad.script, s.Bandwidth)
	if cfg.Villain, err = bad.villain("relay"); err != nil {
		return cfg, err
	}
	cfg.OneHop = bad.oneHop
	if cfg.Quota, cfg.QuotaDaily, err = f.Allowance(); err != nil {
		return cfg, err
	}
	if cfg.Memory, err = relayBudget(f.Memory, ownMemory); err != nil {
		return cfg, err
	}
	cfg.MaxLinks, cfg.MaxCircuits, cfg.MaxTasks = f.MaxLinks, f.MaxCircuits, f.MaxStreams
	cfg.Limits = relay.Limits{
		Links: f.AddrLinks, Circuits: f.AddrCircuits, LinkRate: f.AddrLinkRate, CreateRate: f.AddrCreateRate,
		ExtendRate: f.AddrExtendRate, StreamRate: f.AddrStreamRate, Off: f.NoAddr,
	}
	cfg.Resolver, err = resolver(f, log)
	return cfg, err
}

// ownNotice is the file of the notice; empty: there is none.
func ownNotice(f *conf.Relay) string {
	if f.Notice == conf.UsualNotice {
		return ""
	}
	return f.Notice
}

// nextSigner is the newest signing key in the folder of a running relay whose identity is elsewhere; nil: there is none to take.
func nextSigner(r *relay.Relay, dir string) (*relay.Signer, error) {
	if _, ok := r.Certificate(); !ok {
		return nil, nil
	}
	s, err := relay.LoadSigner(dir, time.Now())
	if err == nil && s != nil {
		err = r.MayRenew(*s)
	}
	return s, err
}

// relaySettings are what of a configuration can be changed while the relay runs.
func relaySettings(f *conf.Relay) (s relay.Settings, err error) {
	s.Contact = f.Contact
	if s.Addrs, err = f.Addrs(); err != nil {
		return s, err
	}
	if s.Bandwidth, err = f.Rate(); err != nil {
		return s, err
	}
	s.Rate = s.Bandwidth // what it offers is what it sends at most
	if s.Burst, err = f.AtOnce(); err != nil {
		return s, err
	}
	if s.Exit, err = f.Policy(); err != nil {
		return s, err
	}
	s.Family, err = f.Relatives()
	return s, err
}
