package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"peel/cell"
	"peel/cell/hybrid"
)

// The first byte on the wire says which handshake follows, and which version of the protocol (spec/link.md, section 1).
const (
	helloNK byte = 0x11 // a client
	helloIK byte = 0x12 // a relay
)

const (
	prologueName     = "peel link v1"
	keyLabel         = "peel link v1 keys"
	handshakeTimeout = 5 * time.Second
	replyPayload     = 8 + 1 + 16 // clock, family, address
)

// Errors of a handshake. They are wrapped with more words.
var (
	// ErrSilent: the peer did not answer within 5 seconds.
	ErrSilent = errors.New("no answer within 5 s: not a relay, or one that is overloaded")
	// ErrRefused: the peer closed the connection. It cannot say why without saying who it is.
	ErrRefused = errors.New("the peer ended the handshake: it may be another relay than expected, of another network, or overloaded")
	// ErrGarbage: what came is not the protocol.
	ErrGarbage = errors.New("what came is not this protocol")
	// ErrProof: a message whose proof does not hold.
	ErrProof = errors.New("the proof does not hold: another relay or another network than expected, or the link was tampered with")
)

// prologue binds the handshake to the network and to the node that is expected.
func prologue(network cell.NetworkID, responder cell.NodeID) []byte {
	b := append([]byte(prologueName), network[:]...)
	return append(b, responder[:]...)
}

// Dial makes the link over nc to the peer given, within 5 seconds: as a relay that proves who it is, or, if cfg has no key, as
// an anonymous client. On error it closes nc.
func Dial(ctx context.Context, nc net.Conn, cfg *Config, peer Peer) (*Conn, error) {
	return handshake(ctx, nc, func() (*Conn, error) { return dial(nc, cfg, peer) })
}

func dial(nc net.Conn, cfg *Config, peer Peer) (*Conn, error) {
	hc := hybrid.Config{Pattern: hybrid.NK, Prologue: prologue(cfg.Network, peer.ID), Peer: peer.Key}
	hello := helloNK
	if cfg.Key != nil {
		hc.Pattern, hc.Static, hello = hybrid.IK, cfg.Key, helloIK
	}
	ini, request, err := hybrid.Initiate(hc)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if _, err := nc.Write(append([]byte{hello}, request...)); err != nil {
		return nil, told(err)
	}
	reply := make([]byte, hybrid.ReplyOverhead+replyPayload)
	if _, err := io.ReadFull(nc, reply); err != nil {
		return nil, told(err)
	}
	payload, secrets, err := ini.Finish(reply)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	defer secrets.Erase()
	c := newConn(nc, cfg, true)
	c.peer, c.named = peer.ID, true
	if err := c.told(payload, began); err != nil {
		return nil, err
	}
	return c, c.keys(secrets)
}

// Accept answers the handshake of whoever dialled nc, within 5 seconds. A peer that proves nothing costs less than 8 KiB. On
// error it closes nc.
func Accept(ctx context.Context, nc net.Conn, cfg *Config) (*Conn, error) {
	return handshake(ctx, nc, func() (*Conn, error) { return accept(nc, cfg) })
}

func accept(nc net.Conn, cfg *Config) (*Conn, error) {
	if cfg.Key == nil {
		return nil, errors.New("a client accepts no links")
	}
	var hello [1]byte
	if _, err := io.ReadFull(nc, hello[:]); err != nil {
		return nil, told(err)
	}
	hc := hybrid.Config{Prologue: prologue(cfg.Network, cfg.ID), Static: cfg.Key}
	switch hello[0] {
	case helloNK:
		hc.Pattern = hybrid.NK
	case helloIK:
		hc.Pattern = hybrid.IK
	default:
		return nil, fmt.Errorf("%w: first byte %#02x", ErrGarbage, hello[0])
	}
	request := make([]byte, hybrid.RequestSize(hc.Pattern))
	if _, err := io.ReadFull(nc, request); err != nil {
		return nil, told(err)
	}
	reply, secrets, err := hybrid.Respond(hc, request, tell(nc, time.Now()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProof, err)
	}
	defer secrets.Erase()
	if _, err := nc.Write(reply); err != nil {
		return nil, told(err)
	}
	c := newConn(nc, cfg, false)
	if hc.Pattern == hybrid.IK && cfg.Identify != nil {
		c.peer, c.named = cfg.Identify(cell.Key(secrets.Peer))
	}
	return c, c.keys(secrets)
}

// told says what a failed read or write of the handshake means.
func told(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrSilent
	}
	return fmt.Errorf("%w (%w)", ErrRefused, err)
}

// tell is what the responder says in its message: its clock, and the address it sees.
func tell(nc net.Conn, now time.Time) []byte {
	b := make([]byte, replyPayload)
	binary.BigEndian.PutUint64(b, uint64(now.Unix()))
	if a := addrOf(nc); a.Is4() {
		b[8] = 4
		copy(b[9:], a.AsSlice())
	} else if a.IsValid() {
		b[8] = 6
		copy(b[9:], a.AsSlice())
	}
	return b
}

func addrOf(nc net.Conn) netip.Addr {
	a, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return a.AddrPort().Addr().Unmap().WithZone("")
}

// told reads what tell wrote.
func (c *Conn) told(b []byte, began time.Time) error {
	if len(b) != replyPayload {
		return fmt.Errorf("%w: %d bytes of greeting, want %d", ErrGarbage, len(b), replyPayload)
	}
	var rest []byte
	switch b[8] {
	case 0:
		rest = b[9:]
	case 4:
		c.observed, rest = netip.AddrFrom4([4]byte(b[9:])), b[13:]
	case 6:
		c.observed = netip.AddrFrom16([16]byte(b[9:]))
	default:
		return fmt.Errorf("%w: address family %d", ErrGarbage, b[8])
	}
	for _, x := range rest {
		if x != 0 {
			return fmt.Errorf("%w: unused bytes of the greeting are not zero", ErrGarbage)
		}
	}
	clock := binary.BigEndian.Uint64(b)
	if clock > 1<<40 {
		return fmt.Errorf("%w: a clock of %d s", ErrGarbage, clock)
	}
	now := time.Now()
	c.skew = time.Unix(int64(clock), 0).Sub(began.Add(now.Sub(began) / 2)).Round(time.Second)
	return nil
}

// keys takes the keys of both directions from the handshake.
func (c *Conn) keys(s *hybrid.Secrets) error {
	k := s.Expand(keyLabel, 64)
	defer clear(k)
	if c.dialled {
		c.out, c.in = newHalf([32]byte(k[:32])), newHalf([32]byte(k[32:]))
	} else {
		c.in, c.out = newHalf([32]byte(k[:32])), newHalf([32]byte(k[32:]))
	}
	return nil
}
