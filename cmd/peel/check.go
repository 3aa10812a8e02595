package main

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peel/cell"
	"peel/cmd/peel/internal/admin"
	"peel/cmd/peel/internal/conf"
	"peel/relay"
)

func checkCommand() *cobra.Command {
	var kind string
	var alone bool
	c := &cobra.Command{
		Use: "check FILE...", Short: "Say what is wrong with configuration files", Args: cobra.MinimumNArgs(1),
		Long: `Reads files as the nodes would, and what they name: the network file, an authority's lists, the folders and keys of the node and who
can read them. It also reads plans of test networks, for peel testnet run, and runs nothing. What a file is for is found out from
its keys. The status is 0 if all are in order, and 2 if not; then all that is wrong with each is told with its file and line, up to 20 mistakes.`,
		Example: "  peel check my-relay/relay.toml\n  peel check --kind lists lists.toml\n  peel check my-plan.toml",
		RunE: func(c *cobra.Command, args []string) error {
			return checkFiles(args, kind, alone, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&kind, "kind", "", "what the files are for, a `kind`: one of "+strings.Join(conf.Kinds, ", "))
	c.Flags().BoolVar(&alone, "files-only", false, "do not look at the folders and keys that they name, which may be on another machine")
	return c
}

func checkFiles(files []string, kind string, alone bool, out, errs io.Writer) error {
	bad := 0
	for _, name := range files {
		x := conf.Examine(name, kind)
		if !alone {
			checkNamed(x)
		}
		for _, m := range x.Mistakes {
			fmt.Fprintln(errs, plainly(m))
		}
		if len(x.Mistakes) > 0 {
			bad++
			continue
		}
		fmt.Fprintf(out, "%s: in order (%s)\n", name, x.Kind)
		if f, ok := x.File.(*conf.Client); ok {
			for _, w := range checkDoors(f) {
				fmt.Fprintf(errs, "%s: warning: %s: %s\n", name, w.Says, w.Remedy)
			}
		}
	}
	if bad > 0 {
		return &exitError{code: 2}
	}
	return nil
}

// checkNamed takes in what is wrong with the folders and files that a node's file names.
func checkNamed(x *conf.Examined) {
	for _, f := range namedFaults(x) {
		what := plainly(f.err)
		if errors.Is(f.err, fs.ErrPermission) {
			what += ", or with --files-only"
		}
		x.At(f.key, errors.New(what))
	}
}

// A fault is what is wrong with what a key of a node's file names.
type fault struct {
	key string
	err error
}

// namedFaults are those of the folders and files that a node's file names.
func namedFaults(x *conf.Examined) (all []fault) {
	at := func(key string, errs ...error) {
		for _, err := range errs {
			if err != nil {
				all = append(all, fault{key, err})
			}
		}
	}
	state := func(dir string) {
		if dir != "" {
			at("state", admin.CheckFolder(dir))
		}
	}
	switch f := x.File.(type) {
	case *conf.Relay:
		at("keys", keyFaults(x.Path, "relay", f.Keys)...)
		state(f.State)
		_, err := noticeOf(f)
		at("exit_notice", err)
	case *conf.Authority:
		faults := keyFaults(x.Path, "authority", f.Keys)
		if at("keys", faults...); errors.Join(faults...) == nil {
			at("keys", linkFault(f))
		}
		state(f.State)
	case *conf.Client:
		state(f.State)
		for i, l := range f.Listen {
			if path := l.Unix(); path != "" {
				at(fmt.Sprintf("listen[%d].address", i), folderFault(filepath.Dir(path)))
			}
		}
	}
	return all
}

// checkKeyFolder says that the key folder that a node's file names is not there, as the node starts.
func checkKeyFolder(config, dir string) error {
	if err := noKeyFolder(dir); err != nil {
		return conf.About(config, "keys", err)
	}
	return nil
}

// checkState makes the state folder that a node's file names, as the node starts, or says what is wrong with it.
func checkState(config, dir string) error {
	if dir == "" {
		return nil
	}
	err := admin.CheckFolder(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return conf.About(config, "state", errors.New(plainly(err)))
	}
	return nil
}

// noKeyFolder says of a key folder that it is not there, if so.
func noKeyFolder(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return about(dir, "no such folder: peel init makes one for a new node, peel keys import brings back a backup")
	}
	return nil
}

// keyFaults are what is wrong with the key folder of a node, whose configuration is config, and the files in it.
func keyFaults(config, kind, dir string) (all []error) {
	if dir == "" {
		return nil
	}
	if err := noKeyFolder(dir); err != nil {
		return []error{err}
	}
	st, _ := os.Stat(dir)
	if err := relay.CheckKeyFolder(dir); err != nil {
		if all = append(all, err); st == nil || !st.IsDir() {
			return all
		}
	}
	for _, glob := range []string{"*.key", "*.keys"} {
		names, _ := filepath.Glob(filepath.Join(dir, glob)) // the pattern is in order
		for _, name := range names {
			if err := relay.CheckKeyMode(name); err != nil {
				all = append(all, err)
			}
		}
	}
	if len(all) > 0 {
		return all
	}
	if kind == "relay" {
		_, err := relay.LoadKeys(dir)
		return []error{err}
	}
	now := time.Now()
	c, err := authorityKeys(dir, now)
	if err == nil {
		if err = cannotSign(c, now); err != nil {
			err = fmt.Errorf("%w: %s", err, rotateRemedy(config))
		}
	}
	_, link := relay.LoadKey[*ecdh.PrivateKey](filepath.Join(dir, linkFile))
	return []error{err, link}
}

// linkFault says what is wrong with the link key of an authority whose keys are in order, if it is not that of the network file.
func linkFault(f *conf.Authority) error {
	network, err := conf.LoadNetwork(f.Network)
	if f.Keys == "" || err != nil {
		return nil // which is told elsewhere
	}
	c, err := authorityKeys(f.Keys, time.Now())
	if err != nil {
		return err
	}
	id := c.Certificate.Identity
	if c.Identity != nil {
		id = cell.NodeID(c.Identity.Public().(ed25519.PublicKey))
	}
	link, err := relay.LoadKey[*ecdh.PrivateKey](filepath.Join(f.Keys, linkFile))
	if err != nil {
		return err
	}
	return relay.CheckAuthorityLink(network, id, link)
}

// folderFault says why a file cannot be made in a folder: it is not there.
func folderFault(dir string) error {
	switch st, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return about(dir, "no such folder: make it first")
	case err != nil:
		return err
	case !st.IsDir():
		return about(dir, "this is not a folder")
	}
	return nil
}
