package relay

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// What a request to the directory counts for: a proof of some relays takes as long as its path, and a document that is sent as it is long, which is
// read and verified.
const (
	askPath = 64      // bytes of a path that count for one
	askBody = 1 << 10 // bytes of a body, of these
	askMost = 32      // what one request counts for at most
)

// asks bound the requests to the directory that come by one circuit: a stream may carry any number of them.
type asks struct {
	of *opening

	mu      sync.Mutex
	portion portion // guarded by mu
}

// asking is what bounds the circuit, which needs it from its first such stream on. Called by the link's reader.
func (t *transit) asking() *asks {
	if t.asks == nil {
		t.asks = &asks{of: t.relay.asking}
		if v := &t.relay.voters; v.by(t.prev.Conn()) {
			t.asks.of = v.asking
		}
	}
	return t.asks
}

// may says whether so much more may be asked for: both own and shared.
func (a *asks) may(now time.Time, n float64) bool { return a.own(now, n) && a.shared(now, n) }

// own says whether the circuit may ask for so much more, whatever others do.
func (a *asks) own(now time.Time, n float64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.portion.own(now, n, &ofAsks)
}

// shared says whether there is so much more for it.
func (a *asks) shared(now time.Time, n float64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.portion.shared(now, n, &ofAsks, a.of)
}

// asksKey is of what bounds a request's circuit, in its context.
type asksKey struct{}

// counts is what a request counts for.
func counts(r *http.Request) float64 {
	n := 1 + int64(len(r.RequestURI)/askPath)
	if r.ContentLength < 0 {
		return askMost
	}
	return float64(min(n+r.ContentLength/askBody, askMost))
}

// metered answers what is too much with 503, counts it, and ends the stream: for the next the circuit has to ask again.
func metered(h http.Handler, refused *atomic.Uint64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if by, ok := r.Context().Value(asksKey{}).(*asks); ok && !by.may(time.Now(), counts(r)) {
			refused.Add(1)
			_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // the web server would wait for the rest of a body
			w.Header().Set("Retry-After", "10")
			w.Header().Set("Connection", "close")
			http.Error(w, "busy: too many requests; try again", http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	})
}
