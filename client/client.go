// Package client is the network as an application sees it: DialContext reaches any TCP service through three relays
// (spec/client.md).
//
// New checks a Config and starts nothing; Run works until its context ends and returns when the last goroutine is gone. In between
// any goroutine may call the methods, before Run and before the client is ready too: they wait.
//
//	c, err := client.New(client.Config{Network: network}) // network.toml, by directory.ParseNetwork
//	go c.Run(ctx)
//	web := &http.Client{Transport: &http.Transport{DialContext: c.DialContext}}
//
// For gRPC: grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return c.DialContext(ctx, "tcp", addr) }),
// with the target passthrough:///host:port, so that gRPC does not look the name up by itself.
//
// Give it names and not addresses: who looks a name up elsewhere tells the world where it goes to. Isolated keeps apart what different
// people or tasks do, and NewIdentity what is done later. The client has no globals, writes files only into Config.Dir, and logs only to
// Config.Log, neither hosts nor addresses of whom it serves. A bug in it is an error and in the log, and not the end of your program.
//
// # State
//
// New makes the folder Config.Dir where it is missing; a relative one is taken from the working directory of that moment. A folder is for
// one client at a time: of two, one would overwrite the guards of the other, which would then enter by more relays than it should. So New
// locks a file in it, and for a folder that a client or relay uses, of this program or another, its error is ErrInUse. Run gives the folder
// back when it returns, at once if its context has ended before; so does the end of the program, however it comes. Where there are no locks,
// as on some network file systems, the log says so and nothing hinders a second client.
//
// # Errors
//
// Errors are wrapped: ask errors.Is and errors.As, not the text, which changes. Of those of DialContext, DialEarly, Resolve, Ready and of connections:
//
//	context.Canceled                           your ctx was cancelled; the cause is in the error too (context.WithCancelCause)
//	context.DeadlineExceeded                   its deadline passed, likewise; or, where ctx.Err() is nil, each circuit tried was silent for 25 s
//	os.ErrDeadlineExceeded                     a deadline that was set on the connection
//	client.ErrClosed, net.ErrClosed            Run has ended: of calls, and of connections that were open
//	net.ErrClosed alone                        the connection was closed here
//	client.ErrNotRunning                       ctx ended, and Run had not been called
//	&stream.EndError{Reason: cell.EndRefused}  the host refused; for errors.Is, as the next ones
//	&stream.EndError{Reason: cell.EndNotFound} there is no such host, or it is a name that no exit is told
//	&stream.EndError{Reason: cell.EndReset}    the host reset the connection
//	*stream.EndError                           for errors.As: all that the far end says; its Reason says which
//	*stream.SentError                          of DialEarly: the first bytes may have arrived all the same
//	*circuit.DestroyedError                    a relay under the connection ended it or died, or the link to the first was lost: dial again
//	path.ErrNoExit                             no exit carries that port
//	net.Error                                  for errors.As: all those of dials and look-ups; its Timeout says whether it was a deadline, or the host did not answer the exit in time
//
// The packages are peel/circuit, peel/circuit/stream, peel/cell and peel/client/path. SOCKSCode makes one byte of an error.
//
// A connection has no deadline unless you set one: nothing ends it while the relays under it live, so it may stand still for long. Give reads
// and writes deadlines of their own.
//
// Names under .onion, .alt, .local, .internal, .home.arpa and .invalid are refused here at once and told to no exit; so are localhost and names
// without a dot by Resolve, while DialContext leaves localhost and 127.0.0.1 to the exit, whose own they would be: as a rule it refuses.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/circuit"
	"peel/circuit/stream"
	"peel/client/path"
	"peel/directory"
	"peel/directory/cache"
)

// Config is what a client is told. Network is needed; the rest has defaults.
type Config struct {
	Network  *directory.Network
	Dir      string     // folder for the consensus and the guards, of this client alone, which New makes; "": nothing is written, and each start chooses new guards, which is a risk
	Paths    path.Rules // relays that paths must not have, besides the rules for all
	Spare    int        // circuits kept ready, at most 64; 0: 3
	Circuits int        // at most so many at a time, those being built included; 0: 1024
	Memory   int64      // bytes that came and that applications have not read yet, at most, in all (spec/queues.md, section 5); 0: 256 MiB
	NoRacing bool       // a stream whose answer is late is not tried on a second circuit meanwhile: no target is connected to twice

	Dial     func(ctx context.Context, network, addr string) (net.Conn, error) // to the first relay; nil: net.Dialer
	Progress func(Progress)                                                    // how the start goes on, and without Log also that the relay list has expired; called from Run's goroutines, must not block
	Events   func(Event)                                                       // circuits and the start; called one at a time from a goroutine of Run's, which waits for it to return
	Tap      func(in bool, cells []cell.Cell)                                  // for tests and instruments (link.Config)
	Log      *slog.Logger                                                      // nil: silent
	silent   bool                                                              // so it was

	Now    func() time.Time                  // what the clock says that people have; nil: time.Now. How long things take is not asked of it
	Write  func(name string, b []byte) error // replaces a file of Dir as a whole; nil: cache.WriteFile
	Chance rand.Source                       // for laboratories, in which the same is to happen again: of guards, paths and when a directory is asked. nil: the system's, which nobody can foresee
}

const (
	defaultSpare    = 3
	mostSpare       = 64
	defaultMemory   = 256 << 20
	defaultCircuits = 1024 // a SOCKS server's 1000 connections, each isolated from all others, and spare ones
)

// LeastMemory is the least Config.Memory that a client works with: a few streams at full speed.
const LeastMemory = 16 << 20

// withDefaults fills in what was left out, and refuses what cannot work.
func (cfg Config) withDefaults() (Config, error) {
	if cfg.Network == nil {
		return cfg, errors.New("client: no network given: a client needs the network file")
	}
	if err := cfg.Network.Check(); err != nil {
		return cfg, fmt.Errorf("client: %w", err)
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Spare == 0 {
		cfg.Spare = defaultSpare
	}
	if cfg.Circuits == 0 {
		cfg.Circuits = defaultCircuits
	}
	if cfg.Memory == 0 {
		cfg.Memory = defaultMemory
	}
	if cfg.Memory < LeastMemory {
		return cfg, fmt.Errorf("client: %d bytes of memory: give at least %d", cfg.Memory, LeastMemory)
	}
	if cfg.Spare < 0 || cfg.Spare > mostSpare {
		return cfg, fmt.Errorf("client: %d spare circuits: give 1 to %d", cfg.Spare, mostSpare)
	}
	if cfg.Circuits <= cfg.Spare {
		return cfg, fmt.Errorf("client: at most %d circuits with %d spare ones: give more than that", cfg.Circuits, cfg.Spare)
	}
	if cfg.Dir != "" { // where it is now, wherever the program goes later
		var err error
		if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
			return cfg, fmt.Errorf("client: %w", err)
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Write == nil {
		cfg.Write = cache.WriteFile
	}
	if cfg.Log == nil {
		cfg.silent = true
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg, nil
}

// Client is made by New and works while Run runs. Its methods may be called at any time from any goroutine.
type Client struct {
	*core
	token   any   // streams of different tokens never share a circuit
	refused error // why the token is none
}

// core is what the isolated views of a client share.
type core struct {
	cfg     Config
	network cell.NetworkID
	log     *slog.Logger
	cache   *cache.Cache
	pool    *pool
	unread  *stream.Budget // of the streams of all circuits
	boot    bootstrap
	events  events
	panics  atomic.Uint64
	unkept  atomic.Uint64 // files that could not be replaced
	clock   directory.Clock
	stale   atomic.Bool // it was told that no relay list holds now
	chance  throws
	virtual *virtual
	machine machine
	ended   chan struct{} // closed when Run is about to return
	release func()        // gives the folder back

	ruling sync.Mutex // goes before the pool's; held while a consensus or rules are taken into use
	rules  path.Rules

	mu    sync.Mutex
	links *link.Pool // nil until Run
	turn  int        // which authority is asked next
}

// New checks the configuration, and takes the folder for this client. It starts nothing.
func New(cfg Config) (*Client, error) {
	ownDial := cfg.Dial != nil
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	release, err := cache.Hold(cfg.Dir, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c, err := open(cfg, ownDial)
	if err != nil {
		release()
		return nil, err
	}
	c.release = release
	return &Client{core: c}, nil
}

// open makes a client of what is in the folder that it holds.
func open(cfg Config, ownDial bool) (_ *core, err error) {
	c := &core{
		cfg: cfg, rules: cfg.Paths, network: cfg.Network.ID(), log: cfg.Log, ended: make(chan struct{}),
		unread: stream.NewBudget(stream.Limits{Unread: int(min(cfg.Memory, math.MaxInt))}),
	}
	c.chance = cfg.throws()
	c.turn = int(c.chance.directory(uint64(max(1, len(cfg.Network.Authorities)))))
	if c.cache, err = cache.New(cache.Config{Network: cfg.Network, Dir: cfg.Dir, Log: cfg.Log, Now: cfg.Now, Write: c.write, Chance: c.chance.directory}); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	prefix, err := loadPrefix(cfg.Dir)
	if err != nil {
		return nil, err
	}
	c.virtual = newVirtual(prefix, rand.Uint32())
	c.machine = thisMachine(ownDial)
	c.machine.wall = func() time.Time { return cfg.Now().Round(0) }
	guards, file, err := loadGuards(cfg.Dir, c.network)
	if err != nil {
		return nil, err
	}
	c.events.init(cfg.Events)
	c.boot.init(cfg.Progress, &c.events)
	c.pool = newPool(c, guards, file)
	c.pool.loadTimes(cfg.Dir)
	return c, nil
}

// Isolated returns a view of the client whose streams share no circuit with those of any other token. Tokens are
// compared with ==, so views of equal tokens are alike, and nil is the client's own. A token that is equal to nothing or
// cannot be compared (a slice, a map, a function, a NaN, or what holds one) is refused by every dial of the view.
func (c *Client) Isolated(token any) *Client {
	v := &Client{core: c.core}
	switch {
	case token == nil:
	case !reflect.ValueOf(token).Comparable() || token != token: // the latter is a NaN
		v.refused = fmt.Errorf("client: isolation: a token of type %T is not equal to itself or cannot be compared: give a string, or a struct of such", token)
	default:
		v.token = token
	}
	return v
}

var (
	// ErrNotRunning is in the errors of those that gave up waiting while Run had not been called.
	ErrNotRunning = errors.New("client: not running: call Run first")
	// ErrInUse is in New's error for a folder that a client or relay uses already.
	ErrInUse = cache.ErrInUse
	// ErrClosed is what a client says when its Run has ended.
	ErrClosed = fmt.Errorf("client: its Run has ended: %w", net.ErrClosed)
)

// Run keeps a consensus and a few circuits ready until ctx ends; it returns when the last goroutine of the client is
// gone, and nil. A client runs once: a second call is an error, and harms nothing. A bug that stops it is an error too.
func (c *Client) Run(ctx context.Context) error {
	links := c.start()
	if links == nil {
		return errors.New("client: Run was called before: make another client")
	}
	defer c.release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg contain.Group
	part := func(what string, run func(context.Context)) {
		wg.Go(nil, func() {
			if err := c.contain(what, func() { run(ctx) }); err != nil {
				cancel(err)
			}
		})
	}
	part("the directory", c.followDirectory)
	part("the circuits", c.pool.run)
	part("the watch over the machine", c.watch)
	telling, told := context.WithCancel(context.Background())
	var teller contain.Group
	teller.Go(c.bug("telling of events"), func() { c.events.run(telling) })
	<-ctx.Done()
	close(c.ended)
	c.pool.close() // before the links, so that streams do not say that one was lost
	links.Close()
	wg.Wait()
	c.pool.end() // again, if a bug ended its run
	told()
	teller.Wait()
	if err := context.Cause(ctx); errors.Is(err, errPanic) {
		return err
	}
	return nil
}

// start makes the links of the client; nil: they were made before.
func (c *core) start() *link.Pool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.links != nil {
		return nil
	}
	c.links = link.NewPool(link.PoolConfig{
		Link: link.Config{Network: c.network, Tap: c.cfg.Tap, Log: c.log, Now: c.cfg.Now, Panicked: c.bug("a link")}, Dial: c.cfg.Dial, Dialed: c.dialed,
	})
	return c.links
}

// write replaces a file, and counts it if that could not be.
func (c *core) write(name string, b []byte) error {
	err := c.cfg.Write(name, b)
	if err != nil {
		c.unkept.Add(1)
	}
	return err
}

// Unwritten counts the files that could not be replaced since New: the disk is full, or broken.
func (c *Client) Unwritten() uint64 { return c.unkept.Load() }

// dialed hears what a node's clock says, and tells once when ours is wrong.
func (c *core) dialed(p link.Peer, conn *link.Conn) {
	c.clock.Heard(p.ID, conn.Skew())
	if w := c.clock.Warning(); w != "" {
		c.log.Warn(w)
	}
}

// on has do open a circuit on a link to peer. A link may have ended, being idle or unnoticed: then there is a new one
// to be had.
func (c *core) on(ctx context.Context, peer link.Peer, do func(*link.Conn) error) error {
	c.mu.Lock()
	links := c.links
	c.mu.Unlock()
	if links == nil {
		return ErrNotRunning
	}
	for again := true; ; again = false {
		get, cancel := context.WithTimeout(ctx, c.pool.guardWait())
		conn, err := links.Get(get, peer)
		cancel()
		if err != nil {
			return err
		}
		if err = do(conn); !again || !broke(err) {
			return err
		}
	}
}

// broke says whether a link ended before the peer answered anything on it: that says little of the peer, a new link more.
func broke(err error) bool {
	var at *circuit.BuildError
	var ended *circuit.DestroyedError
	return errors.Is(err, link.ErrClosed) || errors.As(err, &at) && at.Hop == 0 && errors.As(err, &ended) && ended.Reason == cell.DestroyLinkClosed
}

// build makes a circuit along p.
func (c *core) build(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
	hops := make([]circuit.Hop, len(p))
	for i, e := range p {
		hops[i] = circuit.Hop{ID: e.ID, LinkKey: e.LinkKey, OnionKey: e.OnionKey, Addrs: e.Addrs}
	}
	first := link.Peer{ID: hops[0].ID, Key: hops[0].LinkKey, Addrs: hops[0].Addrs}
	var made *circuit.Circuit
	err := c.on(ctx, first, func(conn *link.Conn) (err error) {
		made, err = circuit.Build(ctx, conn, circuit.Config{Network: c.network, Budget: c.unread, Log: c.log, Panicked: c.bug("a circuit")}, hops)
		return err
	})
	var at *circuit.BuildError
	if err != nil && !errors.As(err, &at) {
		err = &circuit.BuildError{Hop: 0, Err: err}
	}
	return made, err
}
