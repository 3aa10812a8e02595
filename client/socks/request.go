package socks

import (
	"log/slog"
	"net/netip"
)

// Command is what an application wants.
type Command uint8

const (
	Connect    Command = iota // a TCP connection to Host and Port
	Resolve                   // an address of Host
	ResolvePTR                // a name of Host, which is an address
)

// Request is what an application asked for.
type Request struct {
	Command Command
	// Host is a name (1 to 255 printable ASCII bytes, never resolved here) or the text of an
	// address in its shortest form, IPv4 in IPv6 unmapped.
	Host string
	// Port is never zero for Connect, and always for others.
	Port uint16
	// Isolation says with which other requests this one may share a circuit.
	Isolation Isolation
}

// Addr returns the address that Host spells, if it is not a name.
func (r Request) Addr() (netip.Addr, bool) {
	a, err := netip.ParseAddr(r.Host)
	return a, err == nil
}

// String hides the request: who asks for what belongs in no log.
func (r Request) String() string { return scrubbed }

// GoString hides the request.
func (r Request) GoString() string { return scrubbed }

// LogValue hides the request.
func (r Request) LogValue() slog.Value { return slog.StringValue(scrubbed) }

// Isolation tells requests apart that must not share a circuit: two requests may share one only if
// their Isolations are equal (==).
type Isolation struct {
	// Credentials are the user and password that the application gave.
	Credentials Credentials
	// Client is the address of the application; not valid where the listener has none to tell.
	Client netip.Addr
	// Listener is the group of the listener that was asked, or its network and address.
	Listener string
	// Host and Port are those of the request where the listener isolates by them.
	Host string
	Port uint16
}

// Answer is what a Resolve or ResolvePTR found: an address, or a name of at most 255 bytes.
type Answer struct {
	Addr netip.Addr
	Name string
}

// String hides the isolation.
func (i Isolation) String() string { return scrubbed }

// GoString hides the isolation.
func (i Isolation) GoString() string { return scrubbed }

// LogValue hides the isolation.
func (i Isolation) LogValue() slog.Value { return slog.StringValue(scrubbed) }

// Credentials are a user name and a password, good for nothing but comparing (==). They guard
// nothing: any are accepted. The zero value means that none were given, which differs from an empty
// name with an empty password.
type Credentials struct {
	user, password string
	given          bool
}

// NewCredentials returns the Credentials of an application that gives this user and password.
func NewCredentials(user, password string) Credentials {
	return Credentials{user: user, password: password, given: true}
}

// String hides the credentials.
func (c Credentials) String() string { return scrubbed }

// GoString hides the credentials.
func (c Credentials) GoString() string { return scrubbed }

// LogValue hides the credentials.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(scrubbed) }

const scrubbed = "[scrubbed]"
