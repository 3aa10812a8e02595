package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"peel/client"
	"peel/client/dns"
	"peel/client/socks"
	"peel/cmd/peel/internal/conf"
)

// networkOf is "tcp" or "udp", or what of it an address to listen on means: 0.0.0.0 is all of IPv4 and [::] all of IPv6, but package net would
// have each be the other as well, which a firewall for one does not guard, and which keeps the two from being listened on at one port.
func networkOf(transport, addr string) string {
	a, err := netip.ParseAddrPort(addr)
	switch {
	case err != nil: // a name, or none, as in :9001, which is both
		return transport
	case a.Addr().Unmap().Is4():
		return transport + "4"
	}
	return transport + "6"
}

// listenSOCKS opens a port for applications; option names what to change if it cannot be had.
func listenSOCKS(addr, option string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &usageError{fmt.Errorf("%s %q: must be an address and a port, as in 127.0.0.1:9250", option, addr)}
	}
	l, err := net.Listen(networkOf("tcp", addr), addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s %s: another program listens there: end it, or choose another port, as in %s %s (a free one is picked)",
			option, addr, option, net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", option, addr, cannotListen(err))
	}
	return l, nil
}

// cannotListen says why an address cannot be listened on, where the system's words do not.
func cannotListen(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return errors.New("another program listens there: end it, or choose another port")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return errors.New("this machine has no such address: give one of its own, or 0.0.0.0 for all")
	case errors.Is(err, syscall.EACCES):
		return errors.New("this user may not listen there: choose a port above 1023")
	}
	return err
}

// openToOthers says whether other machines can reach a socket.
func openToOthers(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return !a.IP.IsLoopback()
	case *net.UDPAddr:
		return !a.IP.IsLoopback()
	}
	return false
}

// socketFile is a listener whose file goes when it is closed.
type socketFile struct {
	*net.UnixListener
	path string
	once sync.Once
}

func (s *socketFile) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

func (s *socketFile) Close() error {
	s.once.Do(func() { os.Remove(s.path) }) // first: who waits for the end of Accept finds the file gone
	return s.UnixListener.Close()
}

// listenUnix opens a unix socket that only this user can use. What a client that was killed left behind is replaced.
func listenUnix(path string) (net.Listener, error) {
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there and is no socket: choose another path", path)
	default:
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return nil, about(path, "another program listens there: end it, or choose another path")
		}
	}
	// It is made in a folder that nobody else can enter, so that at no moment others can connect.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("%w (the path of a socket may have about 90 letters)", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		l.Close()
		return nil, err
	}
	return &socketFile{UnixListener: l, path: path}, nil
}

// listenDNS opens one port over UDP and TCP.
func listenDNS(addr string) (net.PacketConn, net.Listener, error) {
	var last error
	for range 10 { // of port 0: the free one of TCP may be taken over UDP
		l, err := net.Listen(networkOf("tcp", addr), addr)
		if err != nil {
			return nil, nil, fmt.Errorf("dns %s: %w", addr, cannotListen(err))
		}
		p, err := net.ListenPacket(networkOf("udp", addr), l.Addr().String())
		if err == nil {
			return p, l, nil
		}
		l.Close()
		last = err
	}
	return nil, nil, fmt.Errorf("dns %s: %w", addr, cannotListen(last))
}

// doors are all sockets at which applications find a client.
type doors struct {
	ports []port
	udp   net.PacketConn // nil: no DNS
	tcp   net.Listener

	socks *socks.Server // with servers, as names
	names *dns.Server   // nil: no DNS
}

type port struct {
	net.Listener
	rules socks.Rules
}

// openDoors opens the sockets of a configuration.
func openDoors(f *conf.Client, log *slog.Logger) (d *doors, err error) {
	d = new(doors)
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	for _, c := range f.Doors() {
		var l net.Listener
		option := "listen: address"
		if c.Address == f.SOCKS {
			option = "socks"
		}
		if path := c.Unix(); path != "" {
			if l, err = listenUnix(path); err != nil {
				return d, fmt.Errorf("%s: %w", option, err)
			}
		} else if l, err = listenSOCKS(c.Address, option); err != nil {
			return d, err
		}
		d.ports = append(d.ports, port{l, socks.Rules{
			Group: c.Group, ShareUsers: c.User != nil && !*c.User, ShareClients: c.Client != nil && !*c.Client,
			IsolateHosts: c.Host, IsolatePorts: c.Port, Safe: c.Safe, Extended: c.Extended, Early: c.Early,
		}})
		if openToOthers(l.Addr()) {
			log.Warn("a port for applications is open to other machines: whoever reaches it can use it", "address", c.Address)
		}
	}
	if f.DNS != "" {
		if d.udp, d.tcp, err = listenDNS(f.DNS); err != nil {
			return d, err
		}
		if openToOthers(d.udp.LocalAddr()) {
			log.Warn("the DNS port is open to other machines: whoever reaches it can use it, also to send its answers to others", "dns", f.DNS)
		}
	}
	return d, nil
}

func (d *doors) close() {
	for _, p := range d.ports {
		p.Close()
	}
	if d.udp != nil {
		d.udp.Close()
		d.tcp.Close()
	}
}

// servers are what runs at the sockets, for together.
func (d *doors) servers(c *client.Client, log *slog.Logger) (all []func(context.Context) error) {
	d.socks = c.SOCKSServer(log)
	for _, p := range d.ports {
		all = append(all, func(ctx context.Context) error { return d.socks.ServeRules(ctx, p.Listener, p.rules) })
	}
	if d.udp != nil {
		d.names = c.DNSServer(log)
		all = append(all,
			func(ctx context.Context) error { return d.names.ServePacket(ctx, d.udp) },
			func(ctx context.Context) error { return d.names.ServeListener(ctx, d.tcp) })
	}
	return all
}

// announce says where applications find the client.
func (d *doors) announce(w io.Writer) {
	for _, p := range d.ports {
		early := ""
		if p.rules.Early {
			early = " (early_answer)"
		}
		if a := p.Addr(); a.Network() == "unix" {
			fmt.Fprintf(w, "ready: unix:%s%s\n", a, early)
		} else {
			fmt.Fprintf(w, "ready: socks5://%s%s\n", a, early)
		}
	}
	if d.udp != nil {
		fmt.Fprintf(w, "ready: dns://%s\n", d.udp.LocalAddr())
	}
}
