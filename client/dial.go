package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/circuit"
	"peel/circuit/stream"
	"peel/client/path"
)

const (
	dialAttempts = 3                // circuits tried for one request
	answerWithin = 25 * time.Second // more than an exit takes to give up: what says nothing for so long is the circuit's fault
)

// DialContext connects to addr, "host:port", through the network. A host that is a name is resolved at the far end only.
// network must be "tcp", "tcp4" or "tcp6". It waits for the client to be ready. What the far end says against it is a
// *stream.EndError. It tries another circuit, as long as no byte of the caller's has been sent, where that may do better.
func (c *Client) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return c.DialEarly(ctx, network, addr, nil)
}

// DialEarly is DialContext, with the first bytes to write going along with the request: an answer to them comes as soon as the connection
// stands, one way through the network and back sooner. No second circuit is asked while an answer is late, and where the circuit failed
// once any of the bytes had gone, none is asked either: they might arrive twice. The error then is a *stream.SentError. An exit that says
// that it did not connect has passed none of them on: another is tried where DialContext would, and gets them once it is connected, so that
// no more exits see them than need to. At most stream.MaxFirst bytes can be first; they must not change until it returns.
func (c *Client) DialEarly(ctx context.Context, network, addr string, first []byte) (net.Conn, error) {
	conn, err := c.dial(ctx, network, addr, first)
	if err != nil {
		return nil, netError{err}
	}
	return conn, nil
}

func (c *Client) dial(ctx context.Context, network, addr string, first []byte) (*Conn, error) {
	b, err := c.known(network, addr)
	if err != nil {
		return nil, err
	}
	if len(first) > stream.MaxFirst {
		return nil, fmt.Errorf("client: %d first bytes, at most %d can go along with a request", len(first), stream.MaxFirst)
	}
	r := request{usage: usageOf(b.Host, b.Port), once: len(first) > 0}
	dial := func(ctx context.Context, ci *circuit.Circuit) (*stream.Stream, error) { return ci.Dial(ctx, b) }
	tries := 0
	if r.once {
		dial = func(ctx context.Context, ci *circuit.Circuit) (*stream.Stream, error) {
			if tries++; tries > 1 {
				return ci.Dial(ctx, b)
			}
			return ci.DialEarly(ctx, b, first)
		}
	}
	s, way, err := try(c, ctx, r, dial, func(s *stream.Stream) { s.Close() })
	if err == nil && tries > 1 {
		err = write(ctx, s, first)
	}
	if err != nil {
		return nil, err
	}
	return &Conn{s, way}, nil
}

// netError makes an error a net.Error on the outside: those that wrap it, as net/http does, look no deeper for Timeout.
type netError struct{ error }

func (e netError) Unwrap() error { return e.error }

func (e netError) Timeout() bool {
	var inner net.Error
	return errors.As(e.error, &inner) && inner.Timeout()
}

// Temporary is deprecated, and asked for by net.Error all the same.
func (e netError) Temporary() bool {
	var inner interface{ Temporary() bool }
	return errors.As(e.error, &inner) && inner.Temporary()
}

// write writes first to a stream that is new, which it ends if that fails or ctx ends meanwhile.
func write(ctx context.Context, s *stream.Stream, first []byte) error {
	defer contain.OnDone(ctx, nil, func() { s.Close() })()
	if _, err := s.Write(first); err != nil {
		s.Close()
		if ctx.Err() != nil {
			err = stream.Ended(ctx)
		}
		return fmt.Errorf("client: %w", &stream.SentError{Err: err})
	}
	return nil
}

// known is the BEGIN for what is asked for, or what can be said against it without asking anybody.
func (c *Client) known(network, addr string) (cell.Begin, error) {
	b, err := target(network, addr)
	if err != nil {
		return b, err
	}
	if a, err := netip.ParseAddr(b.Host); err == nil && c.virtual.contains(a) {
		name, ok := c.virtual.name(a)
		if !ok {
			return b, errForgotten
		}
		return b, checkHost(name)
	}
	return b, nil
}

// Conn is a connection through the network.
type Conn struct {
	*stream.Stream
	Path path.Path // the relays it goes through, the first one first
}

// PathOf is the way that a connection from DialContext takes; nil: it is from elsewhere.
func PathOf(c net.Conn) path.Path {
	if c, ok := c.(*Conn); ok {
		return c.Path
	}
	return nil
}

// try has do ask r of a circuit, and of another where that may do better. drop ends what was got and is not needed.
func try[T any](c *Client, ctx context.Context, r request, do func(context.Context, *circuit.Circuit) (T, error), drop func(T)) (none T, way path.Path, err error) {
	if c.refused != nil {
		return none, nil, c.refused
	}
	r.token, r.era = c.token, c.pool.nowEra()
	var last error
	for attempt := range dialAttempts {
		if attempt > 0 {
			c.pool.anew()
		}
		h, err := c.pool.get(ctx, r)
		if err != nil {
			var end *stream.EndError
			switch {
			case errors.As(last, &end) && ctx.Err() != nil:
				return none, nil, fmt.Errorf("%w (before that: %w)", err, last)
			case errors.As(last, &end): // what the far end said tells more than that no other is left to ask
				return none, nil, fmt.Errorf("client: %w", last)
			case last != nil:
				return none, nil, fmt.Errorf("%w (before that: %v)", err, last)
			}
			return none, nil, err
		}
		first := ask(ctx, c.pool, r, h, do, drop)
		h, err = first.h, first.err
		if err == nil {
			c.pool.carried(h, nil)
			return first.got, h.path, nil
		}
		if errors.Is(err, ErrClosed) { // it says all there is to say
			return none, nil, err
		}
		if ctx.Err() != nil {
			return none, nil, fmt.Errorf("client: %w", err)
		}
		c.pool.carried(h, err)
		switch other(err, r.usage) {
		case nothing:
			return none, nil, fmt.Errorf("client: %w", err)
		case unsure:
			c.pool.discard(h)
			return none, nil, fmt.Errorf("client: %w", err)
		case otherCircuit:
			c.pool.failed(h, err)
		case otherExit:
			r.not = append(r.not, h.path[len(h.path)-1].ID)
		}
		last = err
	}
	return none, nil, fmt.Errorf("client: tried %d circuits: %w", dialAttempts, last)
}

// remedy is what may do better after an error.
type remedy int

const (
	nothing      remedy = iota
	otherCircuit        // this one is of no more use, or of none for a while
	otherExit           // the circuit is good for other targets
	unsure              // this circuit is of no more use, and another must not be asked
)

// other says what may do better than what brought err.
func other(err error, u path.Usage) remedy {
	var end *stream.EndError
	var sent *stream.SentError
	switch {
	case errors.As(err, &sent):
		return unsure
	case !errors.As(err, &end):
		return otherCircuit // the circuit failed, or is full, not the stream
	}
	switch end.Reason {
	case cell.EndBusy, cell.EndInternal, cell.EndMisc:
		return otherCircuit
	case cell.EndResolveFailed:
		return otherExit
	case cell.EndPolicy: // an exit knows the address behind a name, the client did not
		if !u.Addr.IsValid() {
			return otherExit
		}
	}
	return nothing
}

// target is the BEGIN for what DialContext is given.
func target(network, addr string) (cell.Begin, error) {
	flags, err := networkFlags(network)
	if err != nil {
		return cell.Begin{}, err
	}
	host, port, err := splitTarget(addr)
	if err != nil {
		return cell.Begin{}, err
	}
	if a, err := netip.ParseAddr(host); err == nil {
		a = a.Unmap()
		if a.Is4() && flags == cell.NoIPv4 || a.Is6() && flags == cell.NoIPv6 {
			return cell.Begin{}, fmt.Errorf("client: target: the address is not one of %s", network)
		}
		host = a.String()
	}
	return cell.Begin{Host: host, Port: port, Flags: flags}, nil
}

func usageOf(host string, port uint16) path.Usage {
	u := path.Usage{Port: port}
	u.Addr, _ = netip.ParseAddr(host) // not valid: a name
	return u
}

func networkFlags(network string) (cell.BeginFlags, error) {
	switch network {
	case "tcp":
		return 0, nil
	case "tcp4":
		return cell.NoIPv6, nil
	case "tcp6":
		return cell.NoIPv4, nil
	}
	return 0, fmt.Errorf("client: network %q: only tcp, tcp4 and tcp6 go through the network", network)
}

func splitTarget(addr string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, errors.New("client: target: must be host:port, an IPv6 address in brackets") // without the target
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, errors.New("client: target port: must be a number from 1 to 65535")
	}
	if err := checkHost(host); err != nil {
		return "", 0, err
	}
	return host, uint16(n), nil
}
