// Package relay is a relay: it accepts links, answers CREATE, peels and passes on the cells of other people's circuits,
// and at the end of a circuit dials out by its exit policy or hands out the directory.
package relay

import (
	"context"
	"crypto/ecdh"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/circuit/stream"
	"peel/directory"
	"peel/directory/cache"
	"peel/relay/exit"
)

// Config is what a relay is told. Network, Keys and Listeners are needed; the rest has defaults.
type Config struct {
	Network   *directory.Network
	Keys      Keys
	Listeners []net.Listener   // where links arrive; Run closes them
	Addrs     []netip.AddrPort // what the descriptor says, at most one IPv4 and then one IPv6; none: those of Listeners

	Nickname  string
	Contact   string
	Family    []cell.NodeID
	Bandwidth uint64           // bytes a second that it offers; 0: 10 MB/s
	Rate      uint64           // bytes a second that it sends at most, of circuits on links and to hosts; 0: what it can
	Burst     uint64           // of them, at once after a calm; 0: those of a second
	Exit      directory.Policy // zero: no exit
	Resolver  exit.Resolver    // of names that clients ask for; nil: the system's

	// Directory, when set, makes this the node of a directory authority: every circuit ends here, its streams reach this
	// handler, and nothing is published. ID is then the authority's identity, and the link key serves as the onion key.
	Directory http.Handler
	ID        cell.NodeID

	// OneHop lets an exit be the only relay of a circuit, as instruments and tests need it. It works only where no authority has an address of
	// the internet: New refuses it elsewhere (spec/exit.md, section 7).
	OneHop bool

	// Measure lets the node of an authority measure relays, from the address MeasureFrom if that is valid (spec/bandwidth.md).
	Measure     bool
	MeasureFrom netip.Addr

	// KeyDir is the folder of Keys, as Save writes it, where new onion keys are written before they are used. "": nowhere, so that
	// they are lost at the end of Run.
	KeyDir string

	Dir     string                                                            // folder for the consensus; "": nothing is written
	Dial    func(ctx context.Context, network, addr string) (net.Conn, error) // of links; nil: net.Dialer
	Connect func(ctx context.Context, network, addr string) (net.Conn, error) // of hosts, for an exit in a network in memory; nil: net.Dialer

	// AssumeReachable announces Addrs without having others try whether this relay is reached there (spec/relay.md, section 11).
	AssumeReachable bool

	Villain *Villain                            // this node misbehaves; nil: it is honest
	Tap     func(in bool, cells []cell.Cell)    // for tests and instruments (link.Config)
	Heard   func(from net.Addr, m cell.Message) // for tests and instruments: each message for this relay, and the link it came by
	Log     *slog.Logger                        // nil: silent

	Now    func() time.Time                  // what the clock says that people have; nil: time.Now. How long things take is not asked of it
	Write  func(name string, b []byte) error // replaces a file of Dir or KeyDir as a whole; nil: cache.WriteFile
	Chance rand.Source                       // for laboratories, in which the same is to happen again: of whom it asks for the directory, when, and new onion keys. nil: the system's

	// Memory is how many bytes others can make the relay hold, whatever they do: what is below is sized by it, if it is 0
	// (spec/queues.md, section 6). 0: 2 GiB, or half of GOMEMLIMIT if that is less; LeastMemory at least.
	Memory int64

	// Quota is how many bytes the relay sends in a month, or with QuotaDaily a day, of UTC, at most. When it is nearly used up nothing
	// new is taken until the next one begins. What was sent is kept in Dir. 0: any number.
	Quota      uint64
	QuotaDaily bool

	// What is refused as busy beyond. 0: by Memory; of 2 GiB, as follows.
	MaxLinks    int // accepted and dialled: 3185, at most 16384
	MaxCircuits int // in all: 32768, at most 131072
	MaxStreams  int // a circuit; 0: 256
	MaxTasks    int // streams in all, and apart from them circuits that are being extended: 8192, at most 16384
	MaxUnread   int // bytes of all streams that wait for hosts: 384 MiB
	MaxCopied   int // bytes that hosts sent and that wait for clients: 128 MiB, and 4 KiB for each stream beyond
	MaxQueued   int // bytes of cells that wait for links, and as much again of credit above the circuits' first: 512 MiB
	MaxLate     int // streams that are over and remembered for what may still come: 4 million

	Limits Limits // of one address

	toll func() // for tests, in which time is not spent by working: called before each key exchange
}

const (
	defaultBandwidth = 10_000_000
	mostUnproved     = 1024 // connections in their link handshake
	eachUnproved     = 128  // of one address
	idleLink         = 3 * time.Minute
)

// Relay is made by New and works while Run runs.
type Relay struct {
	cfg        Config
	id         cell.NodeID
	network    cell.NetworkID
	log        *slog.Logger
	turning    sync.Mutex // held while onion is looked at and replaced
	onion      atomic.Pointer[honoured]
	linkCfg    link.Config
	pool       *link.Pool
	changing   sync.Mutex // held while settled is replaced
	settled    atomic.Pointer[settled]
	cache      *cache.Cache
	signer     atomic.Pointer[signing] // nil: the identity signs
	known      atomic.Pointer[known]
	informed   chan struct{} // closed when known is of use
	describing sync.Mutex
	described  *described // what the authorities are sent; guarded by describing
	listing    listing    // whether this relay stands in the directory
	doors      doors      // whether others reach it
	clock      directory.Clock
	chance     func(n uint64) uint64
	onionLuck  *rand.ChaCha8 // of new onion keys; nil: the system's
	handshakes *waiting
	sources    *sources
	dirStreams *streams
	opening    *opening
	asking     *opening       // the same of requests to the directory
	voters     voters         // whose are counted apart
	budget     *stream.Budget // of the streams of all circuits
	stats      Stats
	ran        atomic.Bool
	release    func()      // gives the folder back
	draining   atomic.Bool // nothing new is taken
	pausing    atomic.Pointer[pausing]
	toHosts    atomic.Uint64 // bytes that were sent there while there was a rate or a quota
	overloaded atomic.Int64  // the hour in which it last was, in seconds since 1970
	observed   atomic.Uint64 // bytes a second, as in the descriptor

	quotaMu sync.Mutex
	quota   quota

	mu         sync.Mutex
	unproved   *crowd // connections in their link handshake, of addresses
	links      *crowd // accepted and dialled, of peers
	linked     map[*link.Conn]*place
	transits   map[*transit]struct{}
	circuits   *crowd // the same, of peers
	streams    *crowd // of circuits
	dials      *crowd // dials and look-ups under way, of circuits
	outlets    map[*outlet]struct{}
	extensions *crowd // of peers
	closing    bool
	wg         contain.Group // of tasks
	ctx        context.Context
}

type onionKey struct {
	id  cell.KeyID
	key *ecdh.PrivateKey
}

// Stats counts what a relay did since it began.
type Stats struct {
	Circuits, HandshakesFailed, HandshakesShed atomic.Uint64
	Exits, ExitsFailed                         atomic.Uint64
	OneHop                                     atomic.Uint64 // streams and look-ups refused, of circuits that no relay of the directory passed on
	LinksRefused, Panics                       atomic.Uint64
	CircuitsShed, LinksShed                    atomic.Uint64 // ended to make room for others
	Crowded                                    atomic.Uint64 // circuits and key exchanges for which there was no place
	Limited                                    atomic.Uint64 // refused because their address asks for too many
	Busy                                       atomic.Uint64 // streams and requests beyond what a circuit, or all, may begin
	Breaches                                   atomic.Uint64 // circuits ended for what came on them: no honest node sends it
	Stuck                                      atomic.Uint64 // circuits and streams ended because nobody took what waited
	Unwritten                                  atomic.Uint64 // files that could not be replaced
	Cells                                      atomic.Uint64 // of circuits: passed on or ended here, both ways
	Waits                                      Waits         // of CREATEs, until a worker took them
	Asked                                      Asked         // of the directory
	Lookups                                    exit.Lookups
}

// New checks the configuration, and takes the folder Dir for this relay until Run ends; one that a node uses is cache.ErrInUse. It starts nothing.
func New(cfg Config) (made *Relay, err error) {
	if cfg.Network == nil {
		return nil, errors.New("relay: no network given: a relay needs the network file")
	}
	if err := cfg.Network.Check(); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	if len(cfg.Listeners) == 0 {
		return nil, errors.New("relay: no listener given: a relay needs at least one")
	}
	if err := cfg.Keys.check(cfg.Directory != nil); err != nil {
		return nil, err
	}
	if err := cfg.bound(); err != nil {
		return nil, err
	}
	if err := cfg.Villain.check(cfg.Network); err != nil {
		return nil, err
	}
	if cfg.OneHop && !testNetwork(cfg.Network) {
		return nil, errors.New("relay: an exit that is the only relay of a circuit is for test networks, whose authorities all have private or loopback addresses")
	}
	plain := cfg.Dial == nil
	cfg.Dial = cfg.dialer()
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Write == nil {
		cfg.Write = cache.WriteFile
	}
	r := &Relay{
		cfg: cfg, network: cfg.Network.ID(), log: cfg.Log,
		handshakes: newWaiting(mostHandshakes, 0), budget: stream.NewBudget(stream.Limits{Unread: cfg.MaxUnread, Copies: cfg.MaxCopied, Late: cfg.MaxLate}),
		dirStreams: newStreams(), opening: newOpening(), asking: newOpening(), informed: make(chan struct{}),
		sources:  newSources(&cfg.Limits),
		unproved: newCrowd(mostUnproved*len(cfg.Listeners), eachUnproved),
		links:    newCrowd(cfg.MaxLinks, cfg.Limits.Links), linked: make(map[*link.Conn]*place),
		transits: make(map[*transit]struct{}), circuits: newCrowd(cfg.MaxCircuits, cfg.Limits.Circuits),
		streams: newCrowd(cfg.MaxTasks, cfg.MaxStreams), extensions: newCrowd(cfg.MaxTasks, 0),
		dials: newCrowd(mostDials, mostPending), outlets: make(map[*outlet]struct{}),
	}
	if cfg.Chance != nil { // apart from all else, so that how often that was drawn makes no difference
		var seed [32]byte
		for i := range 4 {
			binary.BigEndian.PutUint64(seed[8*i:], cfg.Chance.Uint64())
		}
		r.onionLuck = rand.NewChaCha8(seed)
	}
	r.chance = cfg.dice()
	r.unproved.oldest = true
	r.doors = doors{of: make(map[netip.AddrPort]*tested), none: make(chan struct{}), sooner: make(chan struct{}, 1), bind: plain}
	r.doors.announced.Store(&announced{replaced: make(chan struct{})})
	if r.release, err = cache.Hold(cfg.Dir, cfg.Log); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	defer func() {
		if made == nil {
			r.release()
		}
	}()
	if cfg.KeyDir != "" {
		cache.Sweep(cfg.KeyDir) // there may be keys in what a crash left
	}
	r.quota = quota{most: cfg.Quota, daily: cfg.QuotaDaily}
	if err := r.quota.load(cfg.Dir, cfg.Now()); err != nil {
		return nil, err
	}
	r.pausing.Store(&pausing{until: r.quota.pause(), replaced: make(chan struct{})})
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if err := r.identifyAs(&cfg); err != nil {
		return nil, err
	}
	if r.cache, err = cache.New(cache.Config{Network: cfg.Network, Dir: cfg.Dir, Past: cache.UsualPast(cfg.Dir), Log: r.log, Now: cfg.Now, Write: r.write, Chance: r.chance}); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r.known.Store(new(known))
	r.linkCfg = link.Config{
		Network: r.network, ID: r.id, Key: cfg.Keys.Link, Identify: r.identify, Tap: cfg.Tap, Log: r.log, Gate: r.gate, Now: cfg.Now,
		Rate:   link.NewRate(cfg.Rate, cfg.Burst),
		Budget: link.NewBudget(int64(cfg.MaxQueued)).LimitClosed(2 * cfg.MaxCircuits), Panicked: r.bug("a link"),
	}
	if cfg.Villain != nil {
		r.linkCfg.Bend = cfg.Villain.Cells
	}
	if cfg.Directory != nil { // who votes needs a clock that is better than others'
		r.clock.Limit = max(cfg.Network.WithDefaults().Voting/6, 10*time.Second)
	}
	r.pool = link.NewPool(link.PoolConfig{Link: r.linkCfg, Dial: cfg.Dial, Handler: r, Idle: idleLink, Dialed: r.dialed, Ended: r.unlinked})
	return r, nil
}

// identifyAs says who the relay is, and what it answers for and tells of itself.
func (r *Relay) identifyAs(cfg *Config) error {
	if cfg.Directory != nil {
		if cfg.ID.IsZero() {
			return errors.New("relay: an authority's node needs the authority's identity")
		}
		r.id = cfg.ID
		r.honour(onionKeys{current: cfg.Keys.Link})
		r.voters = votersBeside(r.id, cfg.Network)
		r.handshakes = newWaiting(mostHandshakes, len(r.voters.keys)+len(r.voters.at))
		return nil
	}
	r.id = cfg.Keys.ID()
	if s := cfg.Keys.Signer; cfg.Keys.Identity == nil && s != nil {
		if err := s.holds(cfg.Network, cfg.Now()); err != nil {
			return err
		}
		r.signer.Store(&signing{*s, make(chan struct{})})
	}
	if cfg.Keys.Made.IsZero() {
		cfg.Keys.Made = cfg.Now()
	}
	r.honour(onionKeys{cfg.Keys.Onion, cfg.Keys.Previous, cfg.Keys.Made})
	s, err := r.settle(cfg.Settings())
	if err == nil {
		r.settled.Store(s)
	}
	return err
}

// dice draws numbers below n, in any goroutine, of what may be foreseen: when something is done, and by which of many that do.
func (cfg *Config) dice() func(n uint64) uint64 {
	if cfg.Chance == nil {
		return rand.Uint64N
	}
	var mu sync.Mutex
	draw := rand.New(cfg.Chance)
	return func(n uint64) uint64 {
		mu.Lock()
		defer mu.Unlock()
		return draw.Uint64N(n)
	}
}

// write replaces a file, and counts it if that could not be.
func (r *Relay) write(name string, b []byte) error {
	err := r.cfg.Write(name, b)
	if err != nil {
		r.stats.Unwritten.Add(1)
	}
	return err
}

// dialer is how links are dialled.
func (cfg *Config) dialer() func(context.Context, string, string) (net.Conn, error) {
	if cfg.Dial == nil {
		return new(net.Dialer).DialContext
	}
	return cfg.Dial
}

func listenerAddrs(ls []net.Listener) []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, l := range ls {
		if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsUnspecified() {
			ap := a.AddrPort()
			addrs = append(addrs, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
		}
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare) // IPv4 first
	return addrs
}

// ID is who this relay is.
func (r *Relay) ID() cell.NodeID { return r.id }

// Stats are this relay's counters.
func (r *Relay) Stats() *Stats { return &r.stats }

// Run works until ctx ends, or until a listener fails for good or is closed by another, which is the error; then it closes every link and
// returns when the last goroutine of the relay is gone. A relay runs once: a second call is an error, and harms nothing.
func (r *Relay) Run(ctx context.Context) error {
	if !r.ran.CompareAndSwap(false, true) {
		return errRan
	}
	return r.run(ctx)
}

var errRan = errors.New("relay: Run was called before: make another relay, with new listeners")

func (r *Relay) run(ctx context.Context) error {
	defer r.release()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r.ctx = ctx

	var wg contain.Group
	part := func(what string, run func()) {
		wg.Go(func(p *contain.Panic) {
			r.panicked(what, p)
			fail(&partError{what, p})
		}, run)
	}
	part("handshakes", r.workers)
	part("what stands still", func() { r.keepMoving(ctx) })
	part("streams to the directory", func() { r.serveStreams(ctx) })
	for _, l := range r.cfg.Listeners {
		part("accepting links", func() {
			if err := r.acceptLinks(ctx, l); err != nil {
				fail(err)
			}
		})
	}
	if r.cfg.Directory == nil {
		part("the directory", func() { r.keepDirectory(ctx) })
		part("publishing", func() { r.keepPublished(ctx) })
		part("reachability", func() { r.keepReached(ctx) })
		part("onion keys", func() { r.keepOnion(ctx) })
		part("the certificate", func() { r.keepCertificate(ctx) })
		part("observed bandwidth", func() { r.keepObserved(ctx) })
		part("the quota", func() { r.keepQuota(ctx) })
	}
	<-ctx.Done()

	r.mu.Lock()
	r.closing = true
	r.mu.Unlock()
	for _, j := range r.handshakes.close() {
		j.lose()
	}
	r.dirStreams.Close()
	for _, l := range r.cfg.Listeners {
		l.Close()
	}
	r.pool.Close()
	for _, t := range r.all() {
		t.destroy()
	}
	r.wg.Wait()
	wg.Wait()
	var failed *listenerError
	if errors.As(context.Cause(ctx), &failed) {
		return failed
	}
	var bug *partError
	if errors.As(context.Cause(ctx), &bug) {
		return bug
	}
	return nil
}

// partError says that a part of the relay that it cannot be without ended by a bug.
type partError struct {
	part string
	bug  *contain.Panic
}

func (e *partError) Error() string { return fmt.Sprintf("relay: %s: %v", e.part, e.bug) }
func (e *partError) Unwrap() error { return e.bug }

// listenerError says that links can no longer arrive.
type listenerError struct {
	addr net.Addr
	err  error
}

func (e *listenerError) Error() string {
	return fmt.Sprintf("relay: no longer accepting links on %v: %v", e.addr, e.err)
}

func (e *listenerError) Unwrap() error { return e.err }

// passing are the errors of a listener that are over when others have closed something, or that are about one connection.
var passing = []error{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN, syscall.EINTR,
	syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EPERM, syscall.EPROTO,
}

const (
	acceptAgain  = 100 * time.Millisecond // after an error that passes
	acceptSilent = time.Minute            // between two warnings of them

	// Connections that are refused take an eighth of a core: it rests after so many, of some 20 µs each.
	refusedAtOnce = 32
	refusedRest   = 4 * time.Millisecond
)

// acceptLinks answers connections until ctx ends; an error is one that does not pass.
func (r *Relay) acceptLinks(ctx context.Context, l net.Listener) error {
	var wg contain.Group
	defer wg.Wait()
	var warned time.Time
	refused := 0 // since the last rest
	for {
		nc, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil { // only then does Run close it
				return nil
			}
			if !slices.ContainsFunc(passing, func(p error) bool { return errors.Is(err, p) }) {
				return &listenerError{l.Addr(), err}
			}
			if time.Since(warned) >= acceptSilent {
				warned = time.Now()
				r.log.Warn("cannot accept links for a moment", "why", err)
			}
			select {
			case <-time.After(acceptAgain):
			case <-ctx.Done():
			}
			continue
		}
		p := r.admitLink(nc)
		if p == nil {
			r.stats.LinksRefused.Add(1)
			nc.Close()
			if refused++; refused == refusedAtOnce {
				refused = 0
				time.Sleep(refusedRest)
			}
			continue
		}
		wg.Go(func(bug *contain.Panic) {
			r.panicked("link handshake", bug)
			nc.Close()
		}, func() {
			defer r.proved(p)
			r.acceptLink(ctx, nc)
		})
	}
}

func (r *Relay) acceptLink(ctx context.Context, nc net.Conn) {
	conn, err := link.Accept(ctx, nc, &r.linkCfg)
	if err != nil {
		r.stats.LinksRefused.Add(1)
		r.log.Debug("link refused", "why", err)
		return
	}
	if !r.takeLink(conn) {
		r.stats.LinksRefused.Add(1)
		conn.Close()
		return
	}
	r.heardFrom(addrOf(conn.RemoteAddr()))
	r.pool.Add(conn)
}

// serveStreams runs the web server of the directory over directory streams, until the last of its goroutines is gone.
func (r *Relay) serveStreams(ctx context.Context) {
	h := r.cfg.Directory
	if h == nil {
		h = r.withReach(withMeasure(r.cache))
	}
	if r.cfg.Villain != nil && r.cfg.Villain.Directory != nil {
		h = r.cfg.Villain.Directory(h)
	}
	s := &http.Server{
		Handler: metered(r.stats.Asked.count(h), &r.stats.Busy), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 5 * time.Minute,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 8 << 10, DisableGeneralOptionsHandler: true, ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
	s.ConnContext = withCaller
	var conns sync.WaitGroup
	s.ConnState = func(_ net.Conn, now http.ConnState) {
		switch now {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed:
			conns.Done()
		}
	}
	defer conns.Wait()
	defer contain.AtEnd(ctx, nil, func() { s.Close() })()
	s.Serve(r.dirStreams)
}

// guard keeps a panic to what caused it; false: there was one.
func (r *Relay) guard(name string, do func()) (ok bool) {
	p := contain.Do(do)
	if p != nil {
		r.panicked(name, p)
	}
	return p == nil
}

// panicked counts a panic and logs it.
func (r *Relay) panicked(name string, p *contain.Panic) {
	r.stats.Panics.Add(1)
	r.log.Error("a bug: please report this", "in", name, "panic", p.Value, "stack", p.Stack)
}

// bug tells of panics in what is named so.
func (r *Relay) bug(name string) func(*contain.Panic) {
	return func(p *contain.Panic) { r.panicked(name, p) }
}

// remember lists a circuit; false: there is no place for it. Another's circuit may end for it.
func (r *Relay) remember(t *transit) bool {
	r.mu.Lock()
	shed, ok := r.circuits.enter(&t.seat)
	if ok {
		r.transits[t] = struct{}{}
	}
	r.mu.Unlock()
	if shed != nil {
		r.stats.CircuitsShed.Add(1)
		shed.lose()
	}
	return ok
}

func (r *Relay) forget(t *transit) {
	r.mu.Lock()
	cross(&r.transits, t)
	r.circuits.leave(&t.seat)
	r.mu.Unlock()
}

func (r *Relay) all() []*transit {
	r.mu.Lock()
	defer r.mu.Unlock()
	ts := make([]*transit, 0, len(r.transits))
	for t := range r.transits {
		ts = append(ts, t)
	}
	return ts
}
