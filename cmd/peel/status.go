package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peel/cmd/peel/internal/admin"
	"peel/cmd/peel/internal/conf"
)

// openAdmin opens the window into a node, in its state folder, in that which a service manager gives for sockets and, if listen says
// so, on loopback. Where no socket can be, the node goes without and says so.
func openAdmin(kind, nickname, state, listen string, log *slog.Logger) (*admin.Server, error) {
	cfg := admin.Config{Kind: kind, Nickname: nickname, Version: version(), Dir: state, Runtime: conf.RuntimeFolder(), Listen: listen, Log: log}
	s, err := admin.Open(cfg)
	for _, without := range []struct {
		what         string
		dir, runtime string
	}{{"the service manager's folder", state, ""}, {"its state folder", "", cfg.Runtime}, {"any folder", "", ""}} {
		if !errors.Is(err, admin.ErrNoSocket) || listen != "" && without.dir == "" {
			break
		}
		why := err
		cfg.Dir, cfg.Runtime = without.dir, without.runtime
		if s, err = admin.Open(cfg); err == nil {
			log.Warn("peel status cannot look into this node by "+without.what, "why", why)
		}
	}
	if err != nil {
		return nil, err
	}
	if a := s.Addr(); a != nil {
		log.Info("can be looked into", "admin", a, "token", filepath.Join(state, admin.TokenFile))
	}
	return s, nil
}

// which is the node that a verb asks: one of its flags names it, or it is that of the working directory.
type which struct {
	config, dir, socket string

	kind string // the only one that the verb can ask, as peel init calls its file: "client"; "": any
}

func (w *which) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&w.config, "config", "c", "", "the node's configuration `file`")
	f.StringVar(&w.dir, "dir", "", "the node's `folder`, or its state folder (default: here)")
	f.StringVar(&w.socket, "socket", "", "the node's admin socket, a `path`")
	c.MarkFlagsMutuallyExclusive("config", "dir", "socket")
}

// errNoState is in the error of a node that cannot be asked.
var errNoState = errors.New(`no state folder is named there: name the folder that the service manager gives the node, with --dir; without one too the node has no socket`)

func (w *which) path() (string, error) {
	switch {
	case w.socket != "":
		return w.socket, nil
	case w.config != "":
		state, err := conf.StateOf(w.config)
		if err != nil {
			return "", inUse(err)
		}
		if kind, err := conf.KindOf(w.config); state == "" && err == nil && kindsWords[kind] != "" {
			return "", &usageError{about(w.config, "this is %s: name the file of a node that runs", kindsWords[kind])}
		}
		if state == "" && conf.RuntimeFolder() != "" {
			return admin.Find(conf.RuntimeFolder()), nil
		}
		if state == "" {
			return "", &usageError{about(w.config, "%w", errNoState)}
		}
		return filepath.Join(state, admin.SocketFile), nil
	case w.dir != "":
		if st, err := os.Stat(w.dir); errors.Is(err, fs.ErrPermission) {
			return "", &admin.NotRunning{Path: w.dir, Err: err}
		} else if err != nil || !st.IsDir() {
			return "", &usageError{fmt.Errorf("--dir %s: no such folder: name that of a node, or its state folder", w.dir)}
		}
		return w.found(w.dir)
	}
	for _, dir := range []string{".", conf.RuntimeFolder()} {
		if dir == "" {
			continue
		}
		path := admin.Find(dir)
		if _, err := os.Lstat(path); err == nil || errors.Is(err, fs.ErrPermission) {
			return path, nil
		}
	}
	if _, err := w.found("."); err != nil {
		return "", err
	}
	return "", &usageError{errors.New("no node here: name one with --config FILE, --dir FOLDER or --socket PATH (peel testnet runs none that can be asked; the separate processes that peel init network prepares can be)")}
}

// found is the socket of a folder. Where the folder is none of a node's and holds those of several, it says which can be named.
func (w *which) found(dir string) (string, error) {
	path := admin.Find(dir)
	if _, err := os.Lstat(path); err == nil {
		return path, nil
	}
	if own, _ := filepath.Glob(filepath.Join(dir, "*.toml")); slices.ContainsFunc(own, ofNode) {
		return path, nil // it does not run
	}
	all, _ := filepath.Glob(filepath.Join(dir, "*", "*.toml")) // a name with letters of a pattern finds none, and is told as such
	all = slices.DeleteFunc(all, func(path string) bool { return !ofNode(path) })
	if len(all) == 0 {
		return path, nil
	}
	if w.kind != "" {
		all = slices.DeleteFunc(all, func(path string) bool { return filepath.Base(path) != w.kind+".toml" })
	}
	if len(all) == 0 {
		if dir == "." {
			dir = "this folder"
		}
		return "", &usageError{about(dir, "folders of nodes are in it, and none of %s, which this asks: name one with --dir", article(w.kind))}
	}
	for i := range all {
		all[i] = filepath.Base(filepath.Dir(all[i]))
	}
	all = slices.Compact(all)
	example := filepath.Join(dir, all[len(all)-1])
	if dir == "." {
		dir = "this folder"
	}
	switch {
	case len(all) == 1 && w.kind != "":
		return "", &usageError{about(dir, "the folder of %s is in it: name that, with --dir %s", article(w.kind), example)}
	case len(all) == 1:
		return "", &usageError{about(dir, "the folder of a node is in it: name that, with --dir %s", example)}
	}
	return "", &usageError{about(dir, "the folders of %d nodes are in it: name one of them, such as --dir %s (%s)",
		len(all), example, strings.Join(all, ", "))}
}

// article is a kind of node in a sentence.
func article(kind string) string {
	if kind == "authority" {
		return "an authority"
	}
	return "a " + kind
}

// kindsWords are the kinds of files that are no node's, as said to who took one for that.
var kindsWords = map[string]string{"network": "a network's file", "lists": "a file of lists", "plan": "a plan of a test network"}

// ofNode says whether a file is called as peel init calls the configuration of a node.
func ofNode(path string) bool {
	return slices.Contains([]string{"authority.toml", "client.toml", "relay.toml"}, filepath.Base(path))
}

func (w *which) ask() (*admin.Asker, error) {
	path, err := w.path()
	if err != nil {
		return nil, err
	}
	return admin.NewAsker(path)
}

// show prints a page of a node, for people or as JSON.
func (w *which) show(ctx context.Context, page string, asJSON bool, out io.Writer) error {
	a, err := w.ask()
	if err != nil {
		return err
	}
	text, err := a.Get(ctx, page)
	if err != nil {
		return err
	}
	if asJSON {
		_, err = out.Write(text)
		return err
	}
	return admin.WriteText(out, text)
}

// showPage prints the address of a node's status page. Where the node shows it on its socket alone, it shows it until ctx ends.
func (w *which) showPage(ctx context.Context, listen string, out, errs io.Writer) error {
	a, err := w.ask()
	if err != nil {
		return err
	}
	link, err := a.PageLink(ctx)
	if err != nil {
		return err
	}
	if link != "" {
		_, err := fmt.Fprintln(out, link)
		return err
	}
	return a.ServePage(ctx, listen, func(link string) {
		fmt.Fprintln(out, link)
		fmt.Fprintln(errs, "the page is there until Ctrl-C")
	})
}

func statusCommand() *cobra.Command {
	var node which
	var asJSON, inBrowser bool
	var listen string
	c := &cobra.Command{
		Use: "status", Short: "Look into a running node", Args: cobra.NoArgs,
		Long: `Shows what a running authority, relay or client is doing, asked through the socket in
its state folder. Only the user that the node runs as, and root, may ask.

With --page, prints the address of the node's status page, for a browser on this machine. Where the configuration
says no admin address, the page is shown by this command itself, until Ctrl-C. Whoever has the address can read the page.`,
		Example: "  peel status --config my-relay/relay.toml\n  peel status --dir my-client --json\n  peel status --dir my-relay --page",
		RunE: func(c *cobra.Command, _ []string) error {
			if !inBrowser && c.Flags().Changed("listen") {
				return usageOf(c, "--listen is for --page")
			}
			if inBrowser {
				return node.showPage(c.Context(), listen, c.OutOrStdout(), c.ErrOrStderr())
			}
			return node.show(c.Context(), "/status", asJSON, c.OutOrStdout())
		},
	}
	node.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&inBrowser, "page", false, "print the address of the status page, for a browser")
	checkedVar(c.Flags(), &listen, "listen", "127.0.0.1:0", "`address` of loopback where --page shows the page of a node that has no admin address", aPage)
	c.MarkFlagsMutuallyExclusive("json", "page")
	return c
}

func reloadCommand() *cobra.Command {
	var node which
	c := &cobra.Command{
		Use: "reload", Short: "Have a running node read its files again", Args: cobra.NoArgs,
		Long: `Has a running node read again what it can change while it runs, as SIGHUP does: an authority its certificates, signing
keys and lists; a relay its certificate and signing key, the file of its exit notice, and contact, advertise, bandwidth,
burst, exit_policy, resolvers, family and log of its configuration; a client
own_relays, exclude, exclude_exits, exclude_lenient, countries and log. It takes all of it or, if something is wrong or another
key has changed, goes on as before, and the command says everything that keeps it from that.`,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := node.ask()
			if err != nil {
				return err
			}
			return act(c, a, "reload")
		},
	}
	node.flags(c)
	return c
}

// act has a node do something, and prints what it says of that.
func act(c *cobra.Command, a *admin.Asker, action string) error {
	said, err := a.Post(c.Context(), action)
	if err == nil {
		_, err = fmt.Fprintln(c.OutOrStdout(), said)
	}
	return err
}
