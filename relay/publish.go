package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/circuit"
	"peel/directory"
	"peel/directory/cache"
)

// Version is what a descriptor says of the software.
const Version = "peel-0.1.0"

const (
	authorityTimeout = 15 * time.Second
	leastRepublish   = 10 * time.Minute
	leastBetween     = 5 * time.Second
	firstRetry       = 200 * time.Millisecond // doubled with each failure, up to a period
)

// known is the relay's directory, arranged for its two questions: how is a node reached, and whose is a link key. It holds
// the relays of every consensus that some client may still use, the newest word on each.
type known struct {
	peers map[cell.NodeID]knownPeer
	nodes map[cell.Key]cell.NodeID
}

type knownPeer struct {
	link.Peer
	until time.Time // the last consensus that lists it is of use
}

// usedAfter is how long after its end a consensus may be in use (spec/directory.md).
const usedAfter = 24 * time.Hour

// with adds a consensus to what is known and forgets what is too old for any client.
func (k *known) with(c *directory.Consensus) *known {
	next := &known{peers: make(map[cell.NodeID]knownPeer), nodes: make(map[cell.Key]cell.NodeID)}
	for id, p := range k.peers {
		if p.until.After(c.ValidAfter) {
			next.peers[id] = p
		}
	}
	for i := range c.Entries {
		e := &c.Entries[i]
		next.peers[e.ID] = knownPeer{link.Peer{ID: e.ID, Key: e.LinkKey, Addrs: e.Addrs}, c.ValidUntil.Add(usedAfter)}
	}
	for id, p := range next.peers {
		next.nodes[p.Key] = id
	}
	return next
}

func (r *Relay) lookup(id cell.NodeID) (link.Peer, bool) {
	p, ok := r.known.Load().peers[id]
	return p.Peer, ok
}

func (r *Relay) identify(k cell.Key) (cell.NodeID, bool) {
	id, ok := r.known.Load().nodes[k]
	return id, ok
}

// keepDirectory follows the network's consensus.
func (r *Relay) keepDirectory(ctx context.Context) {
	var once sync.Once
	for ctx.Err() == nil && !r.guard("directory", func() { r.follow(ctx, &once) }) {
		select {
		case <-time.After(authorityTimeout):
		case <-ctx.Done():
		}
	}
}

func (r *Relay) follow(ctx context.Context, first *sync.Once) {
	r.cache.Follow(ctx, cache.Sources{
		Authority: func(ctx context.Context) (net.Conn, error) {
			as := r.cfg.Network.Authorities
			return r.dialAuthority(ctx, as[r.chance(uint64(len(as)))])
		},
		Relay: r.dialRelay, Alone: r.alone,
	}, func(c *directory.Consensus) {
		r.known.Store(r.known.Load().with(c))
		r.lookAtOnion() // now that the clock is borne out, and before a key is told that is not to stay
		first.Do(func() { close(r.informed) })
		r.newDirectory()
		r.tellListed(ctx, r.presence(c), c.ValidAfter)
		r.listing.stale.Store(false)
	}, func(err error) {
		r.tellStale(err)
		r.tellCutOff(err)
		r.noDirectory(err)
	})
}

// dialAuthority opens a directory stream to an authority, over a circuit of one hop.
func (r *Relay) dialAuthority(ctx context.Context, a directory.AuthorityInfo) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, authorityTimeout)
	defer cancel()
	conn, err := r.pool.Get(ctx, link.Peer{ID: a.ID, Key: a.LinkKey, Addrs: a.Addrs})
	if err != nil {
		return nil, err
	}
	hop := circuit.Hop{ID: a.ID, LinkKey: a.LinkKey, OnionKey: a.LinkKey, Addrs: a.Addrs}
	return circuit.DialDirectory(ctx, conn, circuit.Config{Network: r.network, Log: r.log, Panicked: r.bug("a circuit")}, hop)
}

// dialRelay opens a directory stream to another relay, drawn from the directory, over a circuit of one hop.
func (r *Relay) dialRelay(ctx context.Context, not []cell.NodeID) (net.Conn, cell.NodeID, error) {
	c := r.cache.Consensus()
	if c == nil {
		return nil, cell.NodeID{}, cache.ErrNone
	}
	e := cache.Pick(c, func(id cell.NodeID) bool { return id == r.id || slices.Contains(not, id) }, r.chance)
	if e == nil {
		return nil, cell.NodeID{}, errors.New("relay: no other relay is left to ask for the directory")
	}
	ctx, cancel := context.WithTimeout(ctx, authorityTimeout)
	defer cancel()
	conn, err := r.pool.Get(ctx, link.Peer{ID: e.ID, Key: e.LinkKey, Addrs: e.Addrs})
	if err != nil {
		return nil, e.ID, err
	}
	hop := circuit.Hop{ID: e.ID, LinkKey: e.LinkKey, OnionKey: e.OnionKey, Addrs: e.Addrs}
	nc, err := circuit.DialDirectory(ctx, conn, circuit.Config{Network: r.network, Log: r.log, Panicked: r.bug("a circuit")}, hop)
	return nc, e.ID, err
}

// alone says whether the directory has no other relay to ask.
func (r *Relay) alone() bool {
	c := r.cache.Consensus()
	return c == nil || cache.Pick(c, func(id cell.NodeID) bool { return id == r.id }, func(uint64) uint64 { return 0 }) == nil
}

// errUntested is of settings that came just now: their addresses are not tested yet.
var errUntested = errors.New("relay: it is not known yet whether others reach the addresses in the settings")

// descriptor is what this relay says of itself now, signed.
func (r *Relay) descriptor(now time.Time) ([]byte, error) {
	s := r.settled.Load().Settings
	a := r.doors.announced.Load()
	if len(a.addrs) == 0 || !slices.Equal(a.of, s.Addrs) {
		return nil, errUntested
	}
	s.Addrs = a.addrs // those where others reach it
	return r.describe(&s, now)
}

// describe is what it says with these settings.
func (r *Relay) describe(s *Settings, now time.Time) ([]byte, error) {
	c := &r.cfg
	d := directory.Descriptor{
		Network: r.network, Nickname: c.Nickname, Contact: s.Contact, Version: Version, Published: now.UTC().Truncate(time.Second),
		LinkKey:  cell.Key(c.Keys.Link.PublicKey().Bytes()),
		OnionKey: cell.Key(r.onion.Load().current.PublicKey().Bytes()),
		Addrs:    s.Addrs, Bandwidth: s.Bandwidth, Observed: c.Villain.observed(r.observed.Load()), Family: directory.SortFamily(s.Family), Policy: s.Exit,
		Overloaded: r.Overloaded(now), Paused: r.pausing.Load().until,
	}
	b, err := r.sign(&d, now)
	if err != nil {
		return nil, fmt.Errorf("relay: the configuration makes no valid descriptor: %w", err)
	}
	return b, nil
}

// described is a descriptor that is sent to all authorities until it is replaced, so that they vote for the same one.
type described struct {
	text     []byte
	made     time.Time
	until    time.Time
	keys     *honoured
	settings *settled
	pausing  *pausing
	signer   *signing
	told     *announced
}

// timely says that it is not yet time for another, by the clock that people have: one that was made by a wrong clock is refused.
func (d *described) timely(now time.Time) bool {
	return now.Before(d.until) && now.After(d.made.Add(-directory.MaxSkew))
}

// current is the descriptor to send now: the one before, unless half to a whole period (of ten minutes at least) has passed since,
// or it is not true any more, or it is refused as too old.
func (r *Relay) current(now time.Time, refused *described) (*described, error) {
	r.describing.Lock()
	defer r.describing.Unlock()
	d := r.described
	if d != nil && d != refused && d.timely(now) && d.keys == r.onion.Load() && d.settings == r.settled.Load() && d.pausing == r.pausing.Load() && d.signer == r.signer.Load() && d.told.same(r.doors.announced.Load()) {
		return d, nil
	}
	wait := max(r.cfg.Network.WithDefaults().Period, leastRepublish)
	d = &described{keys: r.onion.Load(), settings: r.settled.Load(), pausing: r.pausing.Load(), signer: r.signer.Load(), told: r.doors.announced.Load(), made: now.Round(0)}
	d.until = d.made.Add(wait/2 + time.Duration(r.chance(uint64(wait/2))))
	var err error
	if d.text, err = r.descriptor(now); err != nil {
		return nil, err
	}
	r.described = d
	return d, nil
}

// keepPublished sends the descriptor to every authority at the start and again when there is another (current), at once when the onion key or the
// settings are others (but no sooner than leastBetween after the one before), and soon again to those that could not be reached. While it is not
// known that others reach the relay, nothing is sent.
func (r *Relay) keepPublished(ctx context.Context) {
	var wg contain.Group
	defer wg.Wait()
	for _, a := range r.cfg.Network.Authorities {
		wg.Go(r.bug("publish"), func() {
			retry := firstRetry
			var refused *described
			for {
				told := r.announcing(ctx)
				if told == nil {
					return
				}
				keys, settings, pausing := r.onion.Load(), r.settled.Load(), r.pausing.Load()
				var renewed chan struct{} // nil: never
				if s := r.signer.Load(); s != nil {
					renewed = s.replaced
				}
				var d *described
				err := errPanic
				r.guard("publish", func() {
					if d, err = r.current(r.cfg.Now(), refused); err == nil {
						err = r.publish(ctx, a, d.text)
					}
				})
				if errors.Is(err, errUntested) {
					continue
				}
				var wait time.Duration
				if err != nil {
					r.log.Log(ctx, refusal(err), "descriptor not taken", "authority", a.Nickname, "why", err)
					if outdated(err) {
						refused = d
					}
					wait = retry/2 + time.Duration(r.chance(uint64(retry/2)))
					retry = min(2*retry, max(r.cfg.Network.WithDefaults().Period, leastRepublish))
				} else {
					wait, retry = d.until.Sub(r.cfg.Now()), firstRetry
					r.listing.took(r.cfg.Now())
				}
				select {
				case <-time.After(wait):
				case <-keys.replaced:
				case <-pausing.replaced:
				case <-told.replaced:
				case <-renewed:
				case <-settings.replaced:
					select { // an operator who changes much in a short time tells it in one
					case <-time.After(leastBetween):
					case <-ctx.Done():
						return
					}
				case <-ctx.Done():
					return
				}
			}
		})
	}
}

// refusal is how loudly a descriptor that was not taken is told: an authority that says no is the operator's to hear of, one
// that is not there is tried again soon.
func refusal(err error) slog.Level {
	var no *cache.StatusError
	if errors.As(err, &no) && no.Code/100 == 4 && no.Code != http.StatusConflict {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// outdated says that an authority knows another descriptor, not older than this one.
func outdated(err error) bool {
	var no *cache.StatusError
	return errors.As(err, &no) && no.Code == http.StatusConflict
}

// publish sends a descriptor to one authority.
func (r *Relay) publish(ctx context.Context, a directory.AuthorityInfo, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, authorityTimeout)
	defer cancel()
	return cache.Post(ctx, func(ctx context.Context) (net.Conn, error) { return r.dialAuthority(ctx, a) }, "/peel/descriptor", body)
}
