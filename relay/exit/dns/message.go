package dns

import (
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Bounds of an answer (spec/exit.md, section 5).
const (
	mostUDP     = 512 // no answer of this size comes in fragments, which others could forge
	mostTCP     = 16 << 10
	mostRecords = 256
	mostAliases = 8  // CNAMEs from the name asked for to the one that has the answer
	mostKept    = 32 // addresses, or names, of an answer
)

// question is what is asked: a name in lower case with its final dot, and the type of its records.
type question struct {
	name string
	kind dnsmessage.Type
}

// answer is what there is: addresses or names, or neither.
type answer struct {
	addrs  []netip.Addr
	names  []string
	absent bool   // no such name, whatever the type
	ttl    uint32 // seconds: the least of all records that led here
}

// query is a question on its way to a server: only who sees it can answer it.
type query struct {
	question
	id      uint16
	asked   dnsmessage.Name // the name with the case of each letter drawn
	anyCase bool            // it goes over TCP, where others cannot answer: the case of an answer's letters says nothing
}

// newQuery draws the id and the case of a query's letters; random holds at least 2 bytes, and a bit for each letter.
func newQuery(q question, random []byte) (query, error) {
	if len(q.name) > 255 {
		return query{}, errNoName
	}
	text := []byte(q.name)
	bits := random[2:]
	n := 0
	for i, c := range text {
		if 'a' <= c && c <= 'z' {
			if bits[n/8]>>(n%8)&1 == 1 {
				text[i] = c - 'a' + 'A'
			}
			n++
		}
	}
	name, err := dnsmessage.NewName(string(text))
	if err != nil {
		return query{}, errNoName
	}
	return query{question: q, id: uint16(random[0])<<8 | uint16(random[1]), asked: name}, nil
}

// message is the query as it is sent.
func (q *query) message() ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: q.id, RecursionDesired: true})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(dnsmessage.Question{Name: q.asked, Type: q.kind, Class: dnsmessage.ClassINET}); err != nil {
		return nil, errNoName
	}
	return b.Finish()
}

// What is wrong with a message that came.
var (
	errNoName    = errors.New("dns: not a name that can be asked for")
	errForeign   = errors.New("dns: not an answer to this query")
	errCase      = errors.New("dns: an answer to this query, but for the case of its letters")
	errTruncated = errors.New("dns: the answer did not fit")
	errServer    = errors.New("dns: the server could not, or would not, say")
	errBroken    = errors.New("dns: an answer that is not well formed")
	errAliases   = errors.New("dns: too many aliases, or a ring of them")
)

// read reads a message that came from where the query was sent. errForeign: it is no answer to it, and another may follow.
func (q *query) read(msg []byte) (answer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != q.id || h.OpCode != 0 {
		return answer{}, errForeign
	}
	asked, err := p.Question()
	if err != nil || asked.Type != q.kind || asked.Class != dnsmessage.ClassINET || !strings.EqualFold(asked.Name.String(), q.name) {
		return answer{}, errForeign
	}
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone {
		return answer{}, errForeign
	}
	switch {
	case asked.Name != q.asked && !q.anyCase:
		return answer{}, errCase
	case h.Truncated:
		return answer{}, errTruncated
	case h.RCode == dnsmessage.RCodeNameError:
		return answer{absent: true}, nil
	case h.RCode != dnsmessage.RCodeSuccess:
		return answer{}, errServer
	}
	rs, err := records(&p)
	if err != nil {
		return answer{}, err
	}
	return rs.follow(q.question)
}

// record is one of the answer section that may be of use.
type record struct {
	owner string
	kind  dnsmessage.Type
	ttl   uint32
	addr  netip.Addr
	name  string // what a PTR or CNAME points to
}

type recordSet []record

func records(p *dnsmessage.Parser) (rs recordSet, err error) {
	for {
		h, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone {
			return rs, nil
		}
		if err != nil || len(rs) == mostRecords {
			return nil, errBroken
		}
		r := record{owner: strings.ToLower(h.Name.String()), kind: h.Type, ttl: h.TTL}
		if h.Class != dnsmessage.ClassINET {
			r.kind = 0
		}
		switch r.kind {
		case dnsmessage.TypeA:
			var body dnsmessage.AResource
			body, err = p.AResource()
			r.addr = netip.AddrFrom4(body.A)
		case dnsmessage.TypeAAAA:
			var body dnsmessage.AAAAResource
			body, err = p.AAAAResource()
			r.addr = netip.AddrFrom16(body.AAAA)
		case dnsmessage.TypeCNAME:
			var body dnsmessage.CNAMEResource
			body, err = p.CNAMEResource()
			r.name = strings.ToLower(body.CNAME.String())
		case dnsmessage.TypePTR:
			var body dnsmessage.PTRResource
			body, err = p.PTRResource()
			r.name = strings.ToLower(body.PTR.String())
		default:
			err = p.SkipAnswer()
		}
		if err != nil {
			return nil, errBroken
		}
		rs = append(rs, r)
	}
}

// follow goes from the name asked for by its aliases to the records that answer. What else a message has is nothing to us:
// nobody may tell of one name in an answer about another.
func (rs recordSet) follow(q question) (answer, error) {
	a := answer{ttl: 1<<32 - 1}
	at := q.name
	for n := 0; ; n++ {
		alias := ""
		for _, r := range rs {
			if r.kind == dnsmessage.TypeCNAME && r.owner == at {
				if alias != "" && alias != r.name {
					return answer{}, errBroken
				}
				alias, a.ttl = r.name, min(a.ttl, r.ttl)
			}
		}
		if alias == "" {
			break
		}
		if n == mostAliases {
			return answer{}, errAliases
		}
		at = alias
	}
	for _, r := range rs {
		if r.owner != at || r.kind != q.kind || len(a.addrs)+len(a.names) == mostKept {
			continue
		}
		a.ttl = min(a.ttl, r.ttl)
		if r.addr.IsValid() {
			a.addrs = append(a.addrs, r.addr)
		} else {
			a.names = append(a.names, r.name)
		}
	}
	return a, nil
}

// reverse is the name under which the DNS keeps the names of an address.
func reverse(a netip.Addr) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	if a = a.Unmap(); a.Is4() {
		p := a.As4()
		return netip.AddrFrom4([4]byte{p[3], p[2], p[1], p[0]}).String() + ".in-addr.arpa."
	}
	p := a.As16()
	for i := 15; i >= 0; i-- {
		b.WriteByte(digits[p[i]&15])
		b.WriteByte('.')
		b.WriteByte(digits[p[i]>>4])
		b.WriteByte('.')
	}
	return b.String() + "ip6.arpa."
}
