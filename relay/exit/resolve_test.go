package exit

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"peel/cell"
)

func TestResolve(t *testing.T) {
	all := addrs("1.1.1.1", "2606:4700::1", "10.0.0.1", "::1", "1.1.1.2", "1.1.1.1", "::ffff:1.1.1.1", "64:ff9b::101:101")
	for _, c := range []struct {
		ask   cell.Resolve
		rules []string
		want  string // the answers, or why there are none
		query string
	}{
		{cell.Resolve{Name: "a.example"}, []string{"accept *:*"}, "1.1.1.1 2606:4700::1 1.1.1.2", "ip a.example."},
		{cell.Resolve{Kind: cell.ResolveA, Name: "a.example"}, []string{"accept *:*"}, "1.1.1.1 1.1.1.2", "ip4 a.example."},
		{cell.Resolve{Kind: cell.ResolveAAAA, Name: "a.example"}, []string{"accept *:*"}, "2606:4700::1", "ip6 a.example."},
		{cell.Resolve{Name: "a.example"}, []string{"accept *:443"}, "1.1.1.1 2606:4700::1 1.1.1.2", "ip a.example."},
		{cell.Resolve{Name: "a.example"}, []string{"accept 10.0.0.0/8:80", "accept *:*"}, "1.1.1.1 2606:4700::1 10.0.0.1 1.1.1.2", "ip a.example."},
		{cell.Resolve{Name: "a.example"}, nil, "not allowed by the exit's policy", ""},
		{cell.Resolve{Name: "a.example"}, []string{"reject *:*"}, "not allowed by the exit's policy", ""},
		{cell.Resolve{Name: "1.1.1.1"}, []string{"accept *:*"}, "1.1.1.1", ""},
		{cell.Resolve{Kind: cell.ResolveAAAA, Name: "1.1.1.1"}, []string{"accept *:*"}, "no such host", ""},
		{cell.Resolve{Name: "10.0.0.1"}, []string{"accept *:*"}, "not allowed by the exit's policy", ""},
		{cell.Resolve{Name: "a.onion"}, []string{"accept *:*"}, "no such host", ""},
		{cell.Resolve{Kind: 99, Name: "a.example"}, []string{"accept *:*"}, "protocol error", ""},
		{cell.Resolve{Kind: cell.ResolvePTR, Name: "1.1.1.1"}, []string{"accept *:*"}, "one.example two.example", "PTR 1.1.1.1"},
		{cell.Resolve{Kind: cell.ResolvePTR, Name: "2606:4700::1"}, []string{"accept *:*"}, "one.example two.example", "PTR 2606:4700::1"},
		{cell.Resolve{Kind: cell.ResolvePTR, Name: "10.0.0.1"}, []string{"accept *:*"}, "not allowed by the exit's policy", ""},
		{cell.Resolve{Kind: cell.ResolvePTR, Name: "10.0.0.1"}, []string{"accept 10.0.0.0/8:1"}, "one.example two.example", "PTR 10.0.0.1"},
		{cell.Resolve{Kind: cell.ResolvePTR, Name: "a.example"}, []string{"accept *:*"}, "protocol error", ""},
	} {
		r := &liar{answers: [][]netip.Addr{all}, names: []string{"one.example.", "two.example", "bad name.", "127.0.0.1.", "", ".", "nul\x00.example."}}
		d := newDialer(t, Config{Policy: policy(t, c.rules...), Resolver: r})
		got := d.Resolve(t.Context(), c.ask)
		if err := got.Check(); err != nil {
			t.Errorf("%+v: %v", c.ask, err)
		}
		var parts []string
		for _, a := range got.Answers {
			if a.TTL != TTL {
				t.Errorf("%+v: %d s", c.ask, a.TTL)
			}
			if a.Addr.IsValid() {
				parts = append(parts, a.Addr.String())
			} else {
				parts = append(parts, a.Name)
			}
		}
		if got.Reason != 0 {
			parts = append(parts, got.Reason.String())
		}
		if text := strings.Join(parts, " "); text != c.want {
			t.Errorf("%v %s, policy %v: %s, want %s", c.ask.Kind, c.ask.Name, c.rules, text, c.want)
		}
		if q := strings.Join(r.queries, ", "); q != c.query {
			t.Errorf("%v %s: asked %q, want %q", c.ask.Kind, c.ask.Name, q, c.query)
		}
	}
}

func TestManyAnswersFitOneMessage(t *testing.T) {
	var many []netip.Addr
	var names []string
	for i := range 500 {
		many = append(many, netip.AddrFrom4([4]byte{8, 8, byte(i >> 8), byte(i)}))
		names = append(names, fmt.Sprintf("%s.%03d.example.", strings.Repeat("n", 60), i))
	}
	d := newDialer(t, Config{Policy: policy(t, "accept *:*"), Resolver: &liar{answers: [][]netip.Addr{many}, names: names}})
	for _, m := range []cell.Resolve{{Name: "a.example"}, {Kind: cell.ResolvePTR, Name: "1.1.1.1"}} {
		got := d.Resolve(t.Context(), m)
		if err := got.Check(); err != nil || len(got.Answers) < 10 {
			t.Errorf("%v: %d answers, %v", m.Kind, len(got.Answers), err)
		}
	}
}

func TestWhatResolversSayWhenTheyFail(t *testing.T) {
	for _, c := range []struct {
		err  error
		want cell.EndReason
	}{
		{&net.DNSError{IsNotFound: true}, cell.EndNotFound},
		{fmt.Errorf("wrapped: %w", &net.DNSError{IsNotFound: true}), cell.EndNotFound},
		{&net.AddrError{Err: "no suitable address found"}, cell.EndNotFound},
		{&net.DNSError{IsTemporary: true}, cell.EndResolveFailed},
		{&net.DNSError{IsTimeout: true}, cell.EndResolveFailed},
		{errors.New("anything"), cell.EndResolveFailed},
		{nil, cell.EndNotFound}, // no error, and no answer
	} {
		d := newDialer(t, Config{Policy: policy(t, "accept *:*"), Resolver: &liar{err: c.err, answers: [][]netip.Addr{nil}}})
		_, _, err := d.Dial(t.Context(), cell.Begin{Host: "a.example", Port: 80})
		got := []cell.EndReason{
			Reason(err), d.Resolve(t.Context(), cell.Resolve{Name: "a.example"}).Reason,
			d.Resolve(t.Context(), cell.Resolve{Kind: cell.ResolvePTR, Name: "1.1.1.1"}).Reason,
		}
		if !slices.Equal(got, []cell.EndReason{c.want, c.want, c.want}) {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
