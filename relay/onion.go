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

// A witness is what a relay knows of its current onion key besides what its clock says.
type witness struct {
	sure    bool          // there is a directory that may be used now: so the clock is right
	named   bool          // and that names the key, however long ago it seems to have been made
	ran     time.Duration // for how long this run has had the key
	unaware time.Duration // and for how long it was not sure meanwhile, lately
}

// at returns the keys for a time, and whether they are to be written: the current one is another, which fresh made, or its time counts
// anew. A clock that nothing bears out is taken for wrong, and ends no key, until that is so for a week.
func (o onionKeys) at(now time.Time, w witness, fresh func() (*ecdh.PrivateKey, error)) (onionKeys, bool, error) {
	age := now.Sub(o.since)
	switch {
	case !w.sure && w.unaware < onionLife, w.sure && age > -onionAhead && age < onionLife:
		return o, false, nil
	case w.sure && age <= -onionAhead && w.ran < onionLife: // made by a wrong clock
		o.since = now.Add(-w.ran).UTC().Truncate(time.Second)
		return o, true, nil
	}
	k, err := fresh()
	if err != nil {
		return o, false, fmt.Errorf("relay: onion key: %w", err)
	}
	next := onionKeys{current: k, previous: o.current, since: now.UTC().Truncate(time.Second)}
	if !w.sure || age >= 2*onionLife && !w.named {
		next.previous = nil // the relay was away, or alone: no directory in use names it
	}
	return next, true, nil
}

// wait is how long from now these keys are to be kept, at most onionLook.
func (o onionKeys) wait(now time.Time) time.Duration {
	left := o.since.Add(onionLife).Sub(now)
	if left <= 0 { // they would be others, were the clock borne out
		return onionLook
	}
	return max(time.Second, min(left, onionLook))
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
	had      time.Time     // since when this run has the current one, by a clock that nobody sets
	sure     time.Time     // when the clock was last borne out since then, or had; guarded by turning
	replaced chan struct{} // closed when others take their place
}

// honour makes keys those that the relay answers for.
func (r *Relay) honour(o onionKeys) {
	h := &honoured{onionKeys: o, had: time.Now(), replaced: make(chan struct{})}
	h.sure = h.had
	for _, k := range []*ecdh.PrivateKey{o.current, o.previous} {
		if k != nil {
			h.keys = append(h.keys, onionKey{cell.Key(k.PublicKey().Bytes()).ID(), k})
		}
	}
	was := r.onion.Load()
	if was != nil && was.current == o.current {
		h.had, h.sure = was.had, was.sure
	}
	r.onion.Store(h)
	if was != nil {
		close(was.replaced)
	}
}

// witness is what there is to know of the current onion key at a time. The caller holds turning.
func (r *Relay) witness(now time.Time) (w witness) {
	h := r.onion.Load()
	if c, _, err := r.cache.Usable(now); err == nil {
		e, ok := c.Lookup(r.id)
		w.sure, w.named = true, ok && e.OnionKey.ID() == h.keys[0].id
		h.sure = time.Now()
	}
	w.ran, w.unaware = time.Since(h.had), time.Since(h.sure)
	return w
}

// turnOnion gives the relay the onion keys for a time. New ones are on the disk before anybody hears of them.
func (r *Relay) turnOnion(now time.Time, w witness) error {
	was := r.onion.Load()
	next, changed, err := was.at(now, w, r.newOnion)
	if err != nil || !changed {
		return err
	}
	if r.cfg.KeyDir != "" {
		if err := saveOnion(r.write, r.cfg.KeyDir, next); err != nil {
			return err
		}
	}
	r.honour(next)
	switch {
	case next.current == was.current:
		r.log.Info("the onion key was made by a clock that was far ahead: it stays, and its time counts from now")
	case next.previous == nil:
		r.log.Info("a new onion key; no directory names the one before")
	default:
		r.log.Info("a new onion key; the one before is honoured for 7 days more")
	}
	return nil
}

// lookAtOnion turns the onion keys if it is time, and says how long they may be left alone then.
func (r *Relay) lookAtOnion() time.Duration {
	r.turning.Lock()
	defer r.turning.Unlock()
	err := errPanic
	r.guard("onion keys", func() {
		now := r.cfg.Now()
		err = r.turnOnion(now, r.witness(now))
	})
	if err != nil {
		r.log.Error("no new onion key: the old ones stay in use, longer than they should", "why", err)
		return onionLook
	}
	return r.onion.Load().wait(r.cfg.Now())
}

// keepOnion turns the onion keys when it is time, until ctx ends.
func (r *Relay) keepOnion(ctx context.Context) {
	for {
		t := time.NewTimer(r.lookAtOnion())
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
