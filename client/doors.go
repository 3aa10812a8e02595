package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"peel/cell"
	"peel/circuit/stream"
	"peel/client/dns"
	"peel/client/socks"
)

// SOCKSServer is a server for applications (SOCKS and HTTP CONNECT) whose connections go through the network. Requests of
// different isolation never share a circuit.
func (c *Client) SOCKSServer(log *slog.Logger) *socks.Server {
	host := func(r socks.Request) string { return net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port))) }
	dial := func(ctx context.Context, r socks.Request, first []byte) (net.Conn, error) {
		return c.within(r.Isolation).DialEarly(ctx, "tcp", host(r), first)
	}
	return &socks.Server{
		Dial:      func(ctx context.Context, r socks.Request) (net.Conn, error) { return dial(ctx, r, nil) },
		DialEarly: dial,
		Check: func(r socks.Request) error {
			_, err := c.known("tcp", host(r))
			return err
		},
		Resolve: c.answer, Known: c.virtual.contains, Code: SOCKSCode, Log: log,
	}
}

// within isolates further what an isolated view isolates already.
func (c *Client) within(token any) *Client {
	if c.token == nil && c.refused == nil {
		return c.Isolated(token)
	}
	v := c.Isolated([2]any{c.token, token})
	v.refused = errors.Join(c.refused, v.refused)
	return v
}

// answer is what an application gets for RESOLVE and RESOLVE_PTR: one address, IPv4 if there is one, or one name.
func (c *Client) answer(ctx context.Context, r socks.Request) (socks.Answer, error) {
	v := c.within(r.Isolation)
	if r.Command == socks.ResolvePTR {
		a, _ := r.Addr()
		found, err := v.LookupAddr(ctx, a)
		if err != nil {
			return socks.Answer{}, err
		}
		return socks.Answer{Name: found[0].Name}, nil
	}
	found, err := v.Lookup(ctx, r.Host)
	if err != nil {
		return socks.Answer{}, err
	}
	for _, a := range found {
		if a.Addr.Is4() {
			return socks.Answer{Addr: a.Addr}, nil
		}
	}
	return socks.Answer{Addr: found[0].Addr}, nil
}

// dnsToken isolates what comes in over DNS: there are no users, but clients and listeners.
type dnsToken struct {
	client   netip.Addr
	listener string
}

// DNSServer is a DNS server whose lookups go through the network.
func (c *Client) DNSServer(log *slog.Logger) *dns.Server {
	return &dns.Server{Log: log, Epoch: c.pool.nowEra, Lookup: func(ctx context.Context, q dns.Query) ([]dns.Answer, error) {
		v := c.within(dnsToken{q.Client, q.Listener})
		var found []cell.Answer
		var err error
		if q.Addr.IsValid() {
			found, err = v.LookupAddr(ctx, q.Addr)
		} else if _, bad := netip.ParseAddr(q.Host); bad != nil {
			found, err = v.Lookup(ctx, q.Host)
		} else {
			err = errLocal // an address is no name
		}
		var end *stream.EndError
		if errors.As(err, &end) && end.Reason == cell.EndNotFound {
			err = fmt.Errorf("%w (%w)", dns.ErrNotFound, err)
		}
		var out []dns.Answer
		for _, a := range found {
			out = append(out, dns.Answer{TTL: a.TTL, Addr: a.Addr, Name: a.Name})
		}
		return out, err
	}}
}
