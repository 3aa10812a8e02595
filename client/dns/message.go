package dns

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Sizes of messages over UDP (spec/dns.md, section 3).
const (
	plainSize  = 512  // of an answer to a client that names none
	mostSize   = 1232 // what passes everywhere in one piece
	amplify    = 3    // an answer to another machine is at most so many times as long as the question
	streamSize = 65535
)

// request is a message of a client as far as it was understood.
type request struct {
	head     dnsmessage.Header
	question *dnsmessage.Question // nil: none could be read
	edns     bool
	size     int // of an answer over UDP that the client takes
}

// parse reads a message. It is not ok if nothing must be answered: too short, or itself an answer. A code other than
// success is the answer.
func parse(b []byte) (r request, code dnsmessage.RCode, ok bool) {
	var p dnsmessage.Parser
	var err error
	if r.head, err = p.Start(b); err != nil || r.head.Response {
		return request{}, 0, false
	}
	r.size = plainSize
	if r.head.OpCode != 0 {
		return r, dnsmessage.RCodeNotImplemented, true
	}
	q, err := p.Question()
	if err != nil {
		return r, dnsmessage.RCodeFormatError, true
	}
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone {
		return r, dnsmessage.RCodeFormatError, true
	}
	r.question = &q
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return r, dnsmessage.RCodeFormatError, true
	}
	for {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			break
		}
		if err != nil || h.Type == dnsmessage.TypeOPT && r.edns {
			return r, dnsmessage.RCodeFormatError, true
		}
		if h.Type == dnsmessage.TypeOPT {
			r.edns, r.size = true, min(max(int(h.Class), plainSize), mostSize)
			if version := h.TTL >> 16 & 0xFF; version != 0 {
				return r, badVersion, true
			}
		}
		if p.SkipAdditional() != nil {
			return r, dnsmessage.RCodeFormatError, true
		}
	}
	return r, r.refusal(), true
}

const badVersion dnsmessage.RCode = 16

// refusal is the code for questions that are never looked up.
func (r *request) refusal() dnsmessage.RCode {
	switch r.question.Type {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypePTR:
		if r.question.Class == dnsmessage.ClassINET {
			return dnsmessage.RCodeSuccess
		}
		return dnsmessage.RCodeRefused
	case dnsmessage.TypeAXFR, 251: // 251: IXFR
		return dnsmessage.RCodeRefused
	}
	return dnsmessage.RCodeNotImplemented
}

// answer writes the answer to r, of at most limit bytes: what is longer is cut to nothing and marked so. nil: that is still too long, as the
// question has a name that it spells in far fewer bytes by pointing into itself.
func (r *request) answer(code dnsmessage.RCode, found []Answer, limit int) []byte {
	b, err := r.build(code, found, false)
	if err != nil {
		b, err = r.build(dnsmessage.RCodeServerFailure, nil, false)
	}
	if err == nil && len(b) > limit {
		b, err = r.build(code, nil, true)
	}
	if err != nil || len(b) > limit { // the former cannot be: the question was read before
		return nil
	}
	return b
}

func (r *request) build(code dnsmessage.RCode, found []Answer, cut bool) ([]byte, error) {
	h := dnsmessage.Header{
		ID: r.head.ID, Response: true, OpCode: r.head.OpCode, RecursionDesired: r.head.RecursionDesired, RecursionAvailable: true,
		CheckingDisabled: r.head.CheckingDisabled, Truncated: cut, RCode: code & 0xF,
	}
	b := dnsmessage.NewBuilder(nil, h)
	b.EnableCompression()
	if q := r.question; q != nil {
		if err := b.StartQuestions(); err != nil {
			return nil, err
		}
		if err := b.Question(*q); err != nil {
			return nil, err
		}
		if err := b.StartAnswers(); err != nil {
			return nil, err
		}
		for _, a := range found {
			if err := put(&b, q, a); err != nil {
				return nil, err
			}
		}
	}
	if r.edns {
		if err := b.StartAdditionals(); err != nil {
			return nil, err
		}
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(mostSize, code, false); err != nil {
			return nil, err
		}
		if err := b.OPTResource(h, dnsmessage.OPTResource{}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// put adds an answer if it is of the kind that was asked for.
func put(b *dnsmessage.Builder, q *dnsmessage.Question, a Answer) error {
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: a.TTL}
	switch {
	case q.Type == dnsmessage.TypeA && a.Addr.Is4():
		return b.AResource(h, dnsmessage.AResource{A: a.Addr.As4()})
	case q.Type == dnsmessage.TypeAAAA && a.Addr.Is6():
		return b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: a.Addr.As16()})
	case q.Type == dnsmessage.TypePTR && a.Name != "":
		n, err := dnsmessage.NewName(strings.TrimSuffix(a.Name, ".") + ".")
		if err != nil {
			return nil // a name that is none is left out
		}
		if err := b.PTRResource(h, dnsmessage.PTRResource{PTR: n}); err != nil {
			return nil
		}
	}
	return nil
}

// query is what the question asks for: a host, in small letters without its last dot, or, for PTR, an address. It is not
// ok if no such name can be.
func (r *request) query() (host string, addr netip.Addr, ok bool) {
	name := strings.ToLower(strings.TrimSuffix(r.question.Name.String(), "."))
	if r.question.Type == dnsmessage.TypePTR {
		addr, ok = parseReverse(name)
		return "", addr, ok
	}
	return name, netip.Addr{}, IsHost(name)
}

// IsHost says whether a name in small letters, without a last dot, may be that of a host: letters, digits, hyphens, and underscores, which some use.
func IsHost(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return true
}

// parseReverse reads a name under in-addr.arpa or ip6.arpa.
func parseReverse(name string) (netip.Addr, bool) {
	if s, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(s, ".")
		if len(labels) != 4 {
			return netip.Addr{}, false
		}
		var a [4]byte
		for i, l := range labels {
			n, err := strconv.ParseUint(l, 10, 8)
			if err != nil || len(l) > 1 && l[0] == '0' {
				return netip.Addr{}, false
			}
			a[3-i] = byte(n)
		}
		return netip.AddrFrom4(a), true
	}
	s, ok := strings.CutSuffix(name, ".ip6.arpa")
	labels := strings.Split(s, ".")
	if !ok || len(labels) != 32 {
		return netip.Addr{}, false
	}
	var a [16]byte
	for i, l := range labels {
		n, err := strconv.ParseUint(l, 16, 4)
		if err != nil || len(l) != 1 {
			return netip.Addr{}, false
		}
		a[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(a).Unmap(), true
}
