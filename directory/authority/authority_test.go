package authority

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

func hour(n int) time.Time { return epoch.Add(time.Duration(n) * time.Hour) }

// minute is a moment of the first hour: votes are sent from 50, fetched from 53:20, signed from 56:40.
func minute(m float64) time.Time { return epoch.Add(time.Duration(m * float64(time.Minute))) }

func sleepUntil(t time.Time) {
	time.Sleep(time.Until(t))
	synctest.Wait()
}

// inWorld runs a test in a world of authorities that have the descriptors of 12 relays.
func inWorld(t *testing.T, authorities int, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, authorities, 12)
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		f(t, w)
	})
}

func (w *world) wantAgreed(after time.Time, want int) {
	w.t.Helper()
	sleepUntil(after)
	if n := w.agreed(after); n != want {
		w.t.Fatalf("%d of %d authorities have the consensus for %v, want %d", n, len(w.nodes), after, want)
	}
}

func TestFiveAuthoritiesPublishTheSameBytes(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.wantAgreed(hour(1), 5)
		c := w.nodes[0].auth.Consensus()
		if len(c.Entries) != 12 || len(c.Signatures) != 5 {
			t.Errorf("%d relays, %d signatures; want 12 and 5", len(c.Entries), len(c.Signatures))
		}
		for _, n := range w.nodes[1:] {
			if w.text(n) != w.text(w.nodes[0]) {
				t.Errorf("authorities 0 and %d serve different bytes", n.i)
			}
		}
		w.wantAgreed(hour(2), 5)
		w.checkSafety()
	})
}

func TestNetworksOfOneAndThree(t *testing.T) {
	for _, n := range []int{1, 3} {
		inWorld(t, n, func(t *testing.T, w *world) { w.wantAgreed(hour(1), n) })
	}
}

// A test network has its first consensus when its schedule starts, 1.5 seconds after it.
func TestFirstConsensusOfATestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := epoch.Add(2 * time.Second)
		w := newWorld(t, 1, 5, 12, dirtest.Schedule(directory.Schedule{
			Start: start, Period: 10 * time.Second, Voting: 900 * time.Millisecond,
		}))
		w.setLink(func(int, int) (time.Duration, bool) { return 5 * time.Millisecond, false })
		time.Sleep(500 * time.Millisecond)
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		w.wantAgreed(start, 5)
		w.wantAgreed(start.Add(10*time.Second), 5)
	})
}

func TestOneAuthorityDown(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.nodes[2].crash()
		w.wantAgreed(hour(1), 4)
		if c := w.nodes[0].auth.Consensus(); len(c.Signatures) != 4 {
			t.Errorf("%d signatures, want 4", len(c.Signatures))
		}
		s := w.nodes[0].auth.Status()
		if s.Before == nil || !slices.Equal(s.Before.MissingVotes, []string{"authority3"}) ||
			!slices.Equal(s.Before.MissingSignatures, []string{"authority3"}) || s.Before.Failed != "" {
			t.Errorf("status does not say who was missing: %+v", s.Before)
		}
	})
}

func TestTwoAuthoritiesDownLeaveTheOldConsensus(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.wantAgreed(hour(1), 5)
		old := w.text(w.nodes[0])
		w.nodes[1].crash()
		w.nodes[2].crash()
		w.wantAgreed(hour(2), 0)
		if s := w.nodes[0].auth.Status().Before; s == nil || s.Failed == "" || s.Header != "" && !strings.Contains(s.Failed, "of the 4 signatures that are needed came") {
			t.Errorf("status does not say why there was no consensus: %+v", s)
		}
		if w.text(w.nodes[0]) != old {
			t.Error("the old consensus is not served any more")
		}
		w.nodes[1].start()
		w.nodes[2].start()
		w.publishAll()
		w.wantAgreed(hour(3), 5)
		w.checkSafety()
	})
}

// Who starts in the middle of the voting, without a past, still signs what the others voted, or
// fetches what they signed.
func TestLateAuthority(t *testing.T) {
	for _, c := range []struct {
		name       string
		start      time.Time
		votes      bool
		signatures int
	}{
		{"while descriptors are collected", minute(40), true, 5},
		{"while votes are sent", minute(51), true, 5},
		{"while votes are fetched", minute(54), false, 5},
		{"while signatures are sent", minute(57), false, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, 5, func(t *testing.T, w *world) {
				w.nodes[4].crash()
				sleepUntil(c.start)
				w.nodes[4].start()
				w.publishAll()
				sleepUntil(hour(1))
				if n := len(w.nodes[0].auth.Consensus().Signatures); n != c.signatures {
					t.Errorf("%d signatures, want %d", n, c.signatures)
				}
				voted := slices.Contains(w.nodes[0].auth.Status().Before.Votes, "authority5")
				if voted != c.votes {
					t.Errorf("voted: %v, want %v", voted, c.votes)
				}
				sleepUntil(hour(1).Add(15 * time.Minute))
				if n := w.agreed(hour(1)); n != 5 {
					t.Errorf("%d have the consensus a quarter of an hour later, want 5", n)
				}
				w.checkSafety()
			})
		})
	}
}

// Without a folder, who starts while voting is under way might contradict what it said before.
func TestAuthorityWithoutMemoryTakesNoPartInARunningVote(t *testing.T) {
	for _, c := range []struct {
		start       time.Time
		votes, sign bool
	}{
		{minute(40), true, true},
		{minute(51), false, true},
		{minute(57), false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, 5, 3)
			sleepUntil(c.start)
			a, err := New(w.nodes[0].cfg)
			if err != nil {
				t.Fatal(err)
			}
			a.voter.round.vouched = true
			// Each phase is begun as Run would begin it now.
			begin := func(phase Phase) {
				a.voter.phase = phase
				for _, act := range a.voter.begin(time.Now()) {
					if err := a.do(act); err != nil {
						t.Error(err)
					}
				}
			}
			begin(Vote)
			if voted := len(a.voter.round.votes[a.self]) > 0; voted != c.votes {
				t.Errorf("started %v: votes: %v", c.start, voted)
			}
			for i := 1; i < 5; i++ {
				v, text := w.vote(i, hour(1), nil)
				a.voter.round.addVote(v, text)
			}
			begin(Sign)
			if signed := a.voter.last != nil; signed != c.sign {
				t.Errorf("started %v: signs: %v", c.start, signed)
			}
		})
	}
}

// vote makes a vote of an authority as it would sign it.
func (w *world) vote(i int, after time.Time, change func(*directory.Vote)) (*directory.Vote, []byte) {
	w.t.Helper()
	v, _ := w.net.Vote(i)
	v.ValidAfter = after
	if change != nil {
		change(v)
	}
	text, err := v.Sign(w.net.Authorities[i].Signing)
	if err != nil {
		w.t.Fatal(err)
	}
	return v, text
}

func TestCrashInAnyPhase(t *testing.T) {
	at := []float64{20, 50, 53.4, 55, 56.7, 59.9}
	if slow() {
		at = append(at, 49.9, 50.1, 53, 56.6, 58)
	}
	for _, m := range at {
		inWorld(t, 5, func(t *testing.T, w *world) {
			w.setLink(func(int, int) (time.Duration, bool) { return 20 * time.Millisecond, false })
			sleepUntil(minute(m))
			w.nodes[4].crash()
			time.Sleep(10 * time.Second)
			w.nodes[4].start()
			w.publishAll()
			sleepUntil(hour(1).Add(10 * time.Minute))
			if n := w.agreed(hour(1)); n != 5 {
				t.Errorf("crash at minute %v: %d have the consensus, want 5", m, n)
			}
			w.checkSafety()
		})
	}
}

// All at once lose power in the middle of everything, and still sign one header each.
func TestAllCrashWhileSigning(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.setLink(func(int, int) (time.Duration, bool) { return time.Second, false })
		sleepUntil(minute(56.7).Add(500 * time.Millisecond))
		w.stopAll()
		w.startAll()
		w.publishAll()
		w.wantAgreed(hour(1), 5)
		w.checkSafety()
	})
}

// What one authority alone was sent in time reaches all through it.
func TestVoteThatReachedOneReachesAll(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.setLink(func(from, to int) (time.Duration, bool) {
			return time.Millisecond, (from == 4 && to != 0 || to == 4 && from != 0) && time.Now().Before(minute(53.3))
		})
		w.wantAgreed(hour(1), 5)
		if s := w.nodes[2].auth.Status().Before; len(s.Votes) != 5 || len(s.Signatures) != 5 {
			t.Errorf("%d votes and %d signatures, want 5 each", len(s.Votes), len(s.Signatures))
		}
	})
}

func TestClocksThatDiffer(t *testing.T) {
	for _, c := range []struct {
		skew  time.Duration
		votes bool
	}{
		{90 * time.Second, true}, {-90 * time.Second, true}, {2 * time.Hour, false}, {-2 * time.Hour, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, 5, 12)
			w.nodes[4].skew = c.skew
			defer w.stopAll()
			for _, n := range w.nodes[:4] {
				n.start()
			}
			w.publishAll() // the fifth may rightly refuse the relays for their clocks
			w.nodes[4].start()
			sleepUntil(hour(1).Add(2 * time.Minute))
			for _, n := range w.nodes[:4] {
				if n.header(hour(1)) == "" {
					t.Errorf("clock %v off at one: authority %d has no consensus", c.skew, n.i)
				}
			}
			if voted := slices.Contains(w.nodes[0].auth.Status().Before.Votes, "authority5"); voted != c.votes {
				t.Errorf("clock %v off: its vote counted: %v, want %v", c.skew, voted, c.votes)
			}
			w.checkSafety()
		})
	}
}

func TestVotesThatAreRefused(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		n := w.nodes[0]
		other := dirtest.New(9, 3, dirtest.At(hour(1)))
		_, foreign := other.Vote(0)
		_, good := w.vote(4, hour(1), nil)
		broken := append([]byte(nil), good...)
		broken[len(broken)/2] ^= 1
		_, tomorrow := w.vote(4, hour(25), nil)
		for _, c := range []struct {
			name string
			text []byte
			code int
		}{
			{"empty", nil, http.StatusBadRequest},
			{"noise", []byte("peel-vote 1\nnetwork x\n"), http.StatusBadRequest},
			{"changed on the way", broken, http.StatusBadRequest},
			{"cut off", good[:len(good)-1], http.StatusBadRequest},
			{"of another network", foreign, http.StatusForbidden},
			{"for another period", tomorrow, http.StatusConflict},
			{"above the limit", make([]byte, directory.MaxVote+1), http.StatusRequestEntityTooLarge},
		} {
			if code, text := n.do("POST", pathVote, c.text); code != c.code {
				t.Errorf("a vote %s: %d %s, want %d", c.name, code, text, c.code)
			}
		}
		// Of an authority, the log says it, once a period; of anybody else not.
		var log bytes.Buffer
		cfg := n.cfg
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		another, err := New(cfg) // which does not run
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range []cell.Key{w.net.Network.Authorities[4].LinkKey, w.net.Network.Authorities[4].LinkKey, {1}} {
			r := httptest.NewRequest("POST", pathVote, bytes.NewReader(broken))
			another.ServeHTTP(httptest.NewRecorder(), r.WithContext(WithCaller(r.Context(), Caller{Key: from})))
		}
		if said := log.String(); strings.Count(said, "a vote is refused") != 1 || !strings.Contains(said, "from="+w.net.Network.Authorities[4].Nickname) ||
			!strings.Contains(said, "directory: vote") {
			t.Errorf("the log says: %s", said)
		}
		sleepUntil(minute(53.5))
		if code, text := n.do("POST", pathVote, good); code != http.StatusConflict || !strings.Contains(text, "taken until") {
			t.Errorf("a late vote: %d %s", code, text)
		}
		w.wantAgreed(hour(1), 5)
		if s := n.auth.Status(); len(s.Before.Votes) != 5 || len(s.Evidence) != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// The vote of a network whose authority is known, but with a certificate for nobody here.
func TestVoteOfAStranger(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		stranger := dirtest.New(77, 1, dirtest.At(hour(1))).Authorities[0]
		cert, err := directory.Certificate{
			Network: w.net.Network.ID(), SigningKey: stranger.Certificate.SigningKey,
			NotBefore: hour(0), NotAfter: hour(9),
		}.Certify(stranger.Identity)
		if err != nil {
			t.Fatal(err)
		}
		v, _ := w.net.Vote(0)
		v.Certificate = cert
		text, err := v.Sign(stranger.Signing)
		if err != nil {
			t.Fatal(err)
		}
		if code, answer := w.nodes[0].do("POST", pathVote, text); code != http.StatusForbidden || !strings.Contains(answer, "no authority") {
			t.Errorf("%d %s", code, answer)
		}
		h := directory.Header{Network: w.net.Network.ID(), Method: 1, ValidAfter: hour(1), FreshUntil: hour(2), ValidUntil: hour(4)}
		sig, err := h.Sign(cert, stranger.Signing)
		if err != nil {
			t.Fatal(err)
		}
		s := directory.SignedHeader{Header: h, Signatures: []directory.Signature{sig}}
		if code, answer := w.nodes[0].do("POST", pathSignature, s.Append(nil)); code != http.StatusForbidden {
			t.Errorf("%d %s", code, answer)
		}
	})
}

func TestBusyAuthoritySendsOthersAway(t *testing.T) {
	inWorld(t, 3, func(t *testing.T, w *world) {
		a := w.nodes[0].auth
		for range largeRequests {
			a.large <- struct{}{}
		}
		if code, _ := w.nodes[0].do("POST", pathVote, nil); code != http.StatusServiceUnavailable {
			t.Errorf("%d, want 503", code)
		}
		// Votes are still fetched from their authors; signatures as well.
		w.wantAgreed(hour(1), 3)
		if n := len(w.nodes[0].auth.Status().Before.Votes); n != 3 {
			t.Errorf("%d votes, want 3", n)
		}
	})
}

func TestStatusIsJSON(t *testing.T) {
	inWorld(t, 5, func(t *testing.T, w *world) {
		w.nodes[3].crash()
		sleepUntil(minute(55))
		code, text := w.nodes[0].do("GET", pathStatus, nil)
		var s struct {
			Network, Authority, Phase string
			Relays                    int
			Votes                     []string
			Missing                   []string `json:"votes_missing"`
			Needed                    int      `json:"signatures_needed"`
		}
		if err := json.Unmarshal([]byte(text), &s); err != nil || code != http.StatusOK {
			t.Fatalf("%d %v: %s", code, err, text)
		}
		if s.Network != "dirtest" || s.Authority != "authority1" || s.Phase != "fetch" || s.Relays != 12 || s.Needed != 4 ||
			len(s.Votes) != 4 || !slices.Equal(s.Missing, []string{"authority4"}) {
			t.Errorf("status %s", text)
		}
	})
}

// Who calls Run again, while the authority works or afterwards, is told, and there is no second one that votes.
func TestAnAuthorityRunsOnce(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		a := w.nodes[0].auth
		synctest.Wait() // it runs
		for _, when := range []string{"while it runs", "when it has ended"} {
			if err := a.Run(ended); err == nil || !strings.Contains(err.Error(), "called before") {
				t.Errorf("%s: %v", when, err)
			}
			w.nodes[0].crash()
		}
	})
}

func TestRestartFromDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1, 5)
		cfg := w.nodes[0].cfg
		cfg.Dir = filepath.Join(t.TempDir(), "state")
		start := func() *Authority {
			a, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		runUntil := func(a *Authority, end time.Time) {
			ctx, cancel := context.WithDeadline(t.Context(), end)
			defer cancel()
			if err := a.Run(ctx); err != nil {
				t.Error(err)
			}
			a.Close()
		}
		a := start()
		w.nodes[0].handler = a
		w.publishAll()
		runUntil(a, minute(58))
		signed := a.voter.last.text

		a = start()
		if n := a.store.len(); n != 5 {
			t.Errorf("%d descriptors after a restart, want 5", n)
		}
		if a.voter.last == nil || string(a.voter.last.text) != string(signed) {
			t.Error("what was signed is not known after a restart")
		}
		if len(a.voter.round.votes) != 1 {
			t.Error("the vote is not known after a restart")
		}
		runUntil(a, hour(1).Add(time.Second))
		first := a.Consensus()
		if first == nil || len(first.Entries) != 5 {
			t.Fatalf("consensus after a restart while signing: %+v", first)
		}
		if string(a.voter.last.text) != string(signed) {
			t.Error("signed twice")
		}

		a = start()
		if c := a.Consensus(); c == nil || c.Header.Digest() != first.Header.Digest() {
			t.Error("the consensus is not known after a restart")
		}
		runUntil(a, hour(2).Add(time.Second))
		if c := a.Consensus(); c == nil || !c.ValidAfter.Equal(hour(2)) {
			t.Error("no consensus in the period after a restart")
		}

	})
}

// An authority that cannot be sure of what it signed last does not start, whatever is wrong with the
// record.
func TestRecordOfWhatWasSignedMustBeOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 5, 1)
		other := dirtest.New(5, 1, dirtest.At(hour(1)))
		cert := w.net.Authorities[0].Certificate
		cert.Network = other.Network.ID()
		cert, err := cert.Certify(w.net.Authorities[0].Identity)
		if err != nil {
			t.Fatal(err)
		}
		other.Authorities[0].Certificate, other.Authorities[0].Signing = cert, w.net.Authorities[0].Signing
		signedBy := func(n *dirtest.Net, authorities ...int) []byte {
			s := directory.SignedHeader{Header: n.Consensus.Header}
			for _, i := range authorities {
				sig, err := s.Header.Sign(n.Authorities[i].Certificate, n.Authorities[i].Signing)
				if err != nil {
					t.Fatal(err)
				}
				s.Add(sig)
			}
			return s.Append(nil)
		}
		ours, elsewhere := signedBy(w.net, 0), signedBy(other, 0)
		forged := bytes.Replace(ours, []byte("\nmethod 1\n"), []byte("\nmethod 2\n"), 1)
		for _, c := range []struct {
			name string
			text []byte
			good bool
		}{
			{"ours", ours, true},
			{"nothing", []byte{}, false},
			{"cut in the header", ours[:10], false},
			{"cut after the header", w.net.Consensus.Header.Append(nil), false},
			{"cut in the signature", ours[:len(ours)-10], false},
			{"another's", signedBy(w.net, 1), false},
			{"two signatures", signedBy(w.net, 0, 1), false},
			{"a header that we did not sign", forged, false},
			{"of another network", elsewhere, false},
		} {
			k, err := openKeep("")
			if err != nil {
				t.Fatal(err)
			}
			if err := k.save(keptSigned, c.text); err != nil {
				t.Fatal(err)
			}
			_, err = newAuthority(w.nodes[0].cfg, k, true)
			if c.good && err != nil || !c.good && (err == nil || !strings.Contains(err.Error(), "signed last cannot be read")) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	})
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 5, 1)
		other := dirtest.New(5, 1, dirtest.At(hour(1)))
		for _, c := range []struct {
			want   string
			change func(*Config)
		}{
			{"needed", func(c *Config) { c.Network = nil }},
			{"needed", func(c *Config) { c.Dial = nil }},
			{"needed", func(c *Config) { c.Reach = nil }},
			{"neither a certificate nor an identity", func(c *Config) { c.Certificate = directory.Certificate{} }},
			{"not the one of the certificate", func(c *Config) { c.SigningKey = other.Authorities[0].Signing }},
			{"signing key of 64 bytes", func(c *Config) { c.SigningKey = nil }},
			{"signing key of 64 bytes", func(c *Config) { c.SigningKey = c.SigningKey[:32] }},
			{"private key has 64 bytes", func(c *Config) {
				c.Certificate, c.Identity = directory.Certificate{}, c.SigningKey[:32]
			}},
			{"for network", func(c *Config) {
				c.Certificate, c.SigningKey = other.Authorities[0].Certificate, other.Authorities[0].Signing
			}},
			{"certify a new signing key", func(c *Config) { c.Now = func() time.Time { return hour(24 * 99) } }},
			{"not among the authorities", func(c *Config) {
				c.Certificate, c.Identity = directory.Certificate{}, other.Authorities[0].Identity
			}},
			{"relays-per-address", func(c *Config) { c.Params = directory.Params{"relays-per-address": 9999} }},
		} {
			cfg := w.nodes[0].cfg
			c.change(&cfg)
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error that says %q", err, c.want)
			}
		}
		cfg := w.nodes[0].cfg
		cfg.Certificate, cfg.SigningKey, cfg.Identity = directory.Certificate{}, nil, w.net.Authorities[0].Identity
		a, err := New(cfg)
		if err != nil {
			t.Fatalf("with its identity only: %v", err)
		}
		if want := w.net.Authorities[0].Info.ID; a.ID() != want {
			t.Errorf("with its identity only it votes as %v, want %v", a.ID(), want)
		}
	})
}
