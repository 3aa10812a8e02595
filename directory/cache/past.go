package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"peel/directory"
)

// What is kept for diffs, and of them (spec/directory.md, section 10; spec/queues.md).
const (
	pastFor   = 72 * time.Hour // before the newest consensus
	mostPast  = 4096           // consensuses, for networks of short periods
	mostDiffs = 16 << 20       // bytes, compressed, of diffs that were made
	diffsMade = 1              // at a time; others wait
)

// UsualPast is how many bytes of past consensuses a directory keeps in a folder, or in memory if
// that is "".
func UsualPast(dir string) int64 {
	if dir == "" {
		return 32 << 20
	}
	return 128 << 20
}

// errNoBase says that a diff begins or ends at a consensus that is not here.
var errNoBase = errors.New("cache: no such consensus here")

// past keeps the consensuses of the last days, compressed, and the diffs that somebody asked for, each
// made once for all who do.
type past struct {
	dir    string // "": in memory
	write  func(name string, b []byte) error
	limit  int64
	log    func(msg string, args ...any)
	making chan struct{} // a place for each diff that is being made

	mu    sync.Mutex // over all below
	items []item     // ascending by validAfter
	size  int64      // of the items
	diffs map[span]*diff
	order []span // of the diffs, as they were asked for first
	total int    // bytes of the diffs that are made
}

// item is one consensus.
type item struct {
	digest     directory.Digest
	validAfter time.Time
	size       int64
	gzip       []byte // nil: in its file
}

// span names a diff by its ends.
type span struct{ base, target directory.Digest }

// diff is one that is being made or, once done is closed, was.
type diff struct {
	done chan struct{}
	gzip []byte
	err  error
	made bool // under mu: its bytes count
}

const pastExt = ".gz"

func newPast(cfg Config) (*past, error) {
	p := &past{
		limit: cfg.Past, log: cfg.Log.Warn, write: cfg.Write, making: make(chan struct{}, diffsMade), diffs: make(map[span]*diff),
	}
	if cfg.Dir == "" {
		return p, nil
	}
	p.dir = filepath.Join(cfg.Dir, "past")
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	Sweep(p.dir)
	files, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	for _, f := range files {
		it, ok := parseName(f.Name())
		info, err := f.Info()
		if !ok || err != nil || !info.Mode().IsRegular() {
			continue
		}
		it.size = info.Size()
		p.items, p.size = append(p.items, it), p.size+it.size
	}
	slices.SortFunc(p.items, func(a, b item) int { return a.validAfter.Compare(b.validAfter) })
	p.trim()
	return p, nil
}

// name is that of an item's file: when it began to hold, in seconds, and its digest.
func (it *item) name() string {
	return fmt.Sprintf("%d-%s%s", it.validAfter.Unix(), it.digest, pastExt)
}

func parseName(name string) (it item, ok bool) {
	rest, ok := strings.CutSuffix(name, pastExt)
	at, digest, ok2 := strings.Cut(rest, "-")
	sec, err := strconv.ParseInt(at, 10, 64)
	d, err2 := directory.ParseDigest(digest)
	it = item{digest: d, validAfter: time.Unix(sec, 0).UTC()}
	return it, ok && ok2 && err == nil && err2 == nil && it.name() == name
}

// add keeps a consensus, the newest there is, and forgets what is too old or too much.
func (p *past) add(k *kept) {
	it := item{digest: k.digest, validAfter: k.consensus.ValidAfter, gzip: k.gzip()}
	it.size = int64(len(it.gzip))
	if p.dir != "" {
		if err := p.write(filepath.Join(p.dir, it.name()), it.gzip); err != nil {
			p.log("a consensus could not be kept for diffs", "why", err)
			return
		}
		it.gzip = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetOthers(k.digest)
	if slices.ContainsFunc(p.items, func(o item) bool { return o.digest == it.digest }) {
		return
	}
	at, _ := slices.BinarySearchFunc(p.items, it, func(a, b item) int { return a.validAfter.Compare(b.validAfter) })
	p.items, p.size = slices.Insert(p.items, at, it), p.size+it.size
	p.trim()
}

// trim drops the oldest until the bounds hold. The caller holds mu, or is the only one.
func (p *past) trim() {
	for len(p.items) > 0 {
		first, last := p.items[0], p.items[len(p.items)-1]
		if p.size <= p.limit && len(p.items) <= mostPast && last.validAfter.Sub(first.validAfter) <= pastFor {
			return
		}
		if p.dir != "" {
			os.Remove(filepath.Join(p.dir, first.name()))
		}
		p.items, p.size = p.items[1:], p.size-first.size
	}
}

// text returns that of a consensus, checked, or errNoBase.
func (p *past) text(d directory.Digest) ([]byte, error) {
	p.mu.Lock()
	i := slices.IndexFunc(p.items, func(it item) bool { return it.digest == d })
	if i < 0 {
		p.mu.Unlock()
		return nil, errNoBase
	}
	it := p.items[i]
	p.mu.Unlock()
	b := it.gzip
	if b == nil {
		var err error
		if b, err = ReadFile(filepath.Join(p.dir, it.name()), directory.MaxConsensus); err != nil {
			return nil, errNoBase
		}
	}
	text, err := gunzip(bytes.NewReader(b), directory.MaxConsensus)
	if err != nil {
		return nil, fmt.Errorf("cache: past consensus: %w", err)
	}
	c, err := directory.ParseConsensus(text)
	if err != nil {
		return nil, fmt.Errorf("cache: past consensus: %w", err)
	}
	if c.Header.Digest() != d {
		return nil, errNoBase
	}
	return text, nil
}

// diff returns the diff from a consensus to the newest, k, compressed. Whoever asks first makes it;
// others who ask meanwhile wait for that, and who asks later gets it while it is kept.
func (p *past) diff(ctx context.Context, base directory.Digest, k *kept) ([]byte, error) {
	s := span{base, k.digest}
	p.mu.Lock()
	d, found := p.diffs[s]
	if !found {
		if !slices.ContainsFunc(p.items, func(it item) bool { return it.digest == base }) {
			p.mu.Unlock()
			return nil, errNoBase
		}
		d = &diff{done: make(chan struct{})}
		p.diffs[s] = d
		p.order = append(p.order, s)
	}
	p.mu.Unlock()
	if !found {
		p.make(s, d, k)
	}
	select {
	case <-d.done:
		return d.gzip, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// make makes a diff; it does so even if the one who asked has gone, for those who wait. One that is
// hardly shorter than the whole is not worth its making, and is remembered as none.
func (p *past) make(s span, d *diff, k *kept) {
	d.err = errors.New("cache: the diff could not be made")
	defer func() { // also in a panic, so that nobody waits for ever
		p.mu.Lock()
		defer p.mu.Unlock()
		p.account(s, d)
		close(d.done)
	}()
	p.making <- struct{}{}
	defer func() { <-p.making }()
	base, err := p.text(s.base)
	if err != nil {
		d.err = err
		return
	}
	text, err := directory.MakeDiff(base, k.consensus.Append(nil))
	if err != nil {
		d.err = err
		return
	}
	if d.gzip, d.err = compress(text), nil; len(d.gzip) > len(k.gzip())/10*9 {
		d.gzip, d.err = nil, errNoBase
	}
}

// account counts the bytes of a diff that was made, and drops others if they are too many now. The
// caller holds mu.
func (p *past) account(s span, d *diff) {
	d.made = true
	p.total += len(d.gzip)
	if d.err != nil && d.err != errNoBase || p.diffs[s] != d {
		p.forget(s, d)
	}
	for i := 0; i < len(p.order) && p.total > mostDiffs; {
		if o := p.order[i]; o != s && p.diffs[o].made {
			p.forget(o, p.diffs[o])
		} else {
			i++
		}
	}
}

// forget drops a diff. The caller holds mu.
func (p *past) forget(s span, d *diff) {
	p.total -= len(d.gzip)
	if p.diffs[s] == d {
		delete(p.diffs, s)
		p.order = slices.DeleteFunc(p.order, func(o span) bool { return o == s })
	}
}

// forgetOthers drops the diffs to what is the newest no more. The caller holds mu.
func (p *past) forgetOthers(newest directory.Digest) {
	p.order = slices.DeleteFunc(p.order, func(s span) bool {
		d := p.diffs[s]
		if s.target == newest {
			return false
		}
		if d.made {
			p.total -= len(d.gzip)
		}
		delete(p.diffs, s)
		return true
	})
}
