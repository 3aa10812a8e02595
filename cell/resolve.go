package cell

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
)

// A ResolveKind says what is looked up: the number of a DNS record type, or ResolveAny.
type ResolveKind uint16

const (
	ResolveAny  ResolveKind = 0  // IPv4 and IPv6 addresses
	ResolveA    ResolveKind = 1  // IPv4 addresses
	ResolvePTR  ResolveKind = 12 // names of an address
	ResolveAAAA ResolveKind = 28 // IPv6 addresses
)

// Valid says whether the kind may be asked for.
func (k ResolveKind) Valid() bool {
	return k == ResolveAny || k == ResolveA || k == ResolvePTR || k == ResolveAAAA
}

func (k ResolveKind) String() string {
	switch k {
	case ResolveAny:
		return "any"
	case ResolveA:
		return "A"
	case ResolvePTR:
		return "PTR"
	case ResolveAAAA:
		return "AAAA"
	}
	return fmt.Sprintf("TYPE%d", uint16(k))
}

// Resolve is the data of a RESOLVE message: look up a name at the exit.
type Resolve struct {
	Kind ResolveKind
	Name string // like Begin.Host; for ResolvePTR the address as text, as netip prints it
}

// ParseResolve reads the data of a RESOLVE message.
func ParseResolve(data []byte) (Resolve, error) {
	if len(data) < 2 {
		return Resolve{}, short(MsgResolve)
	}
	name, err := lastName(MsgResolve, data[2:])
	if err != nil {
		return Resolve{}, err
	}
	m := Resolve{Kind: ResolveKind(binary.BigEndian.Uint16(data)), Name: name}
	if err := m.Check(); err != nil {
		return Resolve{}, err
	}
	return m, nil
}

// Check implements Body.
func (m Resolve) Check() error {
	if !m.Kind.Valid() {
		return fmt.Errorf("cell: RESOLVE: unknown kind %d", uint16(m.Kind))
	}
	if err := checkName(MsgResolve, m.Name); err != nil {
		return err
	}
	if m.Kind == ResolvePTR {
		addr, err := netip.ParseAddr(m.Name)
		if err != nil || addr.String() != m.Name {
			return fmt.Errorf("cell: RESOLVE: PTR of what is not an address in its usual form")
		}
		return checkAddr(MsgResolve, addr)
	}
	return nil
}

// Append implements Body.
func (m Resolve) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(m.Kind))
	return appendName(b, m.Name)
}

// LogValue keeps targets out of logs.
func (m Resolve) LogValue() slog.Value { return scrubbed() }

// MaxAnswers is how many answers a RESOLVED may carry. All together must fit into one message: 32 addresses always do.
const MaxAnswers = 32

// Resolved is the data of a RESOLVED message: what a RESOLVE found.
type Resolved struct {
	Reason  EndReason // 0: found; else why not, never EndDone. EndNotFound: nothing of that kind has the name
	Answers []Answer  // 1 to MaxAnswers if found, else none
}

// An Answer is one address or one name.
type Answer struct {
	TTL  uint32     // seconds it may be kept
	Addr netip.Addr // valid: an address, never with a zone, never IPv4 mapped into IPv6
	Name string     // else: a name, as in Begin.Host
}

// ParseResolved reads the data of a RESOLVED message.
func ParseResolved(data []byte) (Resolved, error) {
	if len(data) < 2 {
		return Resolved{}, short(MsgResolved)
	}
	m := Resolved{Reason: EndReason(data[0])}
	n, data := int(data[1]), data[2:]
	if n > MaxAnswers {
		return Resolved{}, fmt.Errorf("cell: RESOLVED: %d answers, at most %d", n, MaxAnswers)
	}
	if n > 0 {
		m.Answers = make([]Answer, n)
	}
	for i := range m.Answers {
		var err error
		if m.Answers[i], data, err = takeAnswer(data); err != nil {
			return Resolved{}, err
		}
	}
	if len(data) > 0 {
		return Resolved{}, leftOver(MsgResolved, len(data))
	}
	if err := m.Check(); err != nil {
		return Resolved{}, err
	}
	return m, nil
}

func takeAnswer(data []byte) (a Answer, rest []byte, err error) {
	if len(data) < 5 {
		return Answer{}, nil, short(MsgResolved)
	}
	a.TTL = binary.BigEndian.Uint32(data)
	if data[4] == kindName {
		a.Name, rest, err = takeName(MsgResolved, data[5:])
	} else {
		a.Addr, rest, err = takeAddr(MsgResolved, data[4:])
	}
	return a, rest, err
}

// Check implements Body.
func (m Resolved) Check() error {
	if m.Reason != 0 {
		switch {
		case !m.Reason.Valid() || m.Reason == EndDone:
			return fmt.Errorf("cell: RESOLVED: reason %d", uint8(m.Reason))
		case len(m.Answers) > 0:
			return fmt.Errorf("cell: RESOLVED: answers, and a reason why there are none")
		}
		return nil
	}
	if len(m.Answers) == 0 || len(m.Answers) > MaxAnswers {
		return fmt.Errorf("cell: RESOLVED: %d answers, want 1 to %d", len(m.Answers), MaxAnswers)
	}
	size := 2
	for _, a := range m.Answers {
		if err := a.check(); err != nil {
			return err
		}
		size += 5 + a.size()
	}
	if size > MaxData {
		return fmt.Errorf("cell: RESOLVED: answers of %d bytes, at most %d fit", size, MaxData)
	}
	return nil
}

func (a Answer) check() error {
	if !a.Addr.IsValid() {
		return checkName(MsgResolved, a.Name)
	}
	if a.Name != "" {
		return fmt.Errorf("cell: RESOLVED: an answer that is both an address and a name")
	}
	return checkAddr(MsgResolved, a.Addr)
}

// size is the answer's wire size behind its TTL and kind.
func (a Answer) size() int {
	if !a.Addr.IsValid() {
		return 1 + len(a.Name)
	}
	return a.Addr.BitLen() / 8
}

// Append implements Body.
func (m Resolved) Append(b []byte) []byte {
	b = append(b, byte(m.Reason), byte(len(m.Answers)))
	for _, a := range m.Answers {
		b = binary.BigEndian.AppendUint32(b, a.TTL)
		if a.Addr.IsValid() {
			b = appendAddr(b, a.Addr)
		} else {
			b = appendName(append(b, kindName), a.Name)
		}
	}
	return b
}

// LogValue keeps targets out of logs.
func (m Resolved) LogValue() slog.Value { return scrubbed() }

// LogValue keeps targets out of logs.
func (a Answer) LogValue() slog.Value { return scrubbed() }
