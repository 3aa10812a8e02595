package dns

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	typeA     = dnsmessage.TypeA
	typeAAAA  = dnsmessage.TypeAAAA
	typeCNAME = dnsmessage.TypeCNAME
	typePTR   = dnsmessage.TypePTR
)

// rr is a record: "owner ttl what", where what is an address, "CNAME name" or "PTR name".
func rr(t testing.TB, b *dnsmessage.Builder, text string) {
	t.Helper()
	f := strings.Fields(text)
	var ttl uint32
	fmt.Sscan(f[1], &ttl)
	h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(f[0]), Class: dnsmessage.ClassINET, TTL: ttl}
	var err error
	switch addr, bad := netip.ParseAddr(f[2]); {
	case bad == nil && addr.Is4():
		err = b.AResource(h, dnsmessage.AResource{A: addr.As4()})
	case bad == nil:
		err = b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: addr.As16()})
	case f[2] == "CNAME":
		err = b.CNAMEResource(h, dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(f[3])})
	case f[2] == "PTR":
		err = b.PTRResource(h, dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(f[3])})
	case f[2] == "TXT":
		err = b.TXTResource(h, dnsmessage.TXTResource{TXT: f[3:]})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// reply is an answer to q, as a server gives it; change may alter the header and the question.
func reply(t testing.TB, q *query, records []string, change ...func(*dnsmessage.Header, *dnsmessage.Question)) []byte {
	t.Helper()
	h := dnsmessage.Header{ID: q.id, Response: true, RecursionDesired: true, RecursionAvailable: true}
	asked := dnsmessage.Question{Name: q.asked, Type: q.kind, Class: dnsmessage.ClassINET}
	for _, f := range change {
		f(&h, &asked)
	}
	b := dnsmessage.NewBuilder(nil, h)
	b.EnableCompression()
	b.StartQuestions()
	if err := b.Question(asked); err != nil {
		t.Fatal(err)
	}
	b.StartAnswers()
	for _, r := range records {
		rr(t, &b, r)
	}
	msg, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func ask(t testing.TB, name string, kind dnsmessage.Type) *query {
	t.Helper()
	random := bytes.Repeat([]byte{0xa5}, 34)
	q, err := newQuery(question{name, kind}, random)
	if err != nil {
		t.Fatal(err)
	}
	return &q
}

func TestCaseAndIDAreDrawn(t *testing.T) {
	q := ask(t, "www.example-1.org.", typeA)
	if q.id != 0xa5a5 || q.asked.String() != "WwW.exAmPLe-1.Org." {
		t.Errorf("id %x, name %s", q.id, q.asked)
	}
	msg, err := q.message()
	if err != nil || len(msg) != 12+19+4 || !bytes.Contains(msg, []byte("exAmPLe-1")) {
		t.Errorf("%q, %v", msg, err)
	}
	for _, bad := range []string{strings.Repeat("a.", 127) + "a.", "a..b.", strings.Repeat("x", 64) + ".", strings.Repeat("a", 300)} {
		q, err := newQuery(question{bad, typeA}, make([]byte, 34))
		if err == nil {
			_, err = q.message()
		}
		if !errors.Is(err, errNoName) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestAnswersAreBelievedOnlyOfWhatWasAsked(t *testing.T) {
	ring := []string{"a.example. 60 CNAME b.example.", "b.example. 60 CNAME a.example."}
	long := []string{"a.example. 60 CNAME c0.example."}
	for i := range mostAliases - 1 {
		long = append(long, fmt.Sprintf("c%d.example. 60 CNAME c%d.example.", i, i+1))
	}
	end := fmt.Sprintf("c%d.example. 60 8.8.8.8", mostAliases-1)
	over := append(slices.Clone(long), fmt.Sprintf("c%d.example. 60 CNAME d.example.", mostAliases-1), "d.example. 60 8.8.8.8")
	many := make([]string, mostKept+5)
	for i := range many {
		many[i] = fmt.Sprintf("a.example. 60 8.8.4.%d", i)
	}
	for _, c := range []struct {
		name    string
		kind    dnsmessage.Type
		records []string
		want    string // addresses or names
		ttl     uint32
		err     error
	}{
		{"an address", typeA, []string{"a.example. 300 8.8.8.8"}, "8.8.8.8", 300, nil},
		{"the owner in another case", typeA, []string{"A.Example. 300 8.8.8.8"}, "8.8.8.8", 300, nil},
		{"two, the shorter TTL counts", typeA, []string{"a.example. 300 8.8.8.8", "a.example. 20 8.8.4.4"}, "8.8.8.8 8.8.4.4", 20, nil},
		{"IPv6", typeAAAA, []string{"a.example. 300 2606::1"}, "2606::1", 300, nil},
		{"the wrong family", typeA, []string{"a.example. 300 2606::1"}, "", 1<<32 - 1, nil},
		{"nothing", typeA, nil, "", 1<<32 - 1, nil},
		{"of another name", typeA, []string{"b.example. 300 8.8.8.8"}, "", 1<<32 - 1, nil},
		{"an alias, its TTL the shorter", typeA, []string{"a.example. 7 CNAME b.example.", "b.example. 300 8.8.8.8"}, "8.8.8.8", 7, nil},
		{"an alias after what it leads to", typeA, []string{"b.example. 300 8.8.8.8", "a.example. 7 CNAME B.example."}, "8.8.8.8", 7, nil},
		{"an alias, and an address of the name itself", typeA, []string{"a.example. 7 CNAME b.example.", "a.example. 9 9.9.9.9", "b.example. 300 8.8.8.8"}, "8.8.8.8", 7, nil},
		{"an alias of another name", typeA, []string{"x.example. 7 CNAME b.example.", "b.example. 300 8.8.8.8"}, "", 1<<32 - 1, nil},
		{"an alias to nothing", typeA, []string{"a.example. 7 CNAME b.example."}, "", 7, nil},
		{"an alias of itself", typeA, []string{"a.example. 7 CNAME a.example."}, "", 0, errAliases},
		{"two aliases", typeA, []string{"a.example. 7 CNAME b.example.", "a.example. 7 CNAME c.example."}, "", 0, errBroken},
		{"a ring", typeA, ring, "", 0, errAliases},
		{"as many aliases as may be", typeA, append(slices.Clone(long), end), "8.8.8.8", 60, nil},
		{"one more", typeA, over, "", 0, errAliases},
		{"more than is kept", typeA, many, strings.TrimSpace(func() (s string) {
			for i := range mostKept {
				s += fmt.Sprintf("8.8.4.%d ", i)
			}
			return
		}()), 60, nil},
		{"what is no business of ours", typeA, []string{"a.example. 5 TXT hello", "a.example. 300 8.8.8.8"}, "8.8.8.8", 300, nil},
		{"a name", typePTR, []string{"a.example. 300 PTR Host.Example."}, "host.example.", 300, nil},
		{"a name behind an alias", typePTR, []string{"a.example. 300 CNAME b.example.", "b.example. 30 PTR host.example."}, "host.example.", 30, nil},
	} {
		q := ask(t, "a.example.", c.kind)
		a, err := q.read(reply(t, q, c.records))
		var got []string
		for _, x := range a.addrs {
			got = append(got, x.String())
		}
		got = append(got, a.names...)
		if !errors.Is(err, c.err) || strings.Join(got, " ") != c.want || err == nil && a.ttl != c.ttl || a.absent {
			t.Errorf("%s: %v with TTL %d, %v; want %q, %d, %v", c.name, got, a.ttl, err, c.want, c.ttl, c.err)
		}
	}
}

// altered are changes of an answer that make it none, and what they are.
var altered = []struct {
	name   string
	change func(*dnsmessage.Header, *dnsmessage.Question)
	err    error
}{
	{"another id", func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.ID++ }, errForeign},
	{"a question", func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.Response = false }, errForeign},
	{"another kind of request", func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.OpCode = 5 }, errForeign},
	{"about another name", func(_ *dnsmessage.Header, q *dnsmessage.Question) { q.Name = dnsmessage.MustNewName("b.example.") }, errForeign},
	{"about another type", func(_ *dnsmessage.Header, q *dnsmessage.Question) { q.Type = typeAAAA }, errForeign},
	{"about another class", func(_ *dnsmessage.Header, q *dnsmessage.Question) { q.Class = dnsmessage.ClassCHAOS }, errForeign},
	{"in another case", func(_ *dnsmessage.Header, q *dnsmessage.Question) { q.Name = dnsmessage.MustNewName("a.example.") }, errCase},
	{"truncated", func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.Truncated = true }, errTruncated},
	{"SERVFAIL", func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.RCode = dnsmessage.RCodeServerFailure }, errServer},
	{"REFUSED", func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.RCode = dnsmessage.RCodeRefused }, errServer},
}

func TestWhatIsNoAnswer(t *testing.T) {
	q := ask(t, "a.example.", typeA)
	records := []string{"a.example. 60 8.8.8.8"}
	for _, c := range altered {
		if a, err := q.read(reply(t, q, records, c.change)); !errors.Is(err, c.err) || a.addrs != nil {
			t.Errorf("%s: %v, %v", c.name, a, err)
		}
	}
	absent := reply(t, q, records, func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.RCode = dnsmessage.RCodeNameError })
	if a, err := q.read(absent); err != nil || !a.absent || a.addrs != nil {
		t.Errorf("NXDOMAIN: %v, %v", a, err)
	}
	tcp := *q
	tcp.anyCase = true
	if a, err := tcp.read(reply(t, q, records, altered[6].change)); err != nil || len(a.addrs) != 1 {
		t.Errorf("in another case over TCP: %v, %v", a, err)
	}
}

func TestEveryTruncationIsNoAnswer(t *testing.T) {
	q := ask(t, "a.example.", typeA)
	msg := reply(t, q, []string{"a.example. 7 CNAME b.example.", "b.example. 300 8.8.8.8"})
	for n := range msg {
		if a, err := q.read(msg[:n]); err == nil {
			t.Errorf("the first %d of %d bytes: %v", n, len(msg), a)
		}
	}
	if _, err := q.read(msg); err != nil {
		t.Error(err)
	}
	full := make([]string, mostRecords)
	for i := range full {
		full[i] = "a.example. 60 8.8.8.8"
	}
	if _, err := q.read(reply(t, q, full)); err != nil {
		t.Errorf("%d records: %v", mostRecords, err)
	}
	if _, err := q.read(reply(t, q, append(full, full[0]))); !errors.Is(err, errBroken) {
		t.Errorf("one more: %v", err)
	}
}

// A forger who sees no query sends what he likes. He has the right address and port already; the id and the case of the
// letters are left to guess.
func TestForgedAnswersPoisonNothing(t *testing.T) {
	n := 20_000
	if os.Getenv("PEEL_SLOW") == "1" {
		n = 1_000_000
	} else {
		t.Log("20,000 of a million: PEEL_SLOW=1 for all")
	}
	const seed = 3
	rng := rand.New(rand.NewPCG(seed, 0))
	const name = "www.a-bank-with-a-rather-long-name.example." // of 35 letters: a name of n of them has n bits to guess, beside the id's
	poison := netip.MustParseAddr("66.6.6.6")
	for i := range n {
		random := make([]byte, 34)
		for i := range random {
			random[i] = byte(rng.Uint32())
		}
		q, err := newQuery(question{name, typeA}, random)
		if err != nil {
			t.Fatal(err)
		}
		guess := q
		for i := range random {
			random[i] = byte(rng.Uint32())
		}
		switch rng.IntN(4) { // what he knows by luck
		case 0:
			random[0], random[1] = byte(q.id>>8), byte(q.id)
			guess, _ = newQuery(q.question, random)
		case 1:
			guess.id = uint16(rng.Uint32())
		case 2:
			guess, _ = newQuery(q.question, random)
		case 3: // all but what is altered
		}
		records := [][]string{
			{name + " 86400 66.6.6.6"}, {"other.example. 86400 66.6.6.6", name + " 86400 66.6.6.6"},
			{name + " 60 CNAME evil.example.", "evil.example. 60 66.6.6.6"}, {"example. 60 66.6.6.6"},
		}[rng.IntN(4)]
		var msg []byte
		if guess == q {
			c := altered[rng.IntN(len(altered))]
			msg = reply(t, &guess, records, c.change)
		} else {
			if msg = reply(t, &guess, records); rng.IntN(2) == 0 { // and noise
				msg[12+rng.IntN(len(msg)-12)] ^= byte(1 << rng.IntN(8))
			}
		}
		a, err := q.read(msg)
		if slices.Contains(a.addrs, poison) {
			t.Fatalf("seed %d, number %d: believed %x", seed, i, msg)
		}
		if err != nil && a.addrs != nil {
			t.Fatalf("seed %d, number %d: %v and %v", seed, i, a, err)
		}
	}
	t.Logf("seed %d: %d forged answers; none was believed", seed, n)
}

func TestReverseNames(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7":          "7.2.0.192.in-addr.arpa.",
		"::ffff:192.0.2.7":   "7.2.0.192.in-addr.arpa.",
		"2001:db8::567:89ab": "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
	} {
		if got := reverse(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	q := ask(f, "a.example.", typeA)
	var many, chain []string
	for i := range mostKept + 1 {
		many = append(many, fmt.Sprintf("a.example. 60 8.8.8.%d", i))
	}
	for i := range mostAliases + 1 {
		chain = append(chain, fmt.Sprintf("%c.example. 60 CNAME %c.example.", 'a'+i, 'b'+i))
	}
	for _, records := range [][]string{nil, {"a.example. 60 8.8.8.8"}, {"a.example. 7 CNAME b.example.", "b.example. 300 8.8.8.8"}, {"a.example. 60 TXT x"}, many, chain, chain[:mostAliases],
		{"a.example. 1 CNAME b.example.", "b.example. 1 CNAME a.example."}, {"a.example. 1 CNAME b.example.", "a.example. 1 CNAME c.example."}, {"b.example. 60 8.8.8.8"},
		{"A.EXAMPLE. 60 8.8.8.8", "a.example. 60 2001:db8::1", "a.example. 60 PTR b.example."}} {
		f.Add(reply(f, q, records))
	}
	for _, change := range []func(*dnsmessage.Header, *dnsmessage.Question){
		func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.ID++ },
		func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.Response = false },
		func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.Truncated = true },
		func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.OpCode = 1 },
		func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.RCode = dnsmessage.RCodeNameError },
		func(h *dnsmessage.Header, _ *dnsmessage.Question) { h.RCode = dnsmessage.RCodeServerFailure },
		func(_ *dnsmessage.Header, asked *dnsmessage.Question) {
			asked.Name = dnsmessage.MustNewName("a.example.")
		},
		func(_ *dnsmessage.Header, asked *dnsmessage.Question) {
			asked.Name = dnsmessage.MustNewName("b.example.")
		},
		func(_ *dnsmessage.Header, asked *dnsmessage.Question) { asked.Type = dnsmessage.TypeAAAA },
	} {
		f.Add(reply(f, q, []string{"a.example. 60 8.8.8.8"}, change))
	}
	two := reply(f, q, nil)
	two[5] = 2 // questions
	f.Add(append(two, two[12:]...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		a, err := q.read(msg)
		if err != nil && (a.addrs != nil || a.names != nil || a.absent) {
			t.Errorf("%v, and %v", err, a)
		}
		if len(a.addrs)+len(a.names) > mostKept {
			t.Errorf("%d answers", len(a.addrs)+len(a.names))
		}
		for _, x := range a.addrs {
			if !x.Is4() {
				t.Errorf("%v for a question about IPv4", x)
			}
			if b := x.As4(); !bytes.Contains(msg, b[:]) {
				t.Errorf("%v is not in what came", x)
			}
		}
		if len(a.names) > 0 {
			t.Errorf("%v for a question about addresses", a.names)
		}
		if sent, _ := q.message(); err == nil && (len(msg) < 12 || !bytes.Equal(msg[:2], sent[:2]) || msg[2]&0x80 == 0) {
			t.Errorf("%x is an answer", msg)
		}
	})
}
