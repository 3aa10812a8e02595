package cache

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"peel/cell"
	"peel/directory"
)

// Paths of what a directory hands out (spec/directory.md, section 9).
const (
	Path       = "/peel/consensus"         // the whole
	pathHeader = "/peel/consensus/header"  // the header and its signatures
	pathDiff   = "/peel/consensus/diff/"   // …<base>: from that one to the newest
	pathRelays = "/peel/consensus/relays/" // …<consensus>/<relay>+<relay>…: their entries with proofs
)

// ServeHTTP hands out the consensus in all its forms to GET or HEAD, compressed if that is accepted.
func (c *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	k := c.kept.Load()
	path := r.URL.Path
	known := path == Path || path == pathHeader
	base, isDiff := strings.CutPrefix(path, pathDiff)
	relays, isRelays := strings.CutPrefix(path, pathRelays)
	switch {
	case !known && !isDiff && !isRelays:
		http.Error(w, "no such document", http.StatusNotFound)
	case k == nil:
		http.Error(w, "no consensus yet", http.StatusNotFound)
	case isRelays:
		k.serveRelays(w, r, relays)
	case r.Header.Get("If-None-Match") == k.etag:
		w.Header().Set("Etag", k.etag)
		w.WriteHeader(http.StatusNotModified)
	case isDiff:
		c.serveDiff(w, r, k, base)
	case path == pathHeader:
		w.Header().Set("Etag", k.etag)
		hand(w, r, k.header, k.headerGzip)
	default:
		w.Header().Set("Etag", k.etag)
		hand(w, r, k.text, k.gzip)
	}
}

func (c *Cache) serveDiff(w http.ResponseWriter, r *http.Request, k *kept, base string) {
	d, err := directory.ParseDigest(base)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !acceptsGzip(r) { // to have its text made for each who asks would cost more time and memory than the request counts for
		http.Error(w, "diffs are handed out as gzip: accept that, or take the whole", http.StatusNotAcceptable)
		return
	}
	if c.past == nil || d == k.digest {
		http.Error(w, "no diff from there", http.StatusNotFound)
		return
	}
	z, err := c.past.diff(r.Context(), d, k)
	switch {
	case err == nil:
		w.Header().Set("Etag", k.etag)
		w.Header().Set("Content-Encoding", "gzip")
		write(w, r, z)
	case errors.Is(err, errNoBase):
		http.Error(w, "no diff from there", http.StatusNotFound)
	case errors.Is(err, context.Canceled):
	default:
		c.cfg.Log.Warn("a diff could not be made", "why", err)
		http.Error(w, "no diff now: take the whole", http.StatusNotFound)
	}
}

// serveRelays answers for the newest consensus and the one before.
func (k *kept) serveRelays(w http.ResponseWriter, r *http.Request, rest string) {
	digest, list, _ := strings.Cut(rest, "/")
	words := strings.Split(list, "+")
	if len(words) > directory.MaxAsked {
		http.Error(w, "at most "+strconv.Itoa(directory.MaxAsked)+" relays at a time", http.StatusBadRequest)
		return
	}
	ids := make([]cell.NodeID, len(words))
	for i, word := range words {
		var err error
		if ids[i], err = cell.ParseNodeID(word); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	if k.digest.String() != digest {
		if k = k.before; k == nil || k.digest.String() != digest {
			http.Error(w, "no such consensus here", http.StatusNotFound)
			return
		}
	}
	t, err := k.tree()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	asText(w)
	if r.Method == http.MethodGet {
		_ = t.WriteProof(w, ids...) // fails only with the connection
	}
}

// hand answers with a text as it is, or compressed if that is accepted. All who are sent one at a time share its bytes, as who
// reads slowly has them held for long.
func hand(w http.ResponseWriter, r *http.Request, text, z func() []byte) {
	if acceptsGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
		text = z
	}
	write(w, r, text())
}

func asText(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Vary", "Accept-Encoding")
	h.Set("Content-Type", "text/plain; charset=us-ascii")
}

func write(w http.ResponseWriter, r *http.Request, b []byte) {
	asText(w)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(b) // fails only with the connection
	}
}

// acceptsGzip reads Accept-Encoding: gzip counts unless its quality is 0.
func acceptsGzip(r *http.Request) bool {
	for word := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, quality, _ := strings.Cut(strings.ReplaceAll(word, " ", ""), ";q=")
		if name == "gzip" {
			q, err := strconv.ParseFloat(quality, 64)
			return quality == "" || err == nil && q > 0
		}
	}
	return false
}
