package main

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peel/cell"
	"peel/cmd/peel/internal/conf"
	"peel/directory"
	"peel/relay"
	"peel/testnet"
)

func initCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "init", Short: "Write configuration files and keys",
		Long: "Writes a folder with a commented configuration file and, where there are any, keys that only you can read.\nNothing that is there is ever overwritten.",
	}
	verbsOnly(c)
	c.AddCommand(initNetworkCommand(), initAuthorityCommand(), initRelayCommand(), initClientCommand())
	return c
}

// newFolder makes a folder, which must be new or empty, to write files and folders of these names into. If that fails with end, undo takes them
// away again, so that it can be done anew, and leaves what somebody else has put there by then.
func newFolder(dir string, names ...string) (undo func(end error), err error) {
	there, err := os.ReadDir(dir)
	if err == nil && len(there) > 0 {
		return nil, &usageError{fmt.Errorf("%s is not empty: give a folder that is new", dir)}
	}
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return nil, fmt.Errorf("no folder can be made there: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("no folder can be made there: %w", err)
	}
	return func(end error) {
		if end == nil {
			return
		}
		for _, name := range names {
			os.RemoveAll(filepath.Join(dir, name))
		}
		if fresh {
			os.Remove(dir) // if it is empty
		}
	}, nil
}

// put writes a file that only its owner can read.
func put(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

// copyNetwork checks a network file and puts it into a node's folder.
func copyNetwork(from, dir string) error {
	if _, err := conf.LoadNetwork(from); err != nil {
		return inUse(err)
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return put(filepath.Join(dir, "network.toml"), string(text))
}

func initRelayCommand() *cobra.Command {
	var network string
	var offline bool
	var phrase passphrase
	f := conf.Relay{Network: "network.toml", Keys: "keys", State: "state", Log: "info"}
	c := &cobra.Command{
		Use: "relay DIR --network FILE --nickname NAME --advertise ADDRESS", Short: "Make a relay's folder", Args: cobra.ExactArgs(1),
		Long: `Makes a relay's folder, with its keys, its configuration and a copy of the network file. --advertise may be left out
where --listen names addresses that others can reach. Without --exit the relay is no exit.

The identity lies in DIR/keys. With --offline it goes into DIR/` + sealedFile + ` instead, which only a passphrase opens: move it to
a machine without a network. It certifies a signing key for 29 days now, and is needed again before these are over (peel keys --help).`,
		Example: "  peel init relay my-relay --network network.toml --nickname Fennel --advertise 192.0.2.1:9001\n" +
			"  peel init relay my-exit --network network.toml --nickname Dill --advertise 192.0.2.2:9001 --exit 'accept *:80,443'",
		RunE: func(c *cobra.Command, args []string) (end error) {
			dir := args[0]
			if !c.Flags().Changed("listen") {
				f.Listen = usualListen(f.Advertise)
			}
			if f.Nickname == "" {
				return &usageError{errors.New("--nickname NAME is needed: 1 to 19 letters and digits, for people")}
			}
			if err := conf.Check(&f); err != nil {
				return &usageError{err}
			}
			n, err := conf.LoadNetwork(network)
			if err != nil {
				return inUse(err)
			}
			undo, err := newFolder(dir, "keys", "network.toml", "relay.toml", sealedFile)
			if err != nil {
				return err
			}
			defer func() { undo(end) }()
			if err := copyNetwork(network, dir); err != nil {
				return err
			}
			keys, err := relay.NewKeys()
			if err != nil {
				return err
			}
			if offline {
				if err := moveAway(&keys, n, filepath.Join(dir, sealedFile), &phrase, c); err != nil {
					return err
				}
			}
			if err := writeRelay(dir, f, keys); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(c.OutOrStdout(), "relay %s, identity %v\nlook through %s, then: peel relay --config %[3]s\n",
				f.Nickname, keys.ID(), filepath.Join(dir, "relay.toml")); err != nil {
				return err
			}
			if offline {
				fmt.Fprintf(c.ErrOrStderr(), "the identity is in %s: keep it, and its passphrase, off this machine.\nThe signing key is certified until %s; the next one: peel keys rotate --config %s\n",
					filepath.Join(dir, sealedFile), moment(keys.Signer.Certificate.NotAfter), filepath.Join(dir, "relay.toml"))
			}
			return nil
		},
	}
	fl := c.Flags()
	fl.StringVar(&network, "network", "network.toml", "the network `file`")
	fl.StringVar(&f.Nickname, "nickname", "", "a `name` of 1 to 19 letters and digits")
	fl.StringVar(&f.Contact, "contact", "", "a `text` how to reach you; it is published")
	fl.StringSliceVar(&f.Listen, "listen", usualListen(nil), "`address` where links arrive; beside an advertised one of IPv6 [::]:9001 too, unless it is given")
	fl.StringSliceVar(&f.Advertise, "advertise", nil, "`address` where others reach the relay")
	fl.StringVar(&f.Bandwidth, "bandwidth", "", "the `rate` that the relay offers, such as \"20 MB/s\"")
	fl.BoolVar(&offline, "offline", false, "seal the identity in a file to be moved away, and certify a signing key")
	phrase.flags(c)
	fl.StringArrayVar(&f.Exit, "exit", nil, "a `rule` of the exit policy, such as \"accept *:443\"; may be given more than once")
	return c
}

// moveAway seals the identity of new keys in a file, and has a signing key speak for it.
func moveAway(k *relay.Keys, n *directory.Network, to string, phrase *passphrase, c asker) error {
	p, err := phrase.get("the new identity in "+to, true, c)
	if err != nil {
		return err
	}
	defer clear(p)
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	cert, err := certify(k.Identity, n.ID(), directory.SigningKey(pub), true, 0, time.Now())
	if err != nil {
		return err
	}
	if err := sealIdentity(to, k.Identity, p); err != nil {
		return err
	}
	k.Identity, k.Signer = nil, &relay.Signer{Certificate: cert, Key: key}
	return nil
}

// usualListen is where links arrive unless it is said, for what is advertised: at all addresses of the machine, of IPv6 too only if one is told to others.
func usualListen(advertise []string) []string {
	for _, s := range advertise {
		if a, err := netip.ParseAddrPort(s); err == nil && a.Addr().Is6() {
			return []string{"0.0.0.0:9001", "[::]:9001"}
		}
	}
	return []string{"0.0.0.0:9001"}
}

// writeRelay writes a relay's file and keys.
func writeRelay(dir string, f conf.Relay, keys relay.Keys) error {
	if err := keys.Save(filepath.Join(dir, "keys")); err != nil {
		return err
	}
	return put(filepath.Join(dir, "relay.toml"), f.Text())
}

func initClientCommand() *cobra.Command {
	var network string
	f := conf.Client{Network: "network.toml", State: "state", Log: "info"}
	c := &cobra.Command{
		Use: "client DIR --network FILE", Short: "Make a client's folder", Args: cobra.ExactArgs(1),
		Long:    "Makes a client's folder, with its configuration and a copy of the network file.",
		Example: "  peel init client my-client --network network.toml",
		RunE: func(c *cobra.Command, args []string) (end error) {
			dir := args[0]
			if err := conf.Check(&f); err != nil {
				return &usageError{err}
			}
			if _, err := conf.LoadNetwork(network); err != nil {
				return inUse(err)
			}
			undo, err := newFolder(dir, "network.toml", "client.toml")
			if err != nil {
				return err
			}
			defer func() { undo(end) }()
			if err := copyNetwork(network, dir); err != nil {
				return err
			}
			path := filepath.Join(dir, "client.toml")
			if err := put(path, f.Text()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "look through %s, then: peel client --config %[1]s\n", path)
			return err
		},
	}
	c.Flags().StringVar(&network, "network", "network.toml", "the network `file`")
	c.Flags().StringVar(&f.SOCKS, "socks", "127.0.0.1:9250", "`address` of the port for SOCKS and HTTP CONNECT")
	c.Flags().StringVar(&f.DNS, "dns", "", "`address` of a DNS port (default: none)")
	return c
}

func initAuthorityCommand() *cobra.Command {
	var nickname, advertise string
	var here bool
	var phrase passphrase
	f := conf.Authority{Network: "../network.toml", Keys: "keys", State: "state", Lists: []string{listsFile}, Measure: true, Log: "info"}
	c := &cobra.Command{
		Use: "authority DIR --nickname NAME --advertise ADDRESS", Short: "Make a directory authority's folder", Args: cobra.ExactArgs(1),
		Long: `Makes an authority's keys and prints its part of the network file. When the parts of all authorities are in
one network.toml, put that where the authority's configuration says, on every node alike.

The identity goes into DIR/` + sealedFile + `, which only a passphrase opens: move it to a machine without a network. It is
needed again to certify a signing key, now and at least every 89 days (peel keys --help). With --identity-here it
stays in the key folder, unprotected, and the authority certifies its signing keys by itself: for tests.`,
		RunE: func(c *cobra.Command, args []string) (end error) {
			dir := args[0]
			if err := directory.CheckNickname(nickname); err != nil {
				return &usageError{fmt.Errorf("--nickname: %w", err)}
			}
			addr, err := netip.ParseAddrPort(advertise)
			if err != nil {
				return &usageError{fmt.Errorf("--advertise %q: must be an address and a port, such as 192.0.2.1:9001", advertise)}
			}
			if !c.Flags().Changed("listen") {
				f.Listen = usualListen([]string{advertise})
			}
			if err := conf.Check(&f); err != nil {
				return &usageError{err}
			}
			undo, err := newFolder(dir, "keys", listsFile, "authority.toml", sealedFile)
			if err != nil {
				return err
			}
			defer func() { undo(end) }()
			identity, err := newIdentity(dir, here, &phrase, c)
			if err != nil {
				return err
			}
			link, err := ecdh.X25519().GenerateKey(rand.Reader)
			if err != nil {
				return err
			}
			if err := writeAuthority(dir, f, link); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(c.OutOrStdout(), "# A part of network.toml. That file begins with the network's name and with how many authorities must sign:\n"+
				"# all of fewer than four, 3 of 4, 4 of 5, 5 of 7, 6 of 9.\n#\n#   name = \"my-network\"\n#   threshold = 1\n\n"+
				"[[authority]]\nnickname = %q\nidentity = %q\nlink_key = %q\naddresses = [%q]\n",
				nickname, idOf(identity), cell.Key(link.PublicKey().Bytes()), addr); err != nil {
				return err // without this part the folder is of no use
			}
			if !here {
				fmt.Fprintf(c.ErrOrStderr(), "the identity is in %[1]s: keep it, and its passphrase, off this machine.\nOnce network.toml is there: peel keys rotate --config %[2]s --identity %[1]s\n",
					filepath.Join(dir, sealedFile), filepath.Join(dir, "authority.toml"))
			}
			return nil
		},
	}
	c.Flags().StringVar(&nickname, "nickname", "", "a `name` of 1 to 19 letters and digits")
	c.Flags().BoolVar(&here, "identity-here", false, "keep the identity unprotected in the key folder: for tests")
	phrase.flags(c)
	c.Flags().StringVar(&advertise, "advertise", "", "`address` where others reach the authority")
	c.Flags().StringSliceVar(&f.Listen, "listen", usualListen(nil), "`address` where links arrive; beside an advertised one of IPv6 [::]:9001 too, unless it is given")
	required(c, "nickname", "advertise")
	return c
}

// newIdentity makes an authority's identity: in the key folder, or in a file that only a passphrase opens.
func newIdentity(dir string, here bool, phrase *passphrase, c asker) (ed25519.PrivateKey, error) {
	kdir := filepath.Join(dir, "keys")
	if err := os.MkdirAll(kdir, 0o700); err != nil {
		return nil, err
	}
	if !here {
		return newSealedIdentity(filepath.Join(dir, sealedFile), phrase, c)
	}
	_, id, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return id, relay.SaveKey(filepath.Join(kdir, identityFile), id)
}

// writeAuthority writes an authority's file and link key.
func writeAuthority(dir string, f conf.Authority, link *ecdh.PrivateKey) error {
	kdir := filepath.Join(dir, "keys")
	if err := os.MkdirAll(kdir, 0o700); err != nil {
		return err
	}
	if err := relay.SaveKey(filepath.Join(kdir, linkFile), link); err != nil {
		return err
	}
	if err := put(filepath.Join(dir, listsFile), conf.ListsText); err != nil {
		return err
	}
	return put(filepath.Join(dir, "authority.toml"), f.Text())
}

// checkPeriod says what is wrong with the value of --period; nil: nothing.
func checkPeriod(p time.Duration) error {
	if p < time.Second || p > 24*time.Hour || p%time.Second != 0 {
		return &usageError{fmt.Errorf("--period %v: give whole seconds, from 1s to 24h", p)}
	}
	return nil
}

func initNetworkCommand() *cobra.Command {
	size := testnet.Size{Authorities: 5, Relays: 8, Exits: 3}
	var socks string
	var port uint16
	var period time.Duration
	c := &cobra.Command{
		Use: "network DIR", Short: "Make the folders of a whole network on this machine", Args: cobra.ExactArgs(1),
		Long: "Writes a folder per node of a network on this machine, each node on a loopback address of its own, to be started as\nseparate processes.",
		RunE: func(c *cobra.Command, args []string) (end error) {
			if err := size.Check(); err != nil {
				return &usageError{err}
			}
			if err := conf.Check(&conf.Client{Network: "network.toml", SOCKS: socks}); err != nil {
				return &usageError{err}
			}
			if err := checkPeriod(period); err != nil {
				return err
			}
			if port == 0 {
				return &usageError{errors.New("--port 0: give 1 to 65535")}
			}
			l, err := testnet.Plan("local", size, testnet.Loopback(port), time.Time{}, period, 0, time.Now())
			if err != nil {
				return &usageError{err}
			}
			if err := l.Network.Check(); err != nil {
				return &usageError{err}
			}
			names := []string{"network.toml", "client"}
			for _, a := range l.Authorities {
				names = append(names, a.Nickname)
			}
			for _, r := range l.Relays {
				names = append(names, r.Nickname)
			}
			undo, err := newFolder(args[0], names...)
			if err != nil {
				return err
			}
			defer func() { undo(end) }()
			if err := writeNetwork(args[0], l, socks); err != nil {
				return err
			}
			return explainNetwork(c.OutOrStdout(), args[0], socks)
		},
	}
	f := c.Flags()
	f.IntVar(&size.Authorities, "authorities", size.Authorities, "directory authorities")
	f.IntVar(&size.Relays, "relays", size.Relays, "relays, exits included")
	f.IntVar(&size.Exits, "exits", size.Exits, "relays that are exits")
	f.StringVar(&socks, "socks", "127.0.0.1:9250", "`address` of the client's port for SOCKS and HTTP CONNECT")
	f.Uint16Var(&port, "port", 9001, "port of every node on its own address")
	f.DurationVar(&period, "period", 5*time.Second, "`time` from one directory to the next, whole seconds")
	return c
}

// writeNetwork writes a planned network, a folder a node.
func writeNetwork(dir string, l *testnet.Layout, socks string, more ...conf.Listen) error {
	text, err := l.Network.Encode()
	if err != nil {
		return err
	}
	if err := put(filepath.Join(dir, "network.toml"), string(text)); err != nil {
		return err
	}
	for i := range l.Authorities {
		a := &l.Authorities[i]
		f := conf.Authority{Network: "../network.toml", Keys: "keys", State: "state", Listen: []string{a.Addr.String()},
			Private: true, Log: "info", Params: l.Params()}
		adir := filepath.Join(dir, a.Nickname)
		if err := a.Save(filepath.Join(adir, "keys")); err != nil {
			return err
		}
		if err := put(filepath.Join(adir, "authority.toml"), f.Text()); err != nil {
			return err
		}
	}
	for i := range l.Relays {
		r := &l.Relays[i]
		f := conf.Relay{
			Network: "../network.toml", Keys: "keys", State: "state", Nickname: r.Nickname, Listen: []string{r.Addr.String()},
			Log: "info",
		}
		if r.Exit {
			f.Exit = testnet.ExitPolicy
		}
		if err := writeRelay(filepath.Join(dir, r.Nickname), f, r.Keys); err != nil {
			return err
		}
	}
	f := conf.Client{Network: "../network.toml", State: "state", SOCKS: socks, Listen: more, Log: "info"}
	cdir := filepath.Join(dir, "client")
	if err := os.MkdirAll(cdir, 0o700); err != nil {
		return err
	}
	return put(filepath.Join(cdir, "client.toml"), f.Text())
}

// explainNetwork says how to start what was written.
func explainNetwork(w io.Writer, dir, socks string) error {
	d := strings.TrimSuffix(dir, "/")
	_, err := fmt.Fprintf(w, `wrote %[1]s: start the network with

  for f in %[1]s/authority*/authority.toml; do peel authority --config $f & done
  for f in %[1]s/relay*/relay.toml; do peel relay --config $f & done
  peel client --config %[1]s/client/client.toml

and, once the client says ready, use it:

  curl --socks5-hostname %[2]s URL
`, d, socks)
	return err
}
