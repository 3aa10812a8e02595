package link

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/hybrid"
)

// The handshake (spec/link.md, section 2).
const (
	version          = 1
	firstNK          = version<<4 | 1
	firstIK          = version<<4 | 2
	protocol         = "peel link v1" // begins the prologue
	recordLabel      = "peel link v1 records"
	clockSize        = 8
	payloadSize      = clockSize + 16 // of message 2: the responder's clock, the address it sees
	replySize        = hybrid.ReplyOverhead + payloadSize
	confirmSize      = headerSize + cell.Size + tagSize // the initiator's first record: one PADDING cell
	handshakeTimeout = 5 * time.Second
)

// prologue binds a handshake to the protocol, the network and the node that is to answer.
func prologue(network cell.NetworkID, responder cell.NodeID) []byte {
	p := append([]byte(protocol), network[:]...)
	return append(p, responder[:]...)
}

// Dial makes nc, a fresh connection to peer, a link to it: proving who we are if cfg has a key, else anonymously. It
// takes at most 5 s, and closes nc if it fails or ctx ends first. Every error is an *Error with ReasonHandshake, or
// with ReasonBug. peer.Addrs is not looked at.
func Dial(ctx context.Context, nc net.Conn, cfg *Config, peer Peer) (*Conn, error) {
	return guarded(ctx, nc, cfg, func() (*Conn, error) { return dial(nc, cfg.withDefaults(), peer) })
}

// Accept makes nc, a connection that somebody opened to us, a link. It returns when the other end has proved that it
// took part in this very handshake and holds the keys, so that the replay of an old one comes to nothing. It reads at
// most 8 KiB, takes at most 5 s, and closes nc if it fails or ctx ends first. Every error is an *Error with
// ReasonHandshake, or with ReasonBug.
func Accept(ctx context.Context, nc net.Conn, cfg *Config) (*Conn, error) {
	return guarded(ctx, nc, cfg, func() (*Conn, error) { return accept(nc, cfg.withDefaults()) })
}

// guarded runs a handshake over nc within the time it may take.
func guarded(ctx context.Context, nc net.Conn, cfg *Config, handshake func() (*Conn, error)) (*Conn, error) {
	err := nc.SetDeadline(time.Now().Add(handshakeTimeout))
	var c *Conn
	if err == nil {
		stop := contain.OnDone(ctx, nil, func() { nc.Close() })
		if bug := contain.Do(func() {
			contain.Point("link: handshake")
			c, err = handshake()
		}); bug != nil {
			cfg.panicked(bug)
			c, err = nil, fault(ReasonBug, "handshake: %w", bug)
		}
		if !stop() {
			err = context.Cause(ctx)
		}
	}
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err == nil {
		return c, nil
	}
	nc.Close()
	var e *Error
	if !errors.As(err, &e) {
		e = fault(ReasonHandshake, "handshake: %w", err)
	}
	return nil, e
}

// dial is the initiator's side.
func dial(nc net.Conn, cfg Config, peer Peer) (*Conn, error) {
	hc := hybrid.Config{Pattern: hybrid.NK, Prologue: prologue(cfg.Network, peer.ID), Peer: peer.Key}
	first := byte(firstNK)
	if cfg.Key != nil {
		hc.Pattern, hc.Static, first = hybrid.IK, cfg.Key, firstIK
	}
	hs, request, err := hybrid.Initiate(hc)
	if err != nil {
		return nil, fault(ReasonHandshake, "handshake with %v: %w", peer.ID, err)
	}
	began := time.Now()
	if _, err := nc.Write(append([]byte{first}, request...)); err != nil {
		return nil, fault(ReasonHandshake, "handshake with %v: %w", peer.ID, err)
	}
	reply := make([]byte, replySize)
	if _, err := io.ReadFull(nc, reply); err != nil {
		return nil, noReply(peer, err)
	}
	now := time.Now()
	payload, secrets, err := hs.Finish(reply)
	if err != nil {
		return nil, fault(ReasonHandshake, "%v is not at the other end: the reply does not verify: %w", peer.ID, err)
	}
	defer secrets.Erase()
	ours, theirs := keys(secrets)
	c := newConn(nc, cfg, true, theirs, ours)
	c.peer, c.named, c.peerKey = peer.ID, true, peer.Key
	if err := c.readPayload(payload, cfg.clock().Add(began.Sub(now)/2)); err != nil {
		return nil, err
	}
	confirm, err := c.out.seal(make([]byte, confirmSize), 1)
	if err != nil {
		return nil, err
	}
	_, err = nc.Write(confirm)
	return c, err
}

// noReply says what it may mean that message 2 did not come. The responder says nothing to callers it does not
// understand, so a wrong key, a wrong identity and a wrong network look the same here.
func noReply(peer Peer, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fault(ReasonHandshake, "handshake with %v: no answer within %v: is there a relay at this address? %w", peer.ID, handshakeTimeout, err)
	}
	return fault(ReasonHandshake, "handshake with %v: the other end hung up: it may be another relay, hold another link key, "+
		"be of another network, or have no room: %w", peer.ID, err)
}

// accept is the responder's side. Before message 1 verifies it keeps nothing but that message.
func accept(nc net.Conn, cfg Config) (*Conn, error) {
	if cfg.Key == nil {
		return nil, fault(ReasonHandshake, "handshake: cannot accept links without a link key")
	}
	buf := make([]byte, confirmSize)
	if _, err := io.ReadFull(nc, buf[:1]); err != nil {
		return nil, silent(err)
	}
	hc := hybrid.Config{Prologue: prologue(cfg.Network, cfg.ID), Static: cfg.Key}
	switch buf[0] {
	case firstNK:
		hc.Pattern = hybrid.NK
	case firstIK:
		hc.Pattern = hybrid.IK
	default:
		return nil, fault(ReasonHandshake, "handshake: it begins with %#02x, which is no handshake of version %d: not a node of this "+
			"kind, or one of another version", buf[0], version)
	}
	request := buf[:hybrid.RequestSize(hc.Pattern)]
	if _, err := io.ReadFull(nc, request); err != nil {
		return nil, silent(err)
	}
	var reply []byte
	var secrets *hybrid.Secrets
	var err error
	respond := func() {
		reply, secrets, err = hybrid.Respond(hc, request, appendPayload(nil, cfg.clock(), nc.RemoteAddr()))
	}
	if cfg.Gate == nil {
		respond()
	} else if !cfg.Gate(nc.RemoteAddr(), respond) {
		return nil, fault(ReasonHandshake, "handshake: others were answered first")
	}
	if err != nil {
		return nil, fault(ReasonHandshake, "handshake: the caller means another network, another relay or an old link key, or is "+
			"none of ours: %w", err)
	}
	defer secrets.Erase()
	theirs, ours := keys(secrets)
	if _, err := nc.Write(reply); err != nil {
		return nil, err
	}
	c := newConn(nc, cfg, false, theirs, ours)
	// Message 1 may be a replay. Whoever sends the first record has the keys.
	if _, err := io.ReadFull(nc, buf); err != nil {
		return nil, silent(err)
	}
	if n, err := recordSize(buf); err != nil || n != confirmSize {
		return nil, fault(ReasonHandshake, "handshake: the first record is not one cell")
	}
	cells, err := c.in.open(buf)
	if err != nil {
		return nil, fault(ReasonHandshake, "handshake: the caller does not have the keys: it repeats an old call: %w", err)
	}
	if cells[0] != (cell.Cell{}) {
		return nil, fault(ReasonHandshake, "handshake: the first cell is not PADDING")
	}
	if hc.Pattern == hybrid.IK {
		c.peerKey = secrets.Peer
	}
	if hc.Pattern == hybrid.IK && cfg.Identify != nil {
		c.peer, c.named = cfg.Identify(secrets.Peer)
	}
	return c, nil
}

// silent says what it means that the caller stopped.
func silent(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fault(ReasonHandshake, "handshake: the caller was silent for %v: %w", handshakeTimeout, err)
	}
	return fault(ReasonHandshake, "handshake: the caller hung up: %w", err)
}

// keys are the first keys of the records: those the initiator sends, those the responder sends.
func keys(s *hybrid.Secrets) (initiator, responder []byte) {
	k := s.Expand(recordLabel, 2*keySize)
	return k[:keySize], k[keySize:]
}

// appendPayload appends the payload of message 2: milliseconds since 1970, and the caller's address, IPv4 mapped into
// IPv6, zero if it has none.
func appendPayload(b []byte, now time.Time, caller net.Addr) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(now.UnixMilli()))
	a := netip.IPv6Unspecified()
	if t, ok := caller.(*net.TCPAddr); ok {
		if ip := t.AddrPort().Addr(); ip.IsValid() {
			a = ip
		}
	}
	as16 := a.As16()
	return append(b, as16[:]...)
}

// readPayload takes the payload of message 2; asked is when it was written, by our clock.
func (c *Conn) readPayload(b []byte, asked time.Time) error {
	if len(b) != payloadSize {
		return fault(ReasonHandshake, "handshake: a payload of %d bytes, want %d", len(b), payloadSize)
	}
	ms := binary.BigEndian.Uint64(b)
	if ms > math.MaxInt64 {
		return fault(ReasonHandshake, "handshake: the responder's clock shows no time")
	}
	c.skew = time.UnixMilli(int64(ms)).Sub(asked.Round(0))
	if a := netip.AddrFrom16([16]byte(b[clockSize:])); !a.IsUnspecified() {
		c.observed = a.Unmap()
	}
	return nil
}

// ReasonOf is why err, the error of a link, ended it; ReasonLost if err does not say.
func ReasonOf(err error) Reason {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Reason
	}
	return ReasonLost
}
