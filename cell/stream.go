package cell

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
)

// MaxName is the length of the longest host name, in bytes.
const MaxName = 255

// BeginFlags say which addresses of a name the exit may connect to.
type BeginFlags uint8

const (
	NoIPv4     BeginFlags = 1 << iota // not to an IPv4 address
	NoIPv6                            // not to an IPv6 address; not together with NoIPv4
	PreferIPv6                        // to an IPv6 address when there are both
)

// Begin is the data of a BEGIN message: open a stream to a host. The name is resolved by the exit.
type Begin struct {
	Flags BeginFlags
	Port  uint16 // not 0
	Host  string // a name or an address as text; 1 to MaxName bytes of printable ASCII without spaces
}

// ParseBegin reads the data of a BEGIN message.
func ParseBegin(data []byte) (Begin, error) {
	if len(data) < 3 {
		return Begin{}, short(MsgBegin)
	}
	host, err := lastName(MsgBegin, data[3:])
	if err != nil {
		return Begin{}, err
	}
	b := Begin{Flags: BeginFlags(data[0]), Port: binary.BigEndian.Uint16(data[1:]), Host: host}
	if err := b.Check(); err != nil {
		return Begin{}, err
	}
	return b, nil
}

// Check implements Body.
func (m Begin) Check() error {
	switch {
	case m.Flags&^(NoIPv4|NoIPv6|PreferIPv6) != 0:
		return fmt.Errorf("cell: BEGIN: unknown flags %#x", uint8(m.Flags))
	case m.Flags&NoIPv4 != 0 && m.Flags&NoIPv6 != 0:
		return fmt.Errorf("cell: BEGIN: neither IPv4 nor IPv6 is allowed")
	case m.Port == 0:
		return fmt.Errorf("cell: BEGIN: port 0")
	}
	return checkName(MsgBegin, m.Host)
}

// Append implements Body.
func (m Begin) Append(b []byte) []byte {
	b = append(b, byte(m.Flags))
	b = binary.BigEndian.AppendUint16(b, m.Port)
	return appendName(b, m.Host)
}

// LogValue keeps targets out of logs.
func (m Begin) LogValue() slog.Value { return scrubbed() }

// Connected is the data of a CONNECTED message: the stream is open.
type Connected struct {
	TTL  uint32     // seconds for which Addr is the host's address; 0 if Addr is not told
	Addr netip.Addr // what the exit connected to; invalid: not told. Never a zone, never IPv4 mapped into IPv6
}

// ParseConnected reads the data of a CONNECTED message.
func ParseConnected(data []byte) (Connected, error) {
	if len(data) < 5 {
		return Connected{}, short(MsgConnected)
	}
	m := Connected{TTL: binary.BigEndian.Uint32(data)}
	var err error
	if data[4] != kindNone {
		if m.Addr, data, err = takeAddr(MsgConnected, data[4:]); err != nil {
			return Connected{}, err
		}
	} else {
		data = data[5:]
	}
	if len(data) > 0 {
		return Connected{}, leftOver(MsgConnected, len(data))
	}
	if err := m.Check(); err != nil {
		return Connected{}, err
	}
	return m, nil
}

// Check implements Body.
func (m Connected) Check() error {
	if m.Addr.IsValid() {
		return checkAddr(MsgConnected, m.Addr)
	}
	if m.TTL != 0 {
		return fmt.Errorf("cell: CONNECTED: %d seconds for no address", m.TTL)
	}
	return nil
}

// Append implements Body.
func (m Connected) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, m.TTL)
	if !m.Addr.IsValid() {
		return append(b, kindNone)
	}
	return appendAddr(b, m.Addr)
}

// LogValue keeps targets out of logs.
func (m Connected) LogValue() slog.Value { return scrubbed() }

// End is the data of an END message: this side of the stream is over. EndDone ends what this side sends, any other
// reason both directions at once (spec/cell.md, section 5).
type End struct {
	Reason EndReason
}

// ParseEnd reads the data of an END message.
func ParseEnd(data []byte) (End, error) {
	if err := exact(MsgEnd, data, 1); err != nil {
		return End{}, err
	}
	m := End{Reason: EndReason(data[0])}
	if err := m.Check(); err != nil {
		return End{}, err
	}
	return m, nil
}

// Check implements Body.
func (m End) Check() error {
	if !m.Reason.Valid() {
		return fmt.Errorf("cell: END: unknown reason %d", uint8(m.Reason))
	}
	return nil
}

// Append implements Body.
func (m End) Append(b []byte) []byte { return append(b, byte(m.Reason)) }

// MaxWindow is the highest Limit a WINDOW may name, in bytes; far from where sums overflow.
const MaxWindow = 1 << 62

// Window is the data of a WINDOW message: how much the peer may send on the stream.
type Window struct {
	Limit uint64 // bytes the peer may have sent in all since the stream began; at most MaxWindow
}

// ParseWindow reads the data of a WINDOW message.
func ParseWindow(data []byte) (Window, error) {
	if err := exact(MsgWindow, data, 8); err != nil {
		return Window{}, err
	}
	m := Window{Limit: binary.BigEndian.Uint64(data)}
	if err := m.Check(); err != nil {
		return Window{}, err
	}
	return m, nil
}

// Check implements Body.
func (m Window) Check() error {
	if m.Limit > MaxWindow {
		return fmt.Errorf("cell: WINDOW: limit %d, at most %d", m.Limit, uint64(MaxWindow))
	}
	return nil
}

// Append implements Body.
func (m Window) Append(b []byte) []byte { return binary.BigEndian.AppendUint64(b, m.Limit) }

// checkName checks a host name of a message of type t.
func checkName(t MessageType, name string) error {
	if len(name) == 0 || len(name) > MaxName {
		return fmt.Errorf("cell: %v: name of %d bytes, want 1 to %d", t, len(name), MaxName)
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			return fmt.Errorf("cell: %v: byte %#02x in a name", t, name[i])
		}
	}
	return nil
}

func appendName(b []byte, name string) []byte { return append(append(b, byte(len(name))), name...) }

// takeName reads a name from the front of data and returns what is behind it. It does not check the name.
func takeName(t MessageType, data []byte) (name string, rest []byte, err error) {
	if len(data) < 1 || len(data) < 1+int(data[0]) {
		return "", nil, short(t)
	}
	n := 1 + int(data[0])
	return string(data[1:n]), data[n:], nil
}

// lastName is takeName when nothing may follow.
func lastName(t MessageType, data []byte) (string, error) {
	name, rest, err := takeName(t, data)
	if err == nil && len(rest) > 0 {
		err = leftOver(t, len(rest))
	}
	return name, err
}
