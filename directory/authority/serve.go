package authority

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/cache"
)

// Limits of what is read for others at a time; who comes when all places for votes are taken, or loses one of the others, is sent away
// with 503 (spec/voting.md, section 7).
const (
	smallRequests = 64 // descriptors and signatures
	largeRequests = 4  // votes, beside one of each other authority
	readTimeout   = 30 * time.Second
)

// ServeHTTP answers relays, clients and other authorities. Documents are public and carry their
// signatures, so it asks nobody who they are; but a vote of an authority finds a place (whileVote).
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

func (a *Authority) routes() *http.ServeMux {
	m := http.NewServeMux()
	m.Handle(cache.Path, a.cache)
	m.Handle(cache.Path+"/", a.cache)
	m.Handle(PathReach, TryFor(a.cfg.Reach, a.mayTry, justNot))
	m.HandleFunc("POST "+pathDescriptor, take(a.small.whileRead, directory.MaxDescriptor, a.postDescriptor))
	m.HandleFunc("POST "+pathVote, a.telling(a.whileVoting(take(a.whileVote, directory.MaxVote, a.postVote))))
	m.HandleFunc("POST "+pathSignature, take(a.small.whileRead, directory.MaxHeader, a.postSignature))
	m.HandleFunc("GET "+pathVotes+"{after}", a.getList)
	m.HandleFunc("GET "+pathVote+"/{after}/{authority}", a.getHeldVote)
	m.HandleFunc("GET "+pathVote+"/{after}/{authority}/{digest}", a.getHeldVote)
	m.HandleFunc("GET "+pathSignatures+"{after}", a.getSigned)
	m.HandleFunc("GET "+pathStatus, a.getStatus)
	m.HandleFunc("GET "+pathRelay+"{relay}", a.getRelay)
	m.HandleFunc("GET "+pathEvidence, a.getEvidence)
	m.HandleFunc("GET "+pathEvidence+"/{kind}/{authority}", a.getProof)
	return m
}

// A place is where a request is read and dealt with.
type place struct {
	leave func()      // nil: there was none
	lost  func() bool // says whether it went to another
}

// whileLarge takes a place for something large.
func (a *Authority) whileLarge(http.ResponseWriter, *http.Request) place { return placeIn(a.large) }

// whileVote takes a place for a vote: of another authority, as its link key says, its own if that is free, so that nobody else keeps it out.
func (a *Authority) whileVote(w http.ResponseWriter, r *http.Request) place {
	if own := a.voting[CallerOf(r).Key]; own != nil {
		if mine := placeIn(own); mine.leave != nil {
			return mine
		}
	}
	return a.whileLarge(w, r)
}

// placeIn takes a place that nobody takes from it.
func placeIn(all chan struct{}) place {
	select {
	case all <- struct{}{}:
		return place{func() { <-all }, func() bool { return false }}
	default:
		return place{}
	}
}

// take reads a body of at most limit bytes in one of the places, and answers with what do returns.
func take(enter func(http.ResponseWriter, *http.Request) place, limit int64, do func([]byte) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > limit {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		// Where the connection has no deadlines, its own end bounds the time.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
		mine := enter(w, r)
		if mine.leave == nil {
			busy(w)
			return
		}
		defer mine.leave()
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
		if err != nil {
			var large *http.MaxBytesError
			if errors.As(err, &large) {
				http.Error(w, "too large", http.StatusRequestEntityTooLarge)
				return
			}
			if mine.lost() {
				busy(w)
				return
			}
			http.Error(w, "the body ended early", http.StatusBadRequest)
			return
		}
		if err := do(body); err != nil {
			answer(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// answer tells a client of an error: a refusal with its own status, any other as the client's fault.
func answer(w http.ResponseWriter, err error) {
	var r *refusal
	if errors.As(err, &r) {
		http.Error(w, r.reason, r.status)
		return
	}
	http.Error(w, err.Error(), http.StatusBadRequest)
}

func (a *Authority) postDescriptor(text []byte) error {
	d, news, err := a.store.take(text, a.now())
	if news {
		a.tryAgain()
		if marks, rules := a.store.lists.Load().marks(d); marks != 0 && a.tellOnce(d.ID) {
			a.tellMarked(d, marks, rules)
		}
	}
	var r *refusal
	if errors.As(err, &r) && r.rule != nil {
		a.tellRefused(d.ID, d.Nickname, err)
	}
	return err
}

// telling has the log say that a vote was refused which another authority sent, as its link key says: of each once a period, so that none fills it.
func (a *Authority) telling(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := &heard{ResponseWriter: w}
		next(h, r)
		key := CallerOf(r).Key
		for _, p := range a.peers {
			if h.status < 400 || h.status == http.StatusServiceUnavailable || p.info.LinkKey != key {
				continue
			}
			a.mu.Lock()
			round := a.voter.round
			told := round.told[key]
			round.told[key] = true
			a.mu.Unlock()
			if !told {
				a.log.Warn("a vote is refused", "from", p.info.Nickname, "valid-after", stamp(round.period.ValidAfter), "why", directory.Said(h.text, 300))
			}
		}
	}
}

// heard notes what a handler answers.
type heard struct {
	http.ResponseWriter
	status int
	text   string // the first piece of it
}

func (h *heard) WriteHeader(status int) {
	h.status = status
	h.ResponseWriter.WriteHeader(status)
}

func (h *heard) Write(b []byte) (int, error) {
	if h.text == "" {
		h.text = string(b)
	}
	return h.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (h *heard) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// whileVoting refuses votes that come too late, before their long bodies are read.
func (a *Authority) whileVoting(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := a.late(); err != nil {
			answer(w, err)
			return
		}
		next(w, r)
	}
}

func (a *Authority) late() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.voter.refuseVote(a.now(), a.voter.round.period.ValidAfter)
}

func (a *Authority) postVote(text []byte) error {
	v, err := directory.ParseVote(text)
	if err != nil {
		return err
	}
	if err := v.Verify(a.cfg.Network); err != nil {
		return refuse(http.StatusForbidden, "%v", err)
	}
	a.mu.Lock()
	err = a.voter.refuseVote(a.now(), v.ValidAfter) // it may be late now that all of it is here
	a.mu.Unlock()
	if err != nil {
		return err
	}
	if err := a.feed(gotVote{0, v, text}); err != nil {
		return refuse(http.StatusInternalServerError, "not kept")
	}
	return nil
}

func (a *Authority) postSignature(text []byte) error {
	err := a.takeSigned(text)
	var r *refusal
	if err != nil && !errors.As(err, &r) {
		return refuse(http.StatusForbidden, "%v", err)
	}
	return err
}

// asked returns the round that a request's path names, or answers that there is none.
func (a *Authority) asked(w http.ResponseWriter, r *http.Request) *round {
	a.mu.Lock()
	round := a.voter.round
	a.mu.Unlock()
	if r.PathValue("after") != stamp(round.period.ValidAfter) {
		http.Error(w, stamp(round.period.ValidAfter)+" is being voted on", http.StatusNotFound)
		return nil
	}
	return round
}

func (a *Authority) getList(w http.ResponseWriter, r *http.Request) {
	if round := a.asked(w, r); round != nil {
		a.mu.Lock()
		text := round.list()
		a.mu.Unlock()
		writeText(w, text)
	}
}

func (a *Authority) getHeldVote(w http.ResponseWriter, r *http.Request) {
	round := a.asked(w, r)
	if round == nil {
		return
	}
	id, err := cell.ParseNodeID(r.PathValue("authority"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	held := round.votes[id]
	a.mu.Unlock()
	for _, h := range held {
		if d := r.PathValue("digest"); d == "" || d == h.digest.String() {
			writeText(w, h.text)
			return
		}
	}
	http.Error(w, "no such vote", http.StatusNotFound)
}

func (a *Authority) getSigned(w http.ResponseWriter, r *http.Request) {
	round := a.asked(w, r)
	if round == nil {
		return
	}
	var text []byte
	a.mu.Lock()
	for _, s := range round.allSigned() {
		text = s.Append(text)
	}
	a.mu.Unlock()
	writeText(w, text)
}

func (a *Authority) getStatus(w http.ResponseWriter, _ *http.Request) { writeJSON(w, a.Status()) }

func (a *Authority) getEvidence(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	list := a.voter.accused()
	a.mu.Unlock()
	writeJSON(w, list)
}

// getRelay tells the operator of a relay what we know of it.
func (a *Authority) getRelay(w http.ResponseWriter, r *http.Request) {
	id, err := cell.ParseNodeID(r.PathValue("relay"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeText(w, []byte(a.store.knows(id, a.now())+"\n"))
}

// getProof hands out the two documents that an authority should not have signed.
func (a *Authority) getProof(w http.ResponseWriter, r *http.Request) {
	id, err := cell.ParseNodeID(r.PathValue("authority"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	kind := r.PathValue("kind")
	a.mu.Lock()
	_, ok := a.voter.evidence[evidenceKey{id, kind}]
	a.mu.Unlock()
	if !ok {
		http.Error(w, "no such evidence", http.StatusNotFound)
		return
	}
	mine := a.whileLarge(w, r) // it may be as large as two votes
	if mine.leave == nil {
		busy(w)
		return
	}
	defer mine.leave()
	proof, err := a.keep.load(evidenceName(kind, id))
	if err != nil || proof == nil {
		a.log.Error("evidence cannot be read", "why", err)
		http.Error(w, "it cannot be read", http.StatusInternalServerError)
		return
	}
	writeText(w, proof)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // fails only with the connection
}

func busy(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "busy: try again", http.StatusServiceUnavailable)
}

func writeText(w http.ResponseWriter, text []byte) {
	w.Header().Set("Content-Type", "text/plain; charset=us-ascii")
	_, _ = w.Write(text) // fails only with the connection
}
