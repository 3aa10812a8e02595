package cache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"peel/cell"
	"peel/directory"
)

// ErrStale says that a directory has nothing newer than what is here, though there should be.
var ErrStale = errors.New("cache: the directory has no newer consensus than the one here")

// Fetch asks a directory for its consensus and keeps it as Put does: with one in hand for what has
// changed since, and for the whole if the directory cannot say or says it wrong. It returns whether
// that changed the one here. Both requests together take no longer than Timeout.
func (c *Cache) Fetch(ctx context.Context, dial Dial) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	k := c.kept.Load()
	if k == nil {
		return c.fetchWhole(ctx, dial, "")
	}
	a, err := do(ctx, dial, http.MethodGet, pathDiff+k.digest.String(), k.etag, nil, directory.MaxConsensus)
	if err != nil {
		return false, err
	}
	switch a.code {
	case http.StatusNotModified:
		return false, nil
	case http.StatusOK:
		changed, err := c.advance(k, a.body)
		var at *directory.TimeError // which the whole has too
		if err == nil || errors.Is(err, ErrOld) || errors.Is(err, ErrSplit) || errors.As(err, &at) {
			return changed, named(err)
		}
		c.cfg.Log.Debug("a diff led nowhere; asking for the whole", "why", err)
	}
	a.body = nil
	return c.fetchWhole(ctx, dial, k.etag)
}

// advance keeps the consensus that a diff leads to from k.
func (c *Cache) advance(k *kept, text []byte) (bool, error) {
	d, err := directory.ParseDiff(text)
	if err != nil {
		return false, err
	}
	// The signatures first: they cost less than the relays.
	if _, err := d.SignedHeader.Usable(c.cfg.Network, c.cfg.Now()); err != nil {
		return false, err
	}
	cons, err := d.Apply(k.consensus)
	if err != nil {
		return false, err
	}
	changed, err := c.take(cons, c.cfg.Now())
	if changed && c.cfg.Dir != "" {
		c.save(cons.Append(nil))
	}
	return changed, err
}

func (c *Cache) fetchWhole(ctx context.Context, dial Dial, etag string) (bool, error) {
	a, err := do(ctx, dial, http.MethodGet, Path, etag, nil, directory.MaxConsensus)
	if err != nil {
		return false, err
	}
	switch {
	case a.code == http.StatusNotModified && etag != "":
		return false, nil
	case a.code != http.StatusOK:
		return false, &StatusError{Path: Path, Code: a.code, Text: said(a.body)}
	}
	changed, err := c.Put(a.body, c.cfg.Now())
	return changed, named(err)
}

// named says where what is wrong came from.
func named(err error) error {
	if err != nil {
		return fmt.Errorf("cache: from a directory: %w", err)
	}
	return nil
}

// Header fetches the header of a directory's consensus and its signatures, and verifies them: all
// that is needed to ask for single relays.
func Header(ctx context.Context, dial Dial, n *directory.Network) (*directory.SignedHeader, error) {
	text, err := Get(ctx, dial, pathHeader, directory.MaxHeader)
	if err != nil {
		return nil, err
	}
	h, err := directory.ParseSignedHeader(text)
	if err != nil {
		return nil, named(err)
	}
	if err := h.Verify(n, time.Now()); err != nil {
		return nil, named(err)
	}
	return h, nil
}

// Relays asks a directory for the entries of at most directory.MaxAsked relays of the consensus with
// that header, which must have been verified. A relay that the consensus does not list is nil; both
// are proved. The directory hears who is asked for.
func Relays(ctx context.Context, dial Dial, h *directory.Header, ids ...cell.NodeID) ([]*directory.Entry, error) {
	if len(ids) < 1 || len(ids) > directory.MaxAsked {
		return nil, fmt.Errorf("cache: %d relays asked for: 1 to %d can be", len(ids), directory.MaxAsked)
	}
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = id.String()
	}
	text, err := Get(ctx, dial, pathRelays+h.Digest().String()+"/"+strings.Join(words, "+"), directory.MaxProof)
	if err != nil {
		return nil, err
	}
	p, err := directory.ParseProof(text)
	if err == nil {
		err = p.Verify(h)
	}
	if err != nil {
		return nil, named(err)
	}
	entries := make([]*directory.Entry, len(ids))
	for i, id := range ids {
		if entries[i], err = p.Lookup(h, id); err != nil {
			return nil, named(err)
		}
	}
	return entries, nil
}
