package authority

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"

	"peel/directory"
	"peel/directory/cache"
)

// Paths of what authorities ask of each other, and relays of them (spec/voting.md, section 3). A
// time stands in them as in documents.
const (
	pathDescriptor = "/peel/descriptor"  // POST
	pathVote       = "/peel/vote"        // POST; GET …/<valid-after>/<authority>[/<digest>]
	pathVotes      = "/peel/votes/"      // GET …<valid-after>: which are held
	pathSignature  = "/peel/signature"   // POST
	pathSignatures = "/peel/signatures/" // GET …<valid-after>
	pathStatus     = "/peel/status"      // GET
	pathRelay      = "/peel/relay/"      // GET …<identity>: what is known of a relay, for its operator
	pathEvidence   = "/peel/evidence"    // GET; …/<kind>/<authority>
)

// maxSignatures bounds an answer with all signatures of a period, in bytes.
const maxSignatures = 8 * directory.MaxHeader

// headerTop is the first line of a header.
const headerTop = "peel-consensus 1\n"

// peer is another authority, and how to ask it.
type peer struct {
	info directory.AuthorityInfo
	dial func(context.Context, directory.AuthorityInfo) (net.Conn, error)
}

func (p *peer) get(ctx context.Context, path string, limit int) ([]byte, error) {
	return cache.Get(ctx, p.stream, path, limit)
}

func (p *peer) post(ctx context.Context, path string, document []byte) error {
	return cache.Post(ctx, p.stream, path, document)
}

func (p *peer) stream(ctx context.Context) (net.Conn, error) { return p.dial(ctx, p.info) }

// final are the answers after which it is of no use to try again.
var final = []int{http.StatusBadRequest, http.StatusForbidden, http.StatusRequestEntityTooLarge}

// send posts a document. It says whether it is of no use to try again.
func (a *Authority) send(ctx context.Context, p *peer, path string, text []byte) (err error, stop bool) {
	err = p.post(ctx, path, text)
	var status *cache.StatusError
	if errors.As(err, &status) && slices.Contains(final, status.Code) {
		a.log.Warn("another authority refuses what we send", "authority", p.info.Nickname, "path", path, "why", err)
		return err, true
	}
	return err, false
}
