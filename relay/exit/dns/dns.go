// Package dns asks DNS servers for addresses and names, believes only the server it asked about what it was asked, and keeps
// what they said for a while (spec/exit.md, section 5).
package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"peel/cell/contain"
)

const (
	lookupTime = 10 * time.Second // of a question, whoever is asked
	mostStray  = 32               // datagrams that are no answer, until a query is put over TCP
	portTries  = 8
)

// tryTimes are how long a server has for an answer, the first time that it is asked and the second.
var tryTimes = []time.Duration{2 * time.Second, 4 * time.Second}

// Config says who is asked.
type Config struct {
	Servers []netip.AddrPort // in the order in which they are tried, MostServers at most; none: the system's

	// Dial connects to a server over "udp" or "tcp"; nil: from a random port.
	Dial func(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error)
}

// Resolver asks servers. Any number of goroutines may use it.
type Resolver struct {
	servers []netip.AddrPort
	system  system
	dial    func(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error)
	first   atomic.Uint32 // the server that answered last: it is asked first

	mu     sync.Mutex
	cache  *cache
	flying map[question]*flight
}

// flight is a question being asked; who has the same waits for it.
type flight struct {
	done   chan struct{} // closed when what follows is set
	answer answer
	err    error
}

// errAbandoned says that who asked left before there was an answer.
var errAbandoned = errors.New("dns: given up")

// New starts nothing.
func New(cfg Config) (*Resolver, error) {
	if len(cfg.Servers) > MostServers {
		return nil, fmt.Errorf("dns: %d servers, but at most %d are asked", len(cfg.Servers), MostServers)
	}
	r := &Resolver{
		servers: slices.Clone(cfg.Servers), system: system{path: systemPath}, dial: cfg.Dial,
		cache: newCache(cacheEntries, cacheBytes), flying: make(map[question]*flight),
	}
	if r.dial == nil {
		r.dial = dial
	}
	return r, nil
}

// Check says what is missing, if nobody can be asked now.
func (r *Resolver) Check() error {
	_, err := r.known()
	return err
}

func (r *Resolver) known() ([]netip.AddrPort, error) {
	if len(r.servers) > 0 {
		return r.servers, nil
	}
	return r.system.get(time.Now())
}

// LookupNetIP finds the addresses of a name; network is "ip", "ip4" or "ip6". Of both families asked for, one is enough. An
// error is a *net.DNSError that does not name the name.
func (r *Resolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	kinds := []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA}
	switch network {
	case "ip4":
		kinds = kinds[:1]
	case "ip6":
		kinds = kinds[1:]
	}
	answers, errs := make([]answer, len(kinds)), make([]error, len(kinds))
	var wg contain.Group
	for i, kind := range kinds[1:] {
		wg.Go(func(p *contain.Panic) { answers[i+1], errs[i+1] = answer{}, p }, func() { answers[i+1], errs[i+1] = r.ask(ctx, question{fqdn(host), kind}) })
	}
	answers[0], errs[0] = r.ask(ctx, question{fqdn(host), kinds[0]})
	wg.Wait()
	var out []netip.Addr
	absent := false
	for i := range answers {
		out = append(out, answers[i].addrs...)
		absent = absent || answers[i].absent
	}
	if len(out) > 0 {
		return out, nil
	}
	if err := errors.Join(errs...); err != nil && !absent {
		return nil, failure(err)
	}
	return nil, notFound()
}

// LookupAddr finds the names of an address.
func (r *Resolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" {
		return nil, notFound()
	}
	found, err := r.ask(ctx, question{reverse(a), dnsmessage.TypePTR})
	if err != nil {
		return nil, failure(err)
	}
	if len(found.names) == 0 {
		return nil, notFound()
	}
	return slices.Clone(found.names), nil
}

func fqdn(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) + "." }

func notFound() error { return &net.DNSError{Err: "no such host", IsNotFound: true} }

func failure(err error) error {
	if errors.Is(err, errNoName) {
		return notFound()
	}
	return &net.DNSError{Err: err.Error(), IsTemporary: true, IsTimeout: errors.Is(err, context.DeadlineExceeded), UnwrapErr: err}
}

// ask answers from the cache, or waits for who asks the same already, or asks.
func (r *Resolver) ask(ctx context.Context, q question) (answer, error) {
	for {
		r.mu.Lock()
		if a, ok := r.cache.get(q, time.Now()); ok {
			r.mu.Unlock()
			return a, nil
		}
		f := r.flying[q]
		if f == nil {
			f = &flight{done: make(chan struct{}), err: errAbandoned}
			r.flying[q] = f
			r.mu.Unlock()
			return r.fly(ctx, q, f)
		}
		r.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
		if f.err != errAbandoned {
			return f.answer, f.err
		}
		if ctx.Err() != nil {
			return answer{}, ctx.Err()
		}
	}
}

func (r *Resolver) fly(ctx context.Context, q question, f *flight) (answer, error) {
	defer func() { // also of a panic
		r.mu.Lock()
		if f.err == nil {
			r.cache.put(q, f.answer, time.Now(), mathrand.Float64())
		}
		delete(r.flying, q)
		r.mu.Unlock()
		close(f.done)
	}()
	a, err := r.fetch(ctx, q)
	if ctx.Err() == nil || err == nil {
		f.answer, f.err = a, err
	}
	return a, err
}

// fetch asks one server after the other, the one that answered last first, and once more those that were silent.
func (r *Resolver) fetch(ctx context.Context, q question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	servers, err := r.known()
	if err != nil {
		return answer{}, err
	}
	first := int(r.first.Load())
	said := make([]bool, len(servers)) // a failure: it would say the same again
	err = errServer
	for _, patience := range tryTimes {
		for i := range servers {
			k := (first + i) % len(servers)
			if said[k] {
				continue
			}
			var a answer
			if a, err = r.exchange(ctx, servers[k], q, patience); err == nil {
				r.first.Store(uint32(k))
				return a, nil
			}
			if errors.Is(err, errNoName) || ctx.Err() != nil {
				return answer{}, err
			}
			said[k] = errors.Is(err, errServer) || errors.Is(err, errBroken) || errors.Is(err, errAliases)
		}
	}
	return answer{}, err
}

// exchange puts a question to one server: in a datagram, and over TCP if the answer does not fit into one, or if others
// answer in the server's place.
func (r *Resolver) exchange(ctx context.Context, server netip.AddrPort, q question, patience time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a, err := r.try(ctx, "udp", server, q, overUDP)
	if errors.Is(err, errTruncated) || errors.Is(err, errCase) || errors.Is(err, errForeign) {
		a, err = r.try(ctx, "tcp", server, q, overTCP)
	}
	return a, err
}

func (r *Resolver) try(ctx context.Context, network string, server netip.AddrPort, q question, talk func(net.Conn, *query) (answer, error)) (answer, error) {
	random := make([]byte, 2+32)
	rand.Read(random)
	asked, err := newQuery(q, random)
	if err != nil {
		return answer{}, err
	}
	conn, err := r.dial(ctx, network, server)
	if err != nil {
		return answer{}, fmt.Errorf("dns: the server cannot be reached: %w", bare(err))
	}
	defer conn.Close()
	defer contain.AtEnd(ctx, nil, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	a, err := talk(conn, &asked)
	if ctx.Err() != nil {
		return answer{}, ctx.Err()
	}
	return a, err
}

// bare is what the system said, without whom it was about.
func bare(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return errServer
}

func overUDP(conn net.Conn, q *query) (answer, error) {
	msg, err := q.message()
	if err != nil {
		return answer{}, err
	}
	if _, err := conn.Write(msg); err != nil {
		return answer{}, bare(err)
	}
	b := make([]byte, mostUDP+1)
	for range mostStray {
		n, err := conn.Read(b)
		if err != nil {
			return answer{}, bare(err)
		}
		if n > mostUDP {
			return answer{}, errTruncated
		}
		if a, err := q.read(b[:n]); !errors.Is(err, errForeign) {
			return a, err
		}
	}
	return answer{}, errForeign
}

func overTCP(conn net.Conn, q *query) (answer, error) {
	q.anyCase = true
	msg, err := q.message()
	if err != nil {
		return answer{}, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)); err != nil {
		return answer{}, bare(err)
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return answer{}, bare(err)
	}
	n := binary.BigEndian.Uint16(size[:])
	if n > mostTCP {
		return answer{}, errBroken
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(conn, b); err != nil {
		return answer{}, bare(err)
	}
	a, err := q.read(b)
	if errors.Is(err, errForeign) || errors.Is(err, errTruncated) {
		err = errBroken
	}
	return a, err
}

// dial connects from a port drawn at random, so that who does not see the query must guess it.
func dial(ctx context.Context, network string, server netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if network == "udp" {
		for range portTries {
			d.LocalAddr = &net.UDPAddr{Port: randomPort()}
			conn, err := d.DialContext(ctx, network, server.String())
			if err == nil || !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
				return conn, err
			}
		}
		d.LocalAddr = nil
	}
	return d.DialContext(ctx, network, server.String())
}

// randomPort draws one of the ports from 16384 on.
func randomPort() int {
	for {
		var b [2]byte
		rand.Read(b[:])
		if port := int(binary.BigEndian.Uint16(b[:])); port >= 16384 {
			return port
		}
	}
}
