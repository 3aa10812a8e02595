// Package cache fetches the consensus over any stream, keeps the newest that verifies, in memory and
// in a folder, and hands it out to others. (spec/directory.md, section 9)
package cache

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"peel/directory"
)

// Path is where a directory hands out its consensus.
const Path = "/peel/consensus"

const fileName = "consensus"

// What Put refuses although it verifies.
var (
	ErrOld   = errors.New("cache: an older consensus than the one here")
	ErrSplit = errors.New("cache: another consensus for the same period as the one here, signed as well: too many authorities are dishonest")
	ErrNone  = errors.New("cache: no consensus yet")
)

// Config says what a Cache keeps.
type Config struct {
	Network *directory.Network
	Dir     string       // where the newest consensus is kept; "": in memory only
	Log     *slog.Logger // nil: no log
}

// Cache keeps the newest consensus of a network. What does not verify never gets in. Its methods may
// be called from any goroutine.
type Cache struct {
	cfg  Config
	kept atomic.Pointer[kept]
}

// kept is a consensus that verified. Its texts are made when they are first handed out, so that who
// hands out nothing holds none.
type kept struct {
	consensus *directory.Consensus
	etag      string
	text      func() []byte
	gzip      func() []byte
}

// New makes a cache and loads what an earlier one kept in the folder, if that is still of use. It
// fails when the folder cannot be made.
func New(cfg Config) (*Cache, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{cfg: cfg}
	if cfg.Dir == "" {
		return c, nil
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	sweep(cfg.Dir)
	text, err := load(filepath.Join(cfg.Dir, fileName))
	if err == nil {
		_, err = c.take(text, time.Now())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		cfg.Log.Info("the consensus kept from last time is of no use", "why", err)
	}
	return c, nil
}

func load(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > directory.MaxConsensus {
		return nil, fmt.Errorf("cache: %s: %d bytes, but at most %d are allowed", name, info.Size(), directory.MaxConsensus)
	}
	return os.ReadFile(name)
}

// sweep removes what a crash in the middle of a write left behind.
func sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, "."+fileName+"*"))
	for _, name := range left {
		os.Remove(name)
	}
}

// Consensus returns the newest consensus, or nil. It verified when it came, but may have expired
// since: see Usable. It must not be changed.
func (c *Cache) Consensus() *directory.Consensus {
	if k := c.kept.Load(); k != nil {
		return k.consensus
	}
	return nil
}

// Usable returns the newest consensus if it may be used now, with a sentence to show when it has
// expired; else an error.
func (c *Cache) Usable(now time.Time) (cons *directory.Consensus, note string, err error) {
	if cons = c.Consensus(); cons == nil {
		return nil, "", ErrNone
	}
	if note, err = cons.Usable(c.cfg.Network, now); err != nil {
		return nil, "", err
	}
	return cons, note, nil
}

// Put parses and verifies a consensus and keeps it, if it is newer than the one here: then it
// returns true. If it is the one here already, there is no error either. Otherwise the one here
// stays, and the error says what is wrong with the new one.
func (c *Cache) Put(text []byte, now time.Time) (bool, error) {
	changed, err := c.take(text, now)
	if changed && c.cfg.Dir != "" {
		if err := WriteFile(filepath.Join(c.cfg.Dir, fileName), text); err != nil {
			c.cfg.Log.Warn("the consensus could not be kept for the next start", "why", err)
		}
	}
	return changed, err
}

func (c *Cache) take(text []byte, now time.Time) (bool, error) {
	cons, err := directory.ParseConsensus(text)
	if err != nil {
		return false, err
	}
	if _, err := cons.Usable(c.cfg.Network, now); err != nil {
		return false, err
	}
	k := keep(cons)
	for {
		old := c.kept.Load()
		if old != nil {
			switch was := old.consensus.ValidAfter; {
			case k.etag == old.etag:
				return false, nil
			case cons.ValidAfter.Equal(was):
				return false, ErrSplit
			case cons.ValidAfter.Before(was):
				return false, ErrOld
			}
		}
		if c.kept.CompareAndSwap(old, k) {
			return true, nil
		}
	}
}

func keep(cons *directory.Consensus) *kept {
	k := &kept{consensus: cons, etag: `"` + cons.Header.Digest().String() + `"`}
	k.text = sync.OnceValue(func() []byte { return cons.Append(nil) })
	k.gzip = sync.OnceValue(func() []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(k.text()) // to memory: cannot fail
		z.Close()
		return b.Bytes()
	})
	return k
}

// Fetch asks a directory for its consensus and Puts it. It returns whether that changed the one here.
func (c *Cache) Fetch(ctx context.Context, dial Dial) (bool, error) {
	etag := ""
	if k := c.kept.Load(); k != nil {
		etag = k.etag
	}
	a, err := do(ctx, dial, http.MethodGet, Path, etag, nil, directory.MaxConsensus)
	if err != nil {
		return false, err
	}
	switch {
	case a.code == http.StatusNotModified && etag != "":
		return false, nil
	case a.code != http.StatusOK:
		return false, &StatusError{Path: Path, Code: a.code, Text: message(a.body)}
	}
	changed, err := c.Put(a.body, time.Now())
	if err != nil {
		return false, fmt.Errorf("cache: from a directory: %w", err)
	}
	return changed, nil
}

// How long Follow waits after a failure: from the first, doubled up to the last.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Follow keeps the consensus fresh until ctx ends: it fetches when there is none, and at a moment of
// its own in the first quarter of the period in which a newer one is due; after a failure again,
// soon and then less often. It calls got, if not nil, with the consensus here at the start (if it
// may still be used) and with each newer one, and failed, if not nil, with each error; both from its
// own goroutine.
func (c *Cache) Follow(ctx context.Context, dial Dial, got func(*directory.Consensus), failed func(error)) {
	if cons, note, err := c.Usable(time.Now()); err == nil {
		if note != "" {
			c.cfg.Log.Warn(note)
		}
		if got != nil {
			got(cons)
		}
	}
	period := c.cfg.Network.WithDefaults().Period
	last := min(lastRetry, period/4)
	retry := min(firstRetry, last)
	for {
		wait := jitter(retry)
		if cons := c.Consensus(); cons != nil && time.Now().Before(cons.FreshUntil) {
			wait = time.Until(cons.FreshUntil) + rand.N(period/4)
			retry = min(firstRetry, last)
		} else {
			changed, err := c.Fetch(ctx, dial)
			if ctx.Err() != nil {
				return
			}
			if err != nil && failed != nil {
				failed(err)
			}
			if changed {
				if got != nil {
					got(c.Consensus())
				}
				continue
			}
			retry = min(2*retry, last)
			if c.Consensus() == nil { // the next may well be the first there is
				wait = min(wait, time.Until(c.cfg.Network.Schedule.Next(time.Now()))+rand.N(period/20))
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// jitter returns a moment in the second half of d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// ServeHTTP hands out the consensus: GET or HEAD of Path, compressed if that is accepted.
func (c *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != Path {
		http.Error(w, "no such document", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	k := c.kept.Load()
	if k == nil {
		http.Error(w, "no consensus yet", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Etag", k.etag)
	h.Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == k.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "text/plain; charset=us-ascii")
	body := k.text
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		body = k.gzip
	}
	b := body()
	h.Set("Content-Length", strconv.Itoa(len(b)))
	if r.Method == http.MethodGet {
		w.Write(b)
	}
}

// acceptsGzip reads Accept-Encoding: gzip counts unless its quality is 0.
func acceptsGzip(accept string) bool {
	for word := range strings.SplitSeq(accept, ",") {
		name, quality, _ := strings.Cut(strings.ReplaceAll(word, " ", ""), ";q=")
		if name == "gzip" {
			q, err := strconv.ParseFloat(quality, 64)
			return quality == "" || err == nil && q > 0
		}
	}
	return false
}
