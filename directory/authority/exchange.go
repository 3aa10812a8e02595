package authority

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

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

// each does something with all other authorities at once, and waits.
func (a *Authority) each(do func(*peer)) {
	var wg sync.WaitGroup
	for _, p := range a.peers {
		wg.Go(func() { do(p) })
	}
	wg.Wait()
}

// final are the answers after which it is of no use to try again.
var final = []int{http.StatusBadRequest, http.StatusForbidden, http.StatusRequestEntityTooLarge}

// send posts a document until it is taken or refused for good.
func (a *Authority) send(ctx context.Context, p *peer, path string, text []byte, length time.Duration) {
	retry(ctx, length, func(ctx context.Context) bool {
		err := p.post(ctx, path, text)
		var status *cache.StatusError
		if errors.As(err, &status) && slices.Contains(final, status.Code) {
			a.log.Warn("another authority refuses what we send", "authority", p.info.Nickname, "path", path, "why", err)
			return true
		}
		if err != nil {
			a.log.Debug("not sent", "authority", p.info.Nickname, "path", path, "why", err)
		}
		return err == nil
	})
}

// retry calls f until it returns true or ctx ends, in a phase of the length given: each call may take
// half of it, and the pauses grow from a 32nd to a quarter.
func retry(ctx context.Context, length time.Duration, f func(context.Context) bool) {
	for pause := length / 32; ; pause = min(2*pause, length/4) {
		fctx, cancel := context.WithTimeout(ctx, length/2)
		done := f(fctx)
		cancel()
		if done || !sleep(ctx, pause) {
			return
		}
	}
}

// poll calls f again and again until ctx ends: after a call that returned true in a whole pause, else
// in a quarter of one.
func poll(ctx context.Context, length, pause time.Duration, f func(context.Context) bool) {
	for {
		fctx, cancel := context.WithTimeout(ctx, length/2)
		wait := pause
		if !f(fctx) {
			wait /= 4
		}
		cancel()
		if !sleep(ctx, wait) {
			return
		}
	}
}

// sleep waits, and returns false if ctx ended before it was over.
func sleep(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
