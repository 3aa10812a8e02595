package authority

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/cache"
)

// traitor is a dishonest authority with good keys: it tells one half of the others one thing and the
// other half another, and signs every header it hears of.
type traitor struct {
	w *world
	i int
}

func (x *traitor) dial(to int) cache.Dial {
	return func(ctx context.Context) (net.Conn, error) {
		return x.w.dial(ctx, x.i, x.w.net.Network.Authorities[to].ID)
	}
}

// post sends something to another authority until it is taken or refused.
func (x *traitor) post(ctx context.Context, to int, path string, body []byte) {
	retry(ctx, time.Minute, func(ctx context.Context) bool {
		err := cache.Post(ctx, x.dial(to), path, body)
		var status *cache.StatusError
		return err == nil || errors.As(err, &status)
	})
}

// others are all authorities but it.
func (x *traitor) others(do func(to int)) {
	var wg sync.WaitGroup
	for i := range x.w.nodes {
		if i != x.i {
			wg.Go(func() { do(i) })
		}
	}
	wg.Wait()
}

// run betrays the period whose consensus is due at after, the votes as late as it is told.
func (x *traitor) run(ctx context.Context, after time.Time, votesAt time.Time) {
	if !sleep(ctx, time.Until(votesAt)) {
		return
	}
	var votes [2][]byte
	for half := range votes {
		_, votes[half] = x.w.vote(x.i, after, func(v *directory.Vote) {
			v.Params = directory.Params{"half": int32(half)}
			v.Relays = v.Relays[half*len(v.Relays)/2:]
		})
	}
	sctx, cancel := context.WithTimeout(ctx, time.Until(after))
	defer cancel()
	x.others(func(to int) {
		x.post(sctx, to, pathVote, votes[to%2])
		sleep(sctx, time.Until(after.Add(-3*time.Minute)))
		signed := map[directory.Digest]bool{}
		poll(sctx, time.Minute, 20*time.Second, func(ctx context.Context) bool {
			text, err := cache.Get(ctx, x.dial(to), pathSignatures+stamp(after), maxSignatures)
			for _, part := range split(text, headerTop) {
				s, err := directory.ParseSignedHeader(part)
				if err != nil || signed[s.Header.Digest()] {
					continue
				}
				signed[s.Header.Digest()] = true
				sig, err := s.Header.Sign(x.w.net.Authorities[x.i].Certificate, x.w.net.Authorities[x.i].Signing)
				if err != nil {
					x.w.t.Error(err)
					continue
				}
				s.Signatures = nil
				s.Add(sig)
				x.others(func(to int) { x.post(ctx, to, pathSignature, s.Append(nil)) })
			}
			return err == nil
		})
	})
}

// Two votes of one authority are found out; neither counts, and the others agree.
func TestEquivocatingAuthority(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.nodes[4].crash()
		x := &traitor{w, 4}
		x.run(t.Context(), hour(1), minute(50.5))
		sleepUntil(hour(1))
		if n := w.agreed(hour(1)); n != 4 {
			t.Fatalf("%d of 4 honest authorities have a consensus", n)
		}
		c := w.nodes[0].auth.Consensus() // before it is restarted
		for _, n := range w.nodes[:4] {
			s := n.auth.Status()
			if !slices.Equal(s.Before.Equivocated, []string{"authority5"}) || len(s.Before.Votes) != 4 {
				t.Errorf("authority %d counted votes of %v, found out %v", n.i, s.Before.Votes, s.Before.Equivocated)
			}
			if len(s.Evidence) != 1 || s.Evidence[0].Kind != "votes" || s.Evidence[0].Authority != "authority5" {
				t.Errorf("evidence %+v", s.Evidence)
			}
			n.wantProof(t, directory.TwoVotes, 4, hour(1))
			n.crash()
			n.start()
			n.wantProof(t, directory.TwoVotes, 4, hour(1))
		}
		if len(c.Entries) != 12 || c.Params["half"] != 0 {
			t.Errorf("%d relays and parameters %v: a vote of the dishonest one counted", len(c.Entries), c.Params)
		}
		w.checkSafety(4)
	})
}

// wantProof fails unless an authority hands out a proof against the i-th that convinces anybody.
func (n *node) wantProof(t *testing.T, kind string, i int, after time.Time) {
	t.Helper()
	info := n.w.net.Authorities[i].Info
	code, list := n.do("GET", pathEvidence, nil)
	if code != http.StatusOK || !strings.Contains(list, info.ID.String()) || !strings.Contains(list, kind) {
		t.Errorf("authority %d lists as evidence: %d %s", n.i, code, list)
	}
	code, proof := n.do("GET", pathEvidence+"/"+kind+"/"+info.ID.String(), nil)
	if code != http.StatusOK {
		t.Errorf("authority %d has no proof: %d %s", n.i, code, proof)
		return
	}
	id, period, err := directory.CheckEvidence(n.w.net.Network, kind, []byte(proof))
	if err != nil || id != info.ID || !period.Equal(after) {
		t.Errorf("the evidence proves nothing: %v, %v, %v", id, period, err)
	}
}

// Two headers of one authority are evidence as well.
func TestAuthorityThatSignsTwoHeaders(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		sleepUntil(minute(58))
		w.nodes[0].auth.mu.Lock()
		r := w.nodes[0].auth.voter.round
		w.nodes[0].auth.mu.Unlock()
		h := r.result.Header
		h.Params = directory.Params{"other": 1}
		sig, err := h.Sign(w.net.Authorities[4].Certificate, w.net.Authorities[4].Signing)
		if err != nil {
			t.Fatal(err)
		}
		s := directory.SignedHeader{Header: h, Signatures: []directory.Signature{sig}}
		if code, text := w.nodes[0].do("POST", pathSignature, s.Append(nil)); code != http.StatusNoContent {
			t.Fatalf("%d %s", code, text)
		}
		w.wantAgreed(hour(1), 5)
		for _, n := range w.nodes[:4] {
			s := n.auth.Status()
			if len(s.Evidence) != 1 || s.Evidence[0].Kind != "headers" || !slices.Equal(s.Before.Differ, []string{"authority5"}) {
				t.Errorf("authority %d: evidence %+v, differ %v", n.i, s.Evidence, s.Before.Differ)
			}
			n.wantProof(t, directory.TwoHeaders, 4, hour(1))
			if code, _ := n.do("GET", pathEvidence+"/votes/"+w.net.Authorities[4].Info.ID.String(), nil); code != http.StatusNotFound {
				t.Errorf("evidence of another kind: %d", code)
			}
		}
	})
}

func TestSignaturesThatAreRefused(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		sleepUntil(minute(58))
		a := w.nodes[0].auth
		a.mu.Lock()
		good := a.voter.last
		a.mu.Unlock()
		broken := good.SignedHeader
		broken.Relays++ // what was signed is another header
		later := good.SignedHeader
		later.ValidAfter = hour(1).Add(time.Minute)
		other := good.SignedHeader
		other.Network = cell.NetworkID{1}
		for _, c := range []struct {
			name string
			text []byte
			code int
		}{
			{"empty", nil, http.StatusForbidden},
			{"cut off", good.text[:len(good.text)-1], http.StatusForbidden},
			{"over another header", broken.Append(nil), http.StatusForbidden},
			{"for another period", later.Append(nil), http.StatusConflict},
			{"of another network", other.Append(nil), http.StatusForbidden},
			{"above the limit", make([]byte, directory.MaxHeader+1), http.StatusRequestEntityTooLarge},
			{"sent twice", good.text, http.StatusNoContent},
		} {
			if code, text := w.nodes[1].do("POST", pathSignature, c.text); code != c.code {
				t.Errorf("a signature %s: %d %s, want %d", c.name, code, text, c.code)
			}
		}
		if s := w.nodes[1].auth.Status(); len(s.Evidence) != 0 || len(s.Differ) != 0 {
			t.Errorf("an honest authority was accused: %+v", s)
		}
	})
}

// An answer with signatures that comes when its period is over was slow, and nothing is wrong with it: the log says so, and of which period they are.
func TestSignaturesThatComeTooLateAreCalledLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 5, 12)
		var log strings.Builder
		w.nodes[1].cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		sleepUntil(minute(58))
		a, b := w.nodes[0].auth, w.nodes[1].auth
		a.mu.Lock()
		good := a.voter.last
		a.mu.Unlock()
		cut := good.text[:len(good.text)-1]
		sleepUntil(minute(61))
		synctest.Wait() // it says nothing else now
		log.Reset()
		if b.takeSignatures(b.peers[0], good.text) == nil {
			t.Error("a late one was taken")
		}
		if s := log.String(); strings.Contains(s, "malformed") || !strings.Contains(s, "signature for 2000-01-01T01:00:00Z came too late") {
			t.Errorf("of a late one: %s", s)
		}
		log.Reset()
		if b.takeSignatures(b.peers[0], cut) == nil {
			t.Error("one that is cut off was taken")
		}
		if s := log.String(); !strings.Contains(s, "malformed") || strings.Contains(s, "late") {
			t.Errorf("of one that is cut off: %s", s)
		}
	})
}

// One dishonest authority that signs whatever each half signed still has too few signatures for
// either (spec/voting.md, section 8).
func TestSplitViewIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 5, 6)
		for half, signers := range [][]int{{0, 1, 4}, {2, 3, 4}} {
			c := *w.net.Consensus
			c.Entries = c.Entries[half : 5+half]
			c.Relays, c.Root, c.Signatures = len(c.Entries), directory.Root(c.Entries), nil
			for _, i := range signers {
				sig, err := c.Header.Sign(w.net.Authorities[i].Certificate, w.net.Authorities[i].Signing)
				if err != nil {
					t.Fatal(err)
				}
				c.Add(sig)
			}
			err := c.Verify(w.net.Network, hour(1))
			var s *directory.SignaturesError
			if !errors.As(err, &s) || s.Have != 3 || s.Need != 4 {
				t.Errorf("half %d: %v, want 3 good signatures of 4", half, err)
			}
		}
	})
}

var schedules = flag.Int("schedules", 0, "random schedules of faults to run over HTTP; 0: 4 in the quick test, 32 with PEEL_SLOW=1; -schedule runs one alone")
var schedule = flag.Int("schedule", -1, "the number of the only random schedule to run")

// Whatever is delayed, lost or crashes, and whatever one dishonest authority says: no authority signs
// twice for a period, and no two headers can have enough signatures. With at most one authority of
// five faulty and links that lose at most a quarter of the requests there is a consensus. This is
// TestRandomSchedules over HTTP, and some hundred times slower.
func TestRandomFaults(t *testing.T) {
	first, last := 0, 4
	if slow() {
		last = 32
	}
	if *schedules > 0 {
		last = *schedules
	}
	if *schedule >= 0 {
		first, last = *schedule, *schedule+1
	}
	var mu sync.Mutex
	var calm, published int
	t.Run("schedules", func(t *testing.T) {
		for part := range 2 {
			t.Run(fmt.Sprint(part), func(t *testing.T) {
				t.Parallel()
				for n := first + part; n < last; n += 2 {
					synctest.Test(t, func(t *testing.T) {
						c, p := randomFaults(t, n)
						mu.Lock()
						defer mu.Unlock()
						calm, published = calm+c, published+p
					})
					if t.Failed() {
						t.Fatalf("schedule %d: repeat it with -schedule=%d", n, n)
					}
				}
			})
		}
	})
	t.Logf("schedules %d to %d: %d periods with at most one fault, %d consensuses", first, last-1, calm, published)
	if published*1000 < calm*999 {
		t.Errorf("%d of %d periods with at most one fault have a consensus", published, calm)
	}
}

// randomFaults runs one schedule over two periods. It returns how many of them had at most one faulty
// authority and fair links, and how many of those had a consensus.
func randomFaults(t *testing.T, seed int) (calm, published int) {
	rng := rand.New(rand.NewPCG(uint64(seed), 42))
	w := newWorld(t, uint64(seed%4), 5, 3)
	loss := []float64{0, 0.1, 0.25, 0.5, 0.8}[rng.IntN(5)]
	slow := []time.Duration{10 * time.Millisecond, time.Second, 10 * time.Second, time.Minute}[rng.IntN(4)]
	var mu sync.Mutex
	links := rand.New(rand.NewPCG(uint64(seed), 43))
	w.link = func(int, int) (time.Duration, bool) {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(links.Int64N(int64(slow))), links.Float64() < loss
	}
	for _, n := range w.nodes {
		n.skew = time.Duration(rng.IntN(21)-10) * time.Second
	}
	sleepUntil(minute(30))
	w.startAll()
	defer w.stopAll()
	w.publishAll()

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	faulty := rng.IntN(4) // how many crash, or one of them betrays
	crashes := faulty
	var dishonest []int
	if faulty > 0 && rng.IntN(2) == 0 {
		w.nodes[4].crash()
		dishonest = []int{4}
		x := &traitor{w, 4}
		lates := [2]time.Duration{}
		for i := range lates {
			lates[i] = time.Duration(rng.Int64N(int64(4 * time.Minute)))
		}
		wg.Go(func() {
			for i, late := range lates {
				x.run(ctx, hour(i+1), hour(i+1).Add(-10*time.Minute+late))
			}
		})
		crashes--
	}
	for i := range crashes {
		for period := range 2 {
			down := hour(period).Add(45*time.Minute + time.Duration(rng.Int64N(int64(16*time.Minute))))
			up := down.Add(time.Duration(rng.Int64N(int64(8 * time.Minute))))
			wg.Go(func() {
				if sleep(ctx, time.Until(down)) {
					w.nodes[i].crash()
				}
				if sleep(ctx, time.Until(up)) {
					w.nodes[i].start()
				}
			})
		}
	}
	for period := range 2 {
		sleepUntil(hour(period + 1).Add(12 * time.Minute))
		n := w.agreed(hour(period + 1))
		w.checkSafety(dishonest...)
		if faulty <= 1 && loss <= 0.25 && slow <= 10*time.Second {
			calm++
			if n > 0 {
				published++
			} else {
				t.Logf("schedule %d: no consensus in period %d: loss %v, delay %v, faulty %d, dishonest %v", seed, period+1, loss, slow, faulty, dishonest)
			}
		}
	}
	return calm, published
}
