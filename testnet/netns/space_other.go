//go:build !linux

package netns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
)

// Space is a network namespace, which only Linux has.
type Space struct{}

var errNotLinux = errors.New("netns: only Linux has network namespaces: run this on Linux, as root")

// NewSpace fails.
func NewSpace(netip.Addr) (*Space, error) { return nil, errNotLinux }

// Wire is not.
func (s *Space) Wire() *os.File { return nil }

// Addr is not.
func (s *Space) Addr() netip.Addr { return netip.Addr{} }

// Do fails.
func (s *Space) Do(func() error) error { return errNotLinux }

// Start fails.
func (s *Space) Start(*exec.Cmd) error { return errNotLinux }

// Listen fails.
func (s *Space) Listen(netip.AddrPort) (net.Listener, error) { return nil, errNotLinux }

// DialContext fails.
func (s *Space) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, errNotLinux
}

// Close does nothing.
func (s *Space) Close() error { return nil }
