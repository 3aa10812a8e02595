// Package authority is one directory authority: it takes the descriptors of relays, tries them,
// votes each period with the other authorities and publishes the consensus they sign
// (spec/voting.md).
//
// What decides is pure: schedule.go (when), voter.go and talk.go (what is done when, and asked of
// whom), vote.go (what we say of the relays), round.go (what of a period is known), tally.go (what
// follows from votes). drive.go does what the voter wants done; exchange.go and serve.go are the two
// ends of the talk between authorities.
package authority

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/directory"
	"peel/directory/cache"
)

// Config says who an authority is and how it reaches others. Network, Dial, Reach and the keys are
// needed.
type Config struct {
	Network *directory.Network

	// Certificate and SigningKey are what it votes with until Renew. Where there is no certificate, Identity
	// certifies a new signing key at the start and whenever it is time: for test networks, whose identities are not offline.
	Certificate directory.Certificate
	SigningKey  ed25519.PrivateKey
	Identity    ed25519.PrivateKey
	Remedy      string // what the operator is told to run when a certificate is missing or ends

	// Dial opens a stream to the directory of another authority.
	Dial func(ctx context.Context, to directory.AuthorityInfo) (net.Conn, error)

	// Reach proves that a relay is at an address, by a handshake with it: see ReachByLink. It is called
	// by many goroutines.
	Reach func(ctx context.Context, d *directory.Descriptor, at netip.AddrPort) error

	// Dir is where descriptors, votes, what it signed and the consensus are kept. Without it they are
	// in memory only, and an authority that starts while a vote is under way takes no part in it: it
	// might say something else than before.
	Dir string

	Allow        []cell.NodeID    // the relays that may join; nil: all, unless a list says otherwise
	Lists        []string         // files of lists (spec/admission.md), read at the start; Reload reads others
	PrivateAddrs bool             // relays may have addresses that the internet does not route: for test networks
	Params       directory.Params // what it votes for
	MaxBandwidth uint64           // that a relay counts for that was not measured, bytes per second; 0: 10,000,000

	// Measure, if set, makes this an authority that measures relays (spec/bandwidth.md).
	Measure MeasureFunc

	Log *slog.Logger     // nil: no log
	Now func() time.Time // nil: time.Now

	Write  func(name string, b []byte) error // replaces a file of Dir as a whole; nil: cache.WriteFile
	Secret func() [32]byte                   // for laboratories, in which the same is to happen again: its next for the shared random value. nil: the system's
}

// Authority is a directory authority. It is an http.Handler for what relays, clients and other
// authorities ask for; Run does the rest.
type Authority struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	self    cell.NodeID
	network cell.NetworkID

	schedule directory.Schedule
	started  time.Time
	keep     *keep
	store    *store
	cache    *cache.Cache
	due      chan struct{} // wakes tryRelays
	turn     chan struct{} // wakes vote
	peers    []*peer
	mux      *http.ServeMux
	small    readers                    // short requests
	large    chan struct{}              // a place for each vote that is being read
	voting   map[cell.Key]chan struct{} // one more for each other authority, by its link key

	credentials atomic.Pointer[credentials]
	release     func() // gives the folder back
	ran         atomic.Bool

	reloading sync.Mutex // held while lists are loaded
	toldMu    sync.Mutex
	told      map[cell.NodeID]bool // who was refused, as the log says already; guarded by toldMu

	samplesMu sync.Mutex
	samples   *samples // guarded by samplesMu

	mu    sync.Mutex
	voter *voter // guarded by mu
}

// signed is a header that we signed, and its text as it is sent.
type signed struct {
	directory.SignedHeader
	text []byte
}

// New makes an authority and loads what it kept. It takes the folder Dir for this authority until Close; one that a node uses is
// cache.ErrInUse. It starts nothing.
func New(cfg Config) (*Authority, error) {
	release, err := cache.Hold(cfg.Dir, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	a, err := open(cfg)
	if err != nil {
		release()
		return nil, err
	}
	a.release = release
	return a, nil
}

// open makes an authority of what is in the folder that it holds.
func open(cfg Config) (*Authority, error) {
	k, err := openKeep(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if cfg.Write != nil {
		k.write = cfg.Write
	}
	return newAuthority(cfg, k, cfg.Dir != "")
}

// Close gives the folder back, when Run has returned, or is never called, and nobody asks the authority any more: votes are kept as they come.
func (a *Authority) Close() { a.release() }

func newAuthority(cfg Config, k *keep, durable bool) (*Authority, error) {
	if cfg.Network == nil || cfg.Dial == nil || cfg.Reach == nil {
		return nil, errors.New("authority: Network, Dial and Reach are needed")
	}
	if err := cfg.Network.Check(); err != nil {
		return nil, err
	}
	if err := cfg.Params.Check(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxBandwidth == 0 {
		cfg.MaxBandwidth = defaultMaxBandwidth
	}
	cfg.MaxBandwidth = min(cfg.MaxBandwidth, directory.MaxBandwidth)
	a := &Authority{
		log: cfg.Log, now: cfg.Now, network: cfg.Network.ID(), schedule: cfg.Network.Schedule.WithDefaults(),
		started: cfg.Now(), keep: k, due: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		release: func() {}, small: readers{most: smallRequests}, large: make(chan struct{}, largeRequests), voting: make(map[cell.Key]chan struct{}),
	}
	a.store, a.samples = newStore(a.schedule.Period), newSamples(a.schedule.Period)
	if err := a.takeKeys(&cfg); err != nil {
		return nil, err
	}
	a.cfg = cfg
	a.store.network, a.store.private = a.network, cfg.PrivateAddrs
	a.store.perPlace = int(cfg.Params.Get(directory.ParamRelaysPerAddr))
	a.told = map[cell.NodeID]bool{}
	lists, err := ReadLists(cfg.Lists)
	if err != nil {
		return nil, fmt.Errorf("authority: lists: %w", err)
	}
	lists.name(cfg.Allow)
	a.store.lists.Store(lists)
	for _, info := range cfg.Network.Authorities {
		if info.ID != a.self {
			a.peers = append(a.peers, &peer{info: info, dial: cfg.Dial})
			a.voting[info.LinkKey] = make(chan struct{}, 1)
		}
	}
	if a.cache, err = cache.New(cache.Config{Network: cfg.Network, Dir: cfg.Dir, Past: cache.UsualPast(cfg.Dir), Log: cfg.Log, Now: cfg.Now, Write: cfg.Write}); err != nil {
		return nil, err
	}
	a.mux = a.routes()
	a.voter = newVoter(cfg.Network, a.self, a.started, durable)
	a.voter.sign = func(h *directory.Header) (directory.Signature, error) {
		c := a.credentials.Load()
		return h.Sign(c.cert, c.key)
	}
	a.voter.secret = cfg.Secret
	if a.voter.secret == nil {
		a.voter.secret = func() (b [32]byte) {
			rand.Read(b[:]) // never fails
			return b
		}
	}
	return a, a.load()
}

// load takes in what was kept. What is damaged or out of date is left aside, but not a signature:
// who does not know what it signed might sign another thing.
func (a *Authority) load() error {
	text, err := a.keep.load(keptSigned)
	if err != nil {
		return err
	}
	if text != nil {
		if a.voter.last, err = a.parseSigned(text); err != nil {
			return fmt.Errorf("authority: state: what was signed last cannot be read: if the disk was damaged, remove %s in %s and start again after the next full period: %w",
				keptSigned, a.cfg.Dir, err)
		}
	}
	if text, err = a.keep.load(keptDescriptors); err != nil {
		return err
	}
	good, bad := a.store.load(text, a.started)
	if text, err = a.keep.load(keptHistory); err != nil {
		return err
	}
	if err := a.store.past.load(text); err != nil {
		a.log.Warn("what was known of the relays' uptime is lost: flags are given as in a young network", "why", err)
	}
	if err := a.loadMeasured(); err != nil {
		return err
	}
	if c := a.cache.Consensus(); c != nil {
		a.store.prove(c, c.ValidAfter.Add(-a.schedule.Voting))
		a.voter.have = c.ValidAfter
	}
	if err := a.loadRandom(); err != nil {
		return err
	}
	if err := a.loadVotes(); err != nil {
		return err
	}
	if err := a.loadEvidence(); err != nil {
		return err
	}
	if good+bad > 0 {
		a.log.Info("descriptors loaded", "relays", good, "refused-or-damaged", bad)
	}
	return nil
}

// loadVotes takes in the votes of the period that a voting is under way for.
func (a *Authority) loadVotes() error {
	var said []heldVote // ours, the last first
	for _, info := range a.cfg.Network.Authorities {
		for i := range evidenceKept {
			text, err := a.keep.load(voteName(info.ID, i))
			if err != nil {
				return err
			}
			if text == nil {
				continue
			}
			v, err := a.parseVote(text)
			switch {
			case err == nil && info.ID == a.self: // of whatever period: the clock may be wrong now
				said = append(said, heldVote{vote: v, text: text})
			case err == nil && v.ValidAfter.Equal(a.voter.round.period.ValidAfter):
				a.voter.round.addVote(v, text)
			case err != nil && info.ID == a.self && i == 0:
				a.voter.lost = true // a second vote for the period would be a proof against us
				a.log.Warn("our last vote cannot be read: there will be none in a voting that has begun", "file", voteName(a.self, 0), "why", err)
			}
		}
	}
	for _, h := range slices.Backward(said) {
		a.voter.remember(h)
	}
	return nil
}

// loadRandom takes in what was kept of the shared random value. Where it is damaged, the secrets are
// lost and our commitments will not count.
func (a *Authority) loadRandom() error {
	text, err := a.keep.load(keptRandom)
	if err != nil {
		return err
	}
	if r := newRandom(a.network, a.self); text != nil {
		if err := r.parse(text); err != nil {
			a.log.Warn("what was kept of the shared random value is left aside: this authority's secret for it is lost", "why", err)
		} else {
			a.voter.random = r
		}
	}
	if c := a.cache.Consensus(); c != nil && c.Shared.Run >= a.voter.random.shared.Run {
		a.voter.random.shared = c.Shared
	}
	return nil
}

// loadEvidence takes in the proofs that were kept. One that does not prove anything any more, because
// the file was damaged, is left aside.
func (a *Authority) loadEvidence() error {
	for _, info := range a.cfg.Network.Authorities {
		for _, kind := range []string{directory.TwoVotes, directory.TwoHeaders} {
			proof, err := a.keep.load(evidenceName(kind, info.ID))
			if err != nil {
				return err
			}
			if proof == nil {
				continue
			}
			id, period, err := directory.CheckEvidence(a.cfg.Network, kind, proof)
			if err == nil && id != info.ID {
				err = errors.New("authority: it is about another authority")
			}
			if err != nil {
				a.log.Warn("evidence left aside", "file", evidenceName(kind, info.ID), "why", err)
				continue
			}
			a.voter.evidence[evidenceKey{id, kind}] = Evidence{info.Nickname, id.String(), kind, period}
		}
	}
	return nil
}

// parseSigned parses what was kept of the header signed last: one of this network, with one
// signature, which is ours and good.
func (a *Authority) parseSigned(text []byte) (*signed, error) {
	s, err := directory.ParseSignedHeader(text)
	switch {
	case err != nil:
		return nil, err
	case s.Network != a.network:
		return nil, &directory.NetworkError{Document: "signature", Have: s.Network, Want: a.network}
	case len(s.Signatures) != 1 || s.Signatures[0].Certificate.Identity != a.self:
		return nil, fmt.Errorf("authority: it has %d signatures, but must have one, that of %v", len(s.Signatures), a.self)
	}
	if err := s.CheckSignature(&s.Signatures[0]); err != nil {
		return nil, err
	}
	return &signed{*s, text}, nil
}

// parseVote parses and verifies a vote of any period.
func (a *Authority) parseVote(text []byte) (*directory.Vote, error) {
	v, err := directory.ParseVote(text)
	if err != nil {
		return nil, err
	}
	return v, v.Verify(a.cfg.Network)
}

// ID returns the identity that the authority votes as.
func (a *Authority) ID() cell.NodeID { return a.self }

// Consensus returns the newest consensus, or nil. It must not be changed.
func (a *Authority) Consensus() *directory.Consensus { return a.cache.Consensus() }

// Run tries relays and votes until ctx ends, and returns nil when all of it is over. An authority runs once: a second call is an error,
// and harms nothing.
func (a *Authority) Run(ctx context.Context) error {
	if !a.ran.CompareAndSwap(false, true) {
		return errors.New("authority: Run was called before: make another authority")
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg contain.Group
	part := func(what string, run func(context.Context)) {
		wg.Go(func(p *contain.Panic) {
			a.bug(what)(p)
			fail(p)
		}, func() { run(ctx) })
	}
	part("trying relays", a.tryRelays)
	part("keeping descriptors", a.saveRelays)
	part("the certificate", a.keepCertificate)
	if a.cfg.Measure != nil {
		part("measuring", a.measureRelays)
	}
	part("voting", a.vote)
	wg.Wait()
	var bug *contain.Panic
	if errors.As(context.Cause(ctx), &bug) {
		return fmt.Errorf("authority: %w", bug)
	}
	return nil
}

// bug tells of panics of what.
func (a *Authority) bug(what string) func(*contain.Panic) {
	return func(p *contain.Panic) {
		a.log.Error("a bug: please report this", "in", what, "panic", p.Value, "stack", p.Stack)
	}
}

// historyEvery is how many chances to keep descriptors go by before the history is kept: it is larger.
const historyEvery = 5

// saveRelays keeps the descriptors whenever they have changed, at most once in a minute or an
// eighth of a period, and the history more seldom; both at the end.
func (a *Authority) saveRelays(ctx context.Context) {
	t := time.NewTicker(min(time.Minute, a.schedule.Period/8))
	defer t.Stop()
	for n := 1; ctx.Err() == nil; n++ {
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		if text, changed := a.store.bytes(); changed {
			if err := a.keep.save(keptDescriptors, text); err != nil {
				a.log.Error("descriptors not kept", "why", err)
			}
		}
		if n%historyEvery == 0 || ctx.Err() != nil {
			if err := a.keep.save(keptHistory, a.store.pastBytes()); err != nil {
				a.log.Error("history of the relays not kept", "why", err)
			}
			if err := a.saveMeasured(); err != nil {
				a.log.Error("measurements not kept", "why", err)
			}
		}
	}
}

func (a *Authority) nickname(id cell.NodeID) string { return nickname(a.cfg.Network, id) }

func nickname(n *directory.Network, id cell.NodeID) string {
	if info, ok := n.Authority(id); ok {
		return info.Nickname
	}
	return id.String()
}
