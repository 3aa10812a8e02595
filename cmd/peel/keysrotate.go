package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"peel/directory"
	"peel/relay"
)

func keysRotate() *cobra.Command {
	var phrase passphrase
	var config, identity string
	var days int
	c := &cobra.Command{
		Use: "rotate --config FILE", Short: "Make the next signing key of an authority, or of a relay whose identity is elsewhere", Args: cobra.NoArgs,
		Long: `Makes the next signing key, beside the one in use, and certifies it if the identity is given. The node takes it up when it
starts or by peel reload. The old one counts until its certificate ends. A relay that has its identity in its key folder signs with
that, and needs no signing key.`,
		RunE: func(c *cobra.Command, _ []string) error {
			n, err := signedNodeOf(config)
			if err != nil {
				return err
			}
			return rotate(c, config, &n, identity, days, &phrase)
		},
	}
	configFlag(c, &config)
	c.Flags().StringVar(&identity, "identity", "", "the identity's `file`, sealed or not (default: say what to run where it is)")
	c.Flags().IntVar(&days, "days", 0, "how long the certificate holds (default: 60 days of an authority's, 29 of a relay's)")
	phrase.flags(c)
	return c
}

func rotate(c *cobra.Command, config string, n *signedNode, identity string, days int, phrase *passphrase) error {
	if err := checkDays(days, n.relay); err != nil {
		return err
	}
	own, err := n.identity()
	if err != nil {
		return err
	}
	if own != nil && identity == "" {
		return n.needsNoKey(config)
	}
	var id ed25519.PrivateKey
	if identity != "" {
		var err error
		if id, err = loadIdentity(identity, phrase, c); err != nil {
			return err
		}
		if err := n.takes(idOf(id)); err != nil {
			return err
		}
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	k := directory.SigningKey(pub)
	var cert directory.Certificate
	if id != nil {
		if cert, err = certify(id, n.network.ID(), k, n.relay, days, time.Now()); err != nil {
			return err
		}
	}
	if err := relay.SaveKey(filepath.Join(n.keys, "signing-"+short(k)+".key"), key); err != nil {
		return err
	}
	out := c.OutOrStdout()
	if id == nil {
		options := ""
		if n.relay {
			options = " --relay"
		}
		if days != 0 {
			options += fmt.Sprintf(" --days %d", days)
		}
		fmt.Fprintf(out, `made signing key %[1]v. Where the identity is, run

  peel keys certify --identity identity.sealed --network network.toml --signing-key %[1]v%[2]s --out certificate-%[3]s

bring the certificate here, and run

  peel keys import --config %[4]s certificate-%[3]s
  peel reload --config %[4]s
`, k, options, short(k), config)
		return nil
	}
	if err := putNew(filepath.Join(n.keys, certificateFile+"-"+short(k)), cert.Append(nil)); err != nil {
		return err
	}
	fmt.Fprintf(out, "signing key %v, certified until %s\n", k, moment(cert.NotAfter))
	if own != nil && n.relay {
		fmt.Fprintf(out, "the relay signs with it once %s is out of its folder, in a place that is safe, and it starts anew\n", filepath.Join(n.keys, identityFile))
		return nil
	}
	fmt.Fprintf(out, "the node takes it up when it starts, or now by: peel reload --config %s\n", config)
	return nil
}

// needsNoKey says why a signing key without a certificate is of no use to a node that has its identity, and what to do instead.
func (n *signedNode) needsNoKey(config string) error {
	at := filepath.Join(n.keys, identityFile)
	if n.relay {
		return fmt.Errorf("nothing was made: the identity of this relay lies in %s, and signs by itself: there is no signing key to renew. To move it away, run\n\n"+
			"  peel keys export %[1]s --out identity.sealed\n  peel keys rotate --config %s --identity identity.sealed\n\n"+
			"then take %[1]s and identity.sealed out of this machine, and start the relay anew", at, config)
	}
	return fmt.Errorf("nothing was made: the identity of this authority lies in %s, and certifies signing keys by itself before they end. To have a new one now, run\n\n"+
		"  peel keys rotate --config %s --identity %[1]s", at, config)
}
