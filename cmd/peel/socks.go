package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"peel/client"
	"peel/client/socks"
)

// listenSOCKS opens the SOCKS5 port; option names what to change if it cannot be had.
func listenSOCKS(addr, option string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &usageError{fmt.Errorf("%s %q: must be an address and a port, as in 127.0.0.1:9250", option, addr)}
	}
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s %s: another program listens there: end it, or choose another port, as in %s %s (a free one is picked)",
			option, addr, option, net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", option, addr, err)
	}
	return l, nil
}

// openToOthers says whether other machines can reach a listener.
func openToOthers(l net.Listener) bool {
	a, ok := l.Addr().(*net.TCPAddr)
	return ok && !a.IP.IsLoopback()
}

// socksDial connects what comes in on a SOCKS port: requests of different credentials never share a circuit.
func socksDial(c *client.Client) func(context.Context, socks.Request) (net.Conn, error) {
	return func(ctx context.Context, r socks.Request) (net.Conn, error) {
		return c.Isolated(r.Isolation).DialContext(ctx, "tcp", net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port))))
	}
}
