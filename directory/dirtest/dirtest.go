// Package dirtest makes whole networks for tests: authorities, relays with their keys, and a signed
// consensus of them in one call, the same for the same seed.
package dirtest

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"peel/cell"
	"peel/directory"
)

// ValidAfter is when the consensus holds from, unless At says otherwise.
var ValidAfter = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Net is a network as a test needs it.
type Net struct {
	Network     *directory.Network
	Authorities []Authority // in the order of Network.Authorities
	Relays      []Relay     // in the order of Consensus.Entries
	Consensus   *directory.Consensus
	Text        []byte // of the consensus, signed by all authorities
}

// Authority is an authority's keys.
type Authority struct {
	Info        directory.AuthorityInfo
	Identity    ed25519.PrivateKey
	Signing     ed25519.PrivateKey
	Link        *ecdh.PrivateKey
	Certificate directory.Certificate // of Signing, from a day before the consensus to 60 days after
}

// Relay is a relay's keys and descriptor.
type Relay struct {
	Identity   ed25519.PrivateKey
	Link       *ecdh.PrivateKey
	Onion      *ecdh.PrivateKey
	Descriptor directory.Descriptor // signed
	Text       []byte               // of the descriptor
}

// Option changes what New makes.
type Option func(*options)

type options struct {
	name        string
	authorities int
	validAfter  time.Time
	schedule    directory.Schedule
	params      directory.Params
	relay       []func(i int, d *directory.Descriptor)
	entry       []func(i int, e *directory.Entry)
}

// Authorities sets how many authorities there are; without it 5.
func Authorities(n int) Option { return func(o *options) { o.authorities = n } }

// Name sets the network's name; without it "dirtest".
func Name(s string) Option { return func(o *options) { o.name = s } }

// At sets when the consensus holds from, in whole seconds; without it ValidAfter.
func At(t time.Time) Option { return func(o *options) { o.validAfter = t } }

// Schedule sets the network's schedule; without it periods of an hour.
func Schedule(s directory.Schedule) Option { return func(o *options) { o.schedule = s } }

// Params sets the consensus's parameters; without it none.
func Params(p directory.Params) Option { return func(o *options) { o.params = p } }

// Relays changes each relay's descriptor before it is signed; i counts from 0 as relays are made.
func Relays(f func(i int, d *directory.Descriptor)) Option {
	return func(o *options) { o.relay = append(o.relay, f) }
}

// Entries changes each relay's entry before the consensus is signed; i counts as for Relays.
func Entries(f func(i int, e *directory.Entry)) Option {
	return func(o *options) { o.entry = append(o.entry, f) }
}

// New makes a network of n relays with 5 authorities of which enough must sign. Every third relay is
// an exit to ports 80 and 443, every second a guard; each has an IPv4 address in a /16 of its own
// (up to 51,200 relays) and a bandwidth of 1 to 100 MB/s. All is drawn from the seed. It panics when
// an option asks for what cannot be written.
func New(seed uint64, n int, opts ...Option) *Net {
	o := options{name: "dirtest", authorities: 5, validAfter: ValidAfter}
	for _, opt := range opts {
		opt(&o)
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	rng := rand.NewChaCha8(key)
	t := &Net{Network: &directory.Network{
		Name: o.name, Threshold: directory.MinThreshold(o.authorities), Schedule: o.schedule.WithDefaults(),
	}}
	for i := range o.authorities {
		t.addAuthority(rng, i)
	}
	check(t.Network.Check())
	id := t.Network.ID()
	for i := range t.Authorities {
		a := &t.Authorities[i]
		cert, err := directory.Certificate{
			Network: id, SigningKey: directory.SigningKey(a.Signing.Public().(ed25519.PublicKey)),
			NotBefore: o.validAfter.Add(-24 * time.Hour), NotAfter: o.validAfter.Add(60 * 24 * time.Hour),
		}.Certify(a.Identity)
		check(err)
		a.Certificate = cert
	}
	entries := make([]directory.Entry, n)
	for i := range n {
		t.Relays = append(t.Relays, newRelay(rng, i, id, &o))
		entries[i] = newEntry(i, &t.Relays[i], &o)
	}
	slices.SortFunc(t.Relays, func(a, b Relay) int { return bytes.Compare(a.Descriptor.ID[:], b.Descriptor.ID[:]) })
	slices.SortFunc(entries, func(a, b directory.Entry) int { return bytes.Compare(a.ID[:], b.ID[:]) })

	after, period := o.validAfter.UTC(), t.Network.Period
	c := &directory.Consensus{Entries: entries}
	c.Header = directory.Header{
		Network: id, Method: 1, ValidAfter: after, FreshUntil: after.Add(period), ValidUntil: after.Add(3 * period),
		Params: o.params, Shared: shared(t.Network, after), Weights: directory.WeightsOf(entries), Relays: n, Root: directory.Root(entries),
	}
	t.Text = t.Sign(c, o.authorities)
	t.Consensus = c
	return t
}

// Sign replaces the signatures of a consensus by those of the first k authorities and returns its
// text. Count and root are made to fit the entries.
func (t *Net) Sign(c *directory.Consensus, k int) []byte {
	c.Relays, c.Root, c.Signatures = len(c.Entries), directory.Root(c.Entries), nil
	for _, a := range t.Authorities[:k] {
		sig, err := c.Header.Sign(a.Certificate, a.Signing)
		check(err)
		c.Add(sig)
	}
	text, err := c.Encode()
	check(err)
	return text
}

// Vote makes the signed vote of authority i for the period of the consensus: it sees what the
// consensus says.
func (t *Net) Vote(i int) (*directory.Vote, []byte) {
	a := &t.Authorities[i]
	v := &directory.Vote{
		Network: t.Consensus.Network, ValidAfter: t.Consensus.ValidAfter,
		Published: t.Consensus.ValidAfter.Add(-10 * time.Minute), Methods: []int{1},
		KnownFlags: directory.AllFlags, Params: t.Consensus.Params, Shared: t.Consensus.Shared, Certificate: a.Certificate,
	}
	for run := max(v.Shared.Run, 1) - 1; run <= v.Shared.Run; run++ {
		c := directory.Commit(v.Network, run, a.Info.ID, [32]byte{byte(run), byte(run >> 8)})
		if run == v.Shared.Run {
			c.Reveal = directory.Digest{} // not yet
		}
		v.Commitments = append(v.Commitments, c)
	}
	for j := range t.Relays {
		r := &t.Relays[j]
		e := directory.VoteEntryOf(&r.Descriptor, r.Text, t.Consensus.Entries[j].Flags)
		if j%2 == 0 {
			e.Measured = e.Bandwidth + 1
		}
		v.Relays = append(v.Relays, e)
	}
	text, err := v.Sign(a.Signing)
	check(err)
	return v, text
}

// shared makes the shared random values of the run that a consensus belongs to, as if all revealed.
func shared(n *directory.Network, validAfter time.Time) directory.SharedRandom {
	run, _ := n.Schedule.Run(validAfter)
	var s directory.SharedRandom
	for r := max(run, 2) - 1; r <= run; r++ {
		var reveals []directory.Commitment
		for i := range n.Authorities {
			reveals = append(reveals, directory.Commit(n.ID(), r-1, n.Authorities[i].ID, [32]byte{byte(r), byte(r >> 8)}))
		}
		s = s.Next(n.ID(), r, reveals)
	}
	return s
}

func (t *Net) addAuthority(rng *rand.ChaCha8, i int) {
	a := Authority{Identity: edKey(rng), Signing: edKey(rng), Link: dhKey(rng)}
	a.Info = directory.AuthorityInfo{
		Nickname: fmt.Sprintf("authority%d", i+1),
		ID:       cell.NodeID(a.Identity.Public().(ed25519.PublicKey)),
		LinkKey:  cell.Key(a.Link.PublicKey().Bytes()),
		Addrs:    []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 9001)},
	}
	t.Authorities = append(t.Authorities, a)
	t.Network.Authorities = append(t.Network.Authorities, a.Info)
}

func newRelay(rng *rand.ChaCha8, i int, network cell.NetworkID, o *options) Relay {
	r := Relay{Identity: edKey(rng), Link: dhKey(rng), Onion: dhKey(rng)}
	bandwidth := 1_000_000 + rng.Uint64()%99_000_000
	r.Descriptor = directory.Descriptor{
		Network:   network,
		Nickname:  fmt.Sprintf("relay%d", i+1),
		Published: o.validAfter.Add(-time.Hour).UTC(),
		LinkKey:   cell.Key(r.Link.PublicKey().Bytes()),
		OnionKey:  cell.Key(r.Onion.PublicKey().Bytes()),
		Addrs:     []netip.AddrPort{netip.AddrPortFrom(relayAddr(i), 9001)},
		Bandwidth: bandwidth,
		Observed:  bandwidth,
		Version:   "0.1.0",
	}
	if i%3 == 0 {
		for _, port := range []uint16{80, 443} {
			r.Descriptor.Policy = append(r.Descriptor.Policy, directory.Rule{Accept: true, Lo: port, Hi: port})
		}
	}
	for _, f := range o.relay {
		f(i, &r.Descriptor)
	}
	text, err := r.Descriptor.Sign(r.Identity)
	check(err)
	r.Text = text
	return r
}

// relayAddr gives each relay a /16 of its own, from 11.0.0.0 on, as long as there are any.
func relayAddr(i int) netip.Addr {
	n := i % (200 * 256)
	return netip.AddrFrom4([4]byte{11 + byte(n/256), byte(n % 256), byte(i / (200 * 256)), 1})
}

func newEntry(i int, r *Relay, o *options) directory.Entry {
	flags := directory.Fast | directory.Running | directory.Stable | directory.Valid
	if len(r.Descriptor.Policy) > 0 {
		flags |= directory.Exit
	}
	if i%2 == 0 {
		flags |= directory.Guard | directory.HSDir
	}
	e := directory.VoteEntryOf(&r.Descriptor, r.Text, flags).Entry
	for _, f := range o.entry {
		f(i, &e)
	}
	return e
}

func edKey(rng *rand.ChaCha8) ed25519.PrivateKey {
	var seed [32]byte
	read(rng, seed[:])
	return ed25519.NewKeyFromSeed(seed[:])
}

func dhKey(rng *rand.ChaCha8) *ecdh.PrivateKey {
	var seed [32]byte
	read(rng, seed[:])
	if k, ok := made.Load(seed); ok {
		return k.(*ecdh.PrivateKey)
	}
	k, err := ecdh.X25519().NewPrivateKey(seed[:])
	check(err)
	made.Store(seed, k)
	return k
}

// made has each key by its seed: tests make the same networks again and again, and keys are most of what that takes.
var made sync.Map

func read(rng *rand.ChaCha8, b []byte) {
	_, err := rng.Read(b)
	check(err)
}

func check(err error) {
	if err != nil {
		panic(fmt.Sprintf("dirtest: %v", err))
	}
}
