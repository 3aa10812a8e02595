package relay

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"peel/cell"
	"peel/directory/cache"
)

const (
	// onionLife is for how long an onion key is published; for as long again it is honoured (spec/relay.md, section 9).
	onionLife = 7 * 24 * time.Hour

	onionLook  = time.Hour      // between two looks, at most: a machine that slept does not notice otherwise
	onionAhead = 24 * time.Hour // a key made later than this from now was made by a wrong clock
)

// onionKeys are the onion keys of a relay at one time.
type onionKeys struct {
	current  *ecdh.PrivateKey
	previous *ecdh.PrivateKey // nil: none
	since    time.Time        // when current was made
}

// at returns the keys for a time, and whether they are others: then fresh made one of them.
func (o onionKeys) at(now time.Time, fresh func() (*ecdh.PrivateKey, error)) (onionKeys, bool, error) {
	age := now.Sub(o.since)
	if age < onionLife && age > -onionAhead {
		return o, false, nil
	}
	k, err := fresh()
	if err != nil {
		return o, false, fmt.Errorf("relay: onion key: %w", err)
	}
	next := onionKeys{current: k, previous: o.current, since: now.UTC().Truncate(time.Second)}
	if age >= 2*onionLife {
		next.previous = nil // the relay was away: no directory in use names it
	}
	return next, true, nil
}

// wait is how long from now these keys are to be kept, at most onionLook.
func (o onionKeys) wait(now time.Time) time.Duration {
	return max(time.Second, min(o.since.Add(onionLife).Sub(now), onionLook))
}

func newOnionKey() (*ecdh.PrivateKey, error) { return ecdh.X25519().GenerateKey(rand.Reader) }

// newOnion makes an onion key; in a laboratory, from what that gives.
func (r *Relay) newOnion() (*ecdh.PrivateKey, error) {
	if r.onionLuck == nil {
		return newOnionKey()
	}
	b := make([]byte, 32)
	r.onionLuck.Read(b) // it never fails
	return ecdh.X25519().NewPrivateKey(b)
}

// onionText is what stands before each key in its file.
const onionText = "made 2006-01-02T15:04:05Z\n"

// encode writes the file of the keys: when the current one was made, it, and the one before.
func (o onionKeys) encode() ([]byte, error) {
	b := []byte(o.since.UTC().Format(onionText))
	for _, k := range []*ecdh.PrivateKey{o.current, o.previous} {
		if k == nil {
			continue
		}
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return nil, err
		}
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
		clear(der)
	}
	return b, nil
}

// parseOnionKeys reads what encode wrote, and nothing else.
func parseOnionKeys(text []byte) (onionKeys, error) {
	var o onionKeys
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	var err error
	if o.since, err = time.Parse(strings.TrimSuffix(onionText, "\n"), string(line)); err != nil {
		return onionKeys{}, errors.New("it does not begin with when it was made")
	}
	for i, k := range []**ecdh.PrivateKey{&o.current, &o.previous} {
		if i == 1 && len(rest) == 0 {
			break
		}
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return onionKeys{}, errors.New("a key is missing or cut off")
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		clear(block.Bytes)
		if err != nil {
			return onionKeys{}, err
		}
		x, ok := key.(*ecdh.PrivateKey)
		if !ok || x.Curve() != ecdh.X25519() {
			return onionKeys{}, fmt.Errorf("a key of another kind (%T) than X25519", key)
		}
		*k = x
	}
	again, err := o.encode()
	if err == nil && !bytes.Equal(again, text) {
		err = errors.New("it is not written as it should be")
	}
	clear(again)
	if err != nil {
		return onionKeys{}, err
	}
	return o, nil
}

// saveOnion replaces the file of the keys: a crash at any moment leaves the old or the new one. What the old one held is overwritten,
// as far as the file system does so.
func saveOnion(write func(string, []byte) error, dir string, o onionKeys) error {
	text, err := o.encode()
	if err != nil {
		return err
	}
	defer clear(text)
	path := filepath.Join(dir, onionFile)
	var old *os.File
	if runtime.GOOS != "windows" { // there, an open file cannot be replaced
		if old, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
			old = nil
		}
	}
	err = write(path, text)
	if old != nil {
		if st, e := old.Stat(); e == nil && err == nil {
			old.WriteAt(make([]byte, st.Size()), 0)
			old.Sync()
		}
		old.Close()
	}
	if err != nil {
		return fmt.Errorf("relay: onion keys: %w", err)
	}
	return nil
}

// SaveOnionKey writes a new onion key into a folder of keys that has none: that of a relay whose other keys come from a backup.
func SaveOnionKey(dir string) error {
	path := filepath.Join(dir, onionFile)
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("relay: key file %s: %w", path, os.ErrExist)
	}
	k, err := newOnionKey()
	if err != nil {
		return fmt.Errorf("relay: onion key: %w", err)
	}
	return saveOnion(cache.WriteFile, dir, onionKeys{current: k, since: time.Now().UTC().Truncate(time.Second)})
}

// honoured are the onion keys that a relay answers for now.
type honoured struct {
	onionKeys
	keys     []onionKey    // the current one first
	replaced chan struct{} // closed when others take their place
}

// honour makes keys those that the relay answers for.
func (r *Relay) honour(o onionKeys) {
	h := &honoured{onionKeys: o, replaced: make(chan struct{})}
	for _, k := range []*ecdh.PrivateKey{o.current, o.previous} {
		if k != nil {
			h.keys = append(h.keys, onionKey{cell.Key(k.PublicKey().Bytes()).ID(), k})
		}
	}
	if was := r.onion.Swap(h); was != nil {
		close(was.replaced)
	}
}

// turnOnion gives the relay the onion keys for a time. New ones are on the disk before anybody hears of them.
func (r *Relay) turnOnion(now time.Time) error {
	next, changed, err := r.onion.Load().at(now, r.newOnion)
	if err != nil || !changed {
		return err
	}
	if r.cfg.KeyDir != "" {
		if err := saveOnion(r.write, r.cfg.KeyDir, next); err != nil {
			return err
		}
	}
	r.honour(next)
	r.log.Info("a new onion key; the one before is honoured for 7 days more")
	return nil
}

// keepOnion turns the onion keys when it is time, until ctx ends.
func (r *Relay) keepOnion(ctx context.Context) {
	for {
		err := errPanic
		r.guard("onion keys", func() { err = r.turnOnion(r.cfg.Now()) })
		wait := onionLook
		if err != nil {
			r.log.Error("no new onion key: the old ones stay in use, longer than they should", "why", err)
		} else {
			wait = r.onion.Load().wait(r.cfg.Now())
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// OnionKeys says when the onion key in use was made, when the next one is due, and whether the one before is honoured still.
func (r *Relay) OnionKeys() (made, next time.Time, previous bool) {
	o := r.onion.Load()
	return o.since, o.since.Add(onionLife), o.previous != nil
}
