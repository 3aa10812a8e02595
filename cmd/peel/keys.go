package main

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peel/cell"
	"peel/cmd/peel/internal/conf"
	"peel/cmd/peel/internal/sealed"
	"peel/directory"
	"peel/directory/cache"
	"peel/relay"
)

// asker is a verb that asks on the terminal.
type asker interface {
	Context() context.Context
	ErrOrStderr() io.Writer
}

func keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "keys", Short: "Make, show, renew and back up keys",
		Long: `Makes, shows, renews and backs up the keys of nodes.

An authority's identity stays on a machine without a network, in a file that only a
passphrase opens. It certifies a signing key for at most 90 days. To renew it:

  authority$ peel keys rotate --config authority.toml        makes a key, says what to run
  offline$   peel keys certify --identity identity.sealed --network network.toml \
                 --signing-key KEY --out certificate-new
  authority$ peel keys import --config authority.toml certificate-new
  authority$ peel reload --config authority.toml

or, where the identity's medium is put into the authority for a moment, in one step:

  authority$ peel keys rotate --config authority.toml --identity /media/identity.sealed

A relay's identity lies in its key folder, unless peel init relay --offline put it into a sealed file. Then it certifies a
signing key for at most 30 days, and is renewed by the same steps, with peel keys certify --relay. To move an identity away later:
peel keys export KEYS/identity.key --out identity.sealed, peel keys rotate --config relay.toml --identity identity.sealed, take
identity.key out of the folder, and start the relay anew.

A passphrase comes from --passphrase-file, from $PEEL_PASSPHRASE, or from the terminal.`,
	}
	verbsOnly(c)
	c.AddCommand(keysCreate(), keysShow(), keysCertify(), keysRotate(), keysExport(), keysImport(), keysBackup())
	return c
}

func keysCreate() *cobra.Command {
	var phrase passphrase
	c := &cobra.Command{
		Use: "create FILE", Short: "Make an identity, in a file that only a passphrase opens", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := newSealedIdentity(args[0], &phrase, c)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "identity %v in %s\nkeep two copies of it, and the passphrase, apart from each other and from any network\n", idOf(id), args[0])
			return nil
		},
	}
	phrase.flags(c)
	return c
}

func newSealedIdentity(path string, p *passphrase, c asker) (ed25519.PrivateKey, error) {
	if err := checkNew(path); err != nil { // before somebody thinks of a passphrase
		return nil, err
	}
	phrase, err := p.get("the new identity in "+path, true, c)
	if err != nil {
		return nil, err
	}
	defer clear(phrase)
	_, id, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return id, sealIdentity(path, id, phrase)
}

func keysShow() *cobra.Command {
	return &cobra.Command{
		Use: "show PATH...", Short: "Show what keys and certificates are, their public halves only", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var failed error
			for _, path := range args {
				if err := showPath(c.OutOrStdout(), path, time.Now()); err != nil {
					failed = errors.Join(failed, err)
				}
			}
			return failed
		},
	}
}

func showPath(w io.Writer, path string, now time.Time) error {
	st, err := os.Stat(path)
	if err != nil {
		return onTheLine(err)
	}
	if !st.IsDir() {
		return showFile(w, path, now)
	}
	var names []string
	for _, glob := range []string{"*.key", "*.keys", "*.sealed", certificateFile + "*"} {
		more, err := filepath.Glob(filepath.Join(path, glob))
		if err != nil {
			return err
		}
		names = append(names, more...)
	}
	if len(names) == 0 {
		if st, err := os.Stat(filepath.Join(path, "keys")); err == nil && st.IsDir() {
			return showPath(w, filepath.Join(path, "keys"), now) // a node's folder
		}
		if _, err := os.ReadDir(path); err != nil {
			return err
		}
		return about(path, "no keys here: name a file, or the folder that the node's configuration has under keys")
	}
	var failed error
	for _, name := range names {
		failed = errors.Join(failed, showFile(w, name, now))
	}
	return failed
}

func showFile(w io.Writer, path string, now time.Time) error {
	text, err := readFile(path)
	if err != nil {
		return err
	}
	switch {
	case sealed.Is(text):
		f, err := sealed.Parse(text)
		if err != nil {
			return about(path, "%w", err)
		}
		fmt.Fprintf(w, "%s: sealed %s of %s (argon2id: %d passes over %d MiB)\n", path, f.Kind, f.Public, f.Cost.Time, f.Cost.Memory>>10)
	case isCertificate(text):
		cert, err := parseCertificate(text)
		if err != nil {
			return about(path, "%w", err)
		}
		state := fmt.Sprintf("%d days left", cert.NotAfter.Sub(now)/(24*time.Hour))
		if err := cert.Valid(now); err != nil {
			state = "NOT VALID NOW"
		}
		whose := "certificate"
		if cert.Relay {
			whose = "relay certificate"
		}
		fmt.Fprintf(w, "%s: %s of %v for signing key %v\n  network %v, %s to %s: %s\n", path, whose, cert.Identity, cert.SigningKey,
			cert.Network, moment(cert.NotBefore), moment(cert.NotAfter), state)
	default:
		return showKey(w, path)
	}
	return nil
}

func showKey(w io.Writer, path string) error {
	if k, err := relay.LoadKey[ed25519.PrivateKey](path); err == nil {
		if strings.HasPrefix(filepath.Base(path), "signing") {
			fmt.Fprintf(w, "%s: signing key %v\n", path, directory.SigningKey(idOf(k)))
		} else {
			fmt.Fprintf(w, "%s: identity %v\n", path, idOf(k))
		}
		return nil
	}
	k, err := relay.LoadKey[*ecdh.PrivateKey](path)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s: X25519 key %v\n", path, cell.Key(k.PublicKey().Bytes()))
	return nil
}

// For how long a signing key is certified if nobody says: an authority's, and a relay's.
const (
	usualDays      = 60
	usualRelayDays = 29
)

// certify makes a certificate that holds from a day ago, for others' clocks, for some days; 0: the usual.
func certify(id ed25519.PrivateKey, network cell.NetworkID, key directory.SigningKey, ofRelay bool, days int, now time.Time) (directory.Certificate, error) {
	if err := checkDays(days, ofRelay); err != nil {
		return directory.Certificate{}, err
	}
	switch {
	case days == 0 && ofRelay:
		days = usualRelayDays
	case days == 0:
		days = usualDays
	}
	now = now.UTC().Truncate(time.Second)
	return directory.Certificate{
		Relay: ofRelay, Network: network, SigningKey: key, NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(time.Duration(days) * 24 * time.Hour),
	}.Certify(id)
}

// checkDays says why a certificate cannot hold for some days; 0: the usual.
func checkDays(days int, ofRelay bool) error {
	c := directory.Certificate{Relay: ofRelay}
	most := int(c.MaxLife()/(24*time.Hour)) - 1
	if days < 0 || days > most {
		return &usageError{fmt.Errorf("--days %d: must be 1 to %d", days, most)}
	}
	return nil
}

func keysCertify() *cobra.Command {
	var phrase passphrase
	var identity, network, key, out string
	var days int
	var ofRelay bool
	c := &cobra.Command{
		Use: "certify --identity FILE --network FILE --signing-key KEY", Short: "Certify a signing key with an identity", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := conf.LoadNetwork(network)
			if err != nil {
				return inUse(err)
			}
			k, err := cell.ParseKey(key)
			if err != nil {
				return &usageError{fmt.Errorf("--signing-key: %w", err)}
			}
			id, err := loadIdentity(identity, &phrase, c)
			if err != nil {
				return err
			}
			if _, ok := n.Authority(idOf(id)); !ok && !ofRelay {
				return fmt.Errorf("%v is not among the authorities of %s: the certificate would count for nothing (--relay certifies a relay's key)", idOf(id), network)
			}
			cert, err := certify(id, n.ID(), directory.SigningKey(k), ofRelay, days, time.Now())
			if err != nil {
				return err
			}
			if out == "" {
				_, err = c.OutOrStdout().Write(cert.Append(nil))
				return err
			}
			return putNew(out, cert.Append(nil))
		},
	}
	f := c.Flags()
	f.StringVar(&identity, "identity", "", "the identity's `file`, sealed or not")
	f.StringVar(&network, "network", "network.toml", "the network `file`")
	f.StringVar(&key, "signing-key", "", "the public half of the `key`, as peel keys rotate printed it")
	f.IntVar(&days, "days", 0, "how long the certificate holds (default: 60 days of an authority's, 29 of a relay's)")
	f.BoolVar(&ofRelay, "relay", false, "certify a relay's signing key, not an authority's")
	f.StringVar(&out, "out", "", "the `file` to write it to (default: printed)")
	required(c, "identity", "signing-key")
	phrase.flags(c)
	return c
}

func required(c *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err) // cannot be: the flag was just added
		}
	}
}

func keysExport() *cobra.Command {
	var phrase passphrase
	var out string
	c := &cobra.Command{
		Use: "export FILE --out FILE", Short: "Seal an identity that lies unprotected, or seal one anew", Args: cobra.ExactArgs(1),
		Long: "Writes the identity of a file, sealed under a passphrase, to another file. The first is left as it is: erase it when the\nother is where it belongs. A file that is sealed already is opened with $PEEL_OLD_PASSPHRASE or on the terminal.",
		RunE: func(c *cobra.Command, args []string) error {
			id, err := loadIdentity(args[0], &passphrase{env: "PEEL_OLD_PASSPHRASE"}, c)
			if err != nil {
				return err
			}
			if err := checkNew(out); err != nil {
				return err
			}
			p, err := phrase.get("the identity in "+out, true, c)
			if err != nil {
				return err
			}
			defer clear(p)
			if err := sealIdentity(out, id, p); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "identity %v in %s; %s is still there: erase it when that one is safe\n", idOf(id), out, args[0])
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", "", "the new `file`")
	required(c, "out")
	phrase.flags(c)
	return c
}

func keysBackup() *cobra.Command {
	var phrase passphrase
	var out string
	c := &cobra.Command{
		Use: "backup FOLDER --out FILE", Short: "Seal the keys and certificates of a folder in one file, but keys that a node makes anew by itself", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			keys, err := folderKeys(args[0])
			if err != nil {
				return err
			}
			public := "unnamed"
			for _, k := range keys {
				id, ok := identityIn(k)
				if ok && public != "unnamed" && public != id.String() {
					return about(args[0], "%s is of %v, but others there are of %s: a backup is of one node; move away what is another's", k.name, id, public)
				}
				if ok {
					public = id.String()
				}
			}
			if len(keys) == 0 {
				if _, err := os.ReadDir(args[0]); err != nil {
					return onTheLine(err)
				}
				return about(args[0], "no keys here")
			}
			if err := checkNew(out); err != nil {
				return err
			}
			p, err := phrase.get("the backup in "+out, true, c)
			if err != nil {
				return err
			}
			defer clear(p)
			secret, err := pack(keys)
			if err != nil {
				return err
			}
			defer clear(secret)
			text, err := sealed.Seal(kindKeys, public, secret, p, sealed.Usual)
			if err != nil {
				return err
			}
			if err := putNew(out, text); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s in %s; peel keys import brings them back\n", inWords(keys), out)
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", "", "the new `file`")
	required(c, "out")
	phrase.flags(c)
	return c
}

func keysImport() *cobra.Command {
	var phrase passphrase
	var config, dir string
	c := &cobra.Command{
		Use: "import FILE (--config FILE | --keys FOLDER)", Short: "Put a certificate, or the keys of a backup, into a key folder", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var network *directory.Network
			if config != "" {
				n, err := signedNodeOf(config)
				if err != nil {
					return err
				}
				network, dir = n.network, n.keys
			}
			if dir == "" {
				return &usageError{errors.New("say where to: --config of an authority or a relay, or --keys FOLDER")}
			}
			text, err := readFile(args[0])
			if err != nil {
				return onTheLine(err)
			}
			if sealed.Is(text) {
				return restore(c, args[0], dir, &phrase)
			}
			return importCertificate(c.OutOrStdout(), text, args[0], dir, network, time.Now())
		},
	}
	c.Flags().StringVarP(&config, "config", "c", "", "the authority's or relay's configuration `file`")
	c.Flags().StringVar(&dir, "keys", "", "the key `folder`")
	c.MarkFlagsMutuallyExclusive("config", "keys")
	phrase.flags(c)
	return c
}

// importCertificate puts a certificate beside its signing key.
func importCertificate(w io.Writer, text []byte, from, dir string, n *directory.Network, now time.Time) error {
	cert, err := parseCertificate(text)
	if err != nil {
		return about(from, "neither a certificate nor a sealed file: %w", err)
	}
	if n != nil && cert.Network != n.ID() {
		return fmt.Errorf("%s is for network %v, this is %v: certify for this one", from, cert.Network, n.ID())
	}
	if err := cert.Valid(now); err != nil {
		return about(from, "%w", err)
	}
	keys, err := filepath.Glob(filepath.Join(dir, "signing*.key"))
	if err != nil {
		return err
	}
	for _, path := range keys {
		k, err := relay.LoadKey[ed25519.PrivateKey](path)
		if err != nil {
			return err
		}
		if directory.SigningKey(idOf(k)) != cert.SigningKey {
			continue
		}
		name := filepath.Join(dir, certificateFile+"-"+short(cert.SigningKey))
		if err := cache.WriteFile(name, text); err != nil {
			return err
		}
		fmt.Fprintf(w, "%s: holds until %s\n", name, moment(cert.NotAfter))
		return nil
	}
	return fmt.Errorf("%s is for signing key %v, which is not in %s: peel keys rotate makes one there", from, cert.SigningKey, dir)
}

// ofRelay says whether keys are those of a relay, whose identity is among them or has certified one of them. Its onion keys live for days
// only, and are not in a backup.
func ofRelay(keys []namedKey) bool {
	has := func(prefix string) bool {
		return slices.ContainsFunc(keys, func(k namedKey) bool { return strings.HasPrefix(k.name, prefix) })
	}
	certified := slices.ContainsFunc(keys, func(k namedKey) bool {
		text, _ := k.key.(certificateText)
		cert, err := parseCertificate(text)
		return err == nil && cert.Relay
	})
	return has(linkFile) && (certified || has(identityFile) && !has("signing"))
}

// inWords counts keys and certificates.
func inWords(keys []namedKey) string {
	certs := 0
	for _, k := range keys {
		if _, ok := k.key.(certificateText); ok {
			certs++
		}
	}
	switch certs {
	case 0:
		return fmt.Sprintf("%d keys", len(keys))
	case 1:
		return fmt.Sprintf("%d keys and a certificate", len(keys)-1)
	}
	return fmt.Sprintf("%d keys and %d certificates", len(keys)-certs, certs)
}

// restore puts the keys of a sealed file into a folder that has none of them.
func restore(c *cobra.Command, from, dir string, p *passphrase) error {
	keys, err := openSealed(from, "", p, c)
	if err != nil {
		return err
	}
	if err := putKeys(dir, keys); err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "%s put into %s\n", inWords(keys), dir)
	return nil
}
