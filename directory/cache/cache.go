// Package cache fetches the consensus over any stream, keeps the newest that verifies, in memory and
// in a folder, and hands it out to others: whole, as the difference from an earlier one, or a few
// entries with proofs. (spec/directory.md, sections 9 to 11)
package cache

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"peel/directory"
)

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
	Past    int64        // bytes of past consensuses, compressed, kept for diffs to hand out; 0: none, as a client has it
	Log     *slog.Logger // nil: no log

	Now    func() time.Time                  // what the clock says that people have; nil: time.Now
	Write  func(name string, b []byte) error // replaces a file as a whole; nil: WriteFile
	Chance func(n uint64) uint64             // draws a number below n, by which Follow spreads what it asks; nil: rand.Uint64N
}

// Cache keeps the newest consensus of a network. What does not verify never gets in. Its methods may
// be called from any goroutine.
type Cache struct {
	cfg  Config
	kept atomic.Pointer[kept]
	past *past // nil: none
}

// kept is a consensus that verified. Its texts are made when they are first handed out, so that who
// hands out nothing holds none.
type kept struct {
	consensus  *directory.Consensus
	digest     directory.Digest
	etag       string
	text       func() []byte
	gzip       func() []byte
	header     func() []byte // the header and its signatures
	headerGzip func() []byte
	tree       func() (*directory.Tree, error)
	before     *kept // the one whose place it took, where they are handed out; that has none
}

// New makes a cache and loads what an earlier one kept in the folder, if that is still of use. It
// fails when the folder cannot be made.
func New(cfg Config) (*Cache, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Write == nil {
		cfg.Write = WriteFile
	}
	if cfg.Chance == nil {
		cfg.Chance = rand.Uint64N
	}
	c := &Cache{cfg: cfg}
	var err error
	if cfg.Past > 0 {
		if c.past, err = newPast(cfg); err != nil {
			return nil, err
		}
	}
	if cfg.Dir == "" {
		return c, nil
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	text, err := ReadFile(filepath.Join(cfg.Dir, fileName), directory.MaxConsensus)
	if err == nil {
		_, err = c.put(text, cfg.Now())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		cfg.Log.Info("the consensus kept from last time is of no use", "why", err)
	}
	return c, nil
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
	if note, err = cons.SignedHeader.Usable(c.cfg.Network, now); err != nil {
		return nil, "", err
	}
	return cons, note, nil
}

// Put parses and verifies a consensus and keeps it, if it is newer than the one here: then it
// returns true. If it is the one here already, there is no error either. Otherwise the one here
// stays, and the error says what is wrong with the new one.
func (c *Cache) Put(text []byte, now time.Time) (bool, error) {
	changed, err := c.put(text, now)
	if changed {
		c.save(text)
	}
	return changed, err
}

func (c *Cache) put(text []byte, now time.Time) (bool, error) {
	cons, err := directory.ParseConsensus(text)
	if err != nil {
		return false, err
	}
	return c.take(cons, now)
}

// save keeps the text of the newest consensus for the next start.
func (c *Cache) save(text []byte) {
	if c.cfg.Dir == "" {
		return
	}
	if err := c.cfg.Write(filepath.Join(c.cfg.Dir, fileName), text); err != nil {
		c.cfg.Log.Warn("the consensus could not be kept for the next start", "why", err)
	}
}

// take keeps a consensus whose entries are those under its root, if it verifies and is newer.
func (c *Cache) take(cons *directory.Consensus, now time.Time) (bool, error) {
	if _, err := cons.SignedHeader.Usable(c.cfg.Network, now); err != nil {
		return false, err
	}
	k := keep(cons)
	for {
		old := c.kept.Load()
		if old != nil {
			switch was := old.consensus.ValidAfter; {
			case k.digest == old.digest:
				return false, nil
			case cons.ValidAfter.Equal(was):
				return false, ErrSplit
			case cons.ValidAfter.Before(was):
				return false, ErrOld
			}
		}
		if old != nil && c.past != nil {
			before := *old
			before.before = nil
			k.before = &before
		}
		if c.kept.CompareAndSwap(old, k) {
			if c.past != nil {
				c.past.add(k)
			}
			return true, nil
		}
	}
}

func keep(cons *directory.Consensus) *kept {
	k := &kept{consensus: cons, digest: cons.Header.Digest()}
	k.etag = `"` + k.digest.String() + `"`
	k.text = sync.OnceValue(func() []byte { return cons.Append(nil) })
	k.gzip = sync.OnceValue(func() []byte { return compress(cons.Append(nil)) })
	k.header = sync.OnceValue(func() []byte { return cons.SignedHeader.Append(nil) })
	k.headerGzip = sync.OnceValue(func() []byte { return compress(k.header()) })
	k.tree = sync.OnceValues(func() (*directory.Tree, error) { return directory.NewTree(cons) })
	return k
}

func compress(text []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(text) // to memory: cannot fail
	z.Close()
	return b.Bytes()
}
