package client

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"peel/cell"
	"peel/circuit"
	"peel/circuit/stream"
	"peel/directory"
)

// Resolve looks up the addresses of a host at the far end, which alone learns its name; at most cell.MaxAnswers come.
// An address is its own answer. Errors of the far end are *stream.EndError, cell.EndNotFound if there is no such host.
func (c *Client) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	found, err := c.Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, len(found))
	for i, a := range found {
		addrs[i] = a.Addr
	}
	return addrs, nil
}

// virtualTTL is for how many seconds applications may keep a virtual address.
const virtualTTL = 60

// Lookup is Resolve that also tells for how long each address may be kept. A service has virtual addresses, which mean
// something to DialContext only.
func (c *Client) Lookup(ctx context.Context, host string) ([]cell.Answer, error) {
	if name := plain(host); isService(name) {
		a4, a6 := c.virtual.addrs(name)
		return []cell.Answer{{TTL: virtualTTL, Addr: a4}, {TTL: virtualTTL, Addr: a6}}, nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		return []cell.Answer{{TTL: virtualTTL, Addr: a.Unmap()}}, nil
	}
	if err := checkLookup(host); err != nil {
		return nil, netError{err}
	}
	return c.resolve(ctx, cell.Resolve{Kind: cell.ResolveAny, Name: host}, func(exit *directory.Entry, a cell.Answer) bool {
		return a.Addr.IsValid() && !c.virtual.contains(a.Addr) && (!directory.Special(a.Addr) || inside(exit)) // an exit must not point at a service, nor at us
	})
}

// LookupAddr looks up the names of an address at the far end. What is not an address of the internet has none there; that
// of a virtual one is the service it stands for.
func (c *Client) LookupAddr(ctx context.Context, addr netip.Addr) ([]cell.Answer, error) {
	addr = addr.Unmap()
	if c.virtual.contains(addr) {
		name, ok := c.virtual.name(addr)
		if !ok {
			return nil, netError{errForgotten}
		}
		return []cell.Answer{{TTL: virtualTTL, Name: name}}, nil
	}
	if !addr.IsValid() || addr.Zone() != "" || directory.Special(addr) {
		return nil, netError{errLocal}
	}
	return c.resolve(ctx, cell.Resolve{Kind: cell.ResolvePTR, Name: addr.String()}, func(_ *directory.Entry, a cell.Answer) bool {
		return a.Name != "" && checkHost(a.Name) == nil
	})
}

// inside says whether an exit is itself at an address that the internet does not route, as in networks for tests: then names may be too.
func inside(exit *directory.Entry) bool {
	return slices.ContainsFunc(exit.Addrs, func(at netip.AddrPort) bool { return directory.Special(at.Addr()) })
}

// resolve asks an exit, and keeps those of its answers that fit.
func (c *Client) resolve(ctx context.Context, r cell.Resolve, fits func(exit *directory.Entry, a cell.Answer) bool) ([]cell.Answer, error) {
	resolved, way, err := try(c, ctx, request{}, func(ctx context.Context, ci *circuit.Circuit) (cell.Resolved, error) {
		return ci.Resolve(ctx, r)
	}, func(cell.Resolved) {})
	if err != nil {
		return nil, netError{err}
	}
	var found []cell.Answer
	for _, a := range resolved.Answers {
		if fits(way[len(way)-1], a) {
			found = append(found, a)
		}
	}
	if len(found) == 0 {
		return nil, netError{fmt.Errorf("client: %w", &stream.EndError{Reason: cell.EndNotFound})}
	}
	return found, nil
}
