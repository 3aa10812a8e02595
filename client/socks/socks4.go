package socks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Answers of SOCKS 4. The other two of its codes are about identd.
const (
	granted4  = 0x5A
	rejected4 = 0x5B
)

// maxText is how long the user id and the name of SOCKS 4a may be, as in SOCKS 5.
const maxText = 255

// request4 reads 04 | command | port | IPv4 address | user id | 00, and, where the address is 0.0.0.x with x not 0
// (SOCKS 4a), a name | 00. The user id is the isolation.
func (p *proto) request4(b []byte) (int, event) {
	if len(b) < 2 {
		return 0, event{kind: evMore}
	}
	cmd, ok := command(b[1])
	if !ok || cmd == ResolvePTR { // its answer is a name, for which SOCKS 4 has no place
		return p.fail(fmt.Errorf("%w, not command 0x%02x", errCommand, b[1]), CommandNotSupported)
	}
	if len(b) < 8 {
		return 0, event{kind: evMore}
	}
	port := binary.BigEndian.Uint16(b[2:])
	if cmd == Connect && port == 0 {
		return p.fail(fmt.Errorf("%w: port 0", errMalformed), GeneralFailure)
	}
	user, n, ok := text0(b, 8)
	if !ok {
		return p.fail(fmt.Errorf("%w: a user id of more than %d bytes", errMalformed, maxText), GeneralFailure)
	}
	if n == 0 {
		return 0, event{kind: evMore}
	}
	if err := checkUser(string(user)); err != nil {
		return p.fail(err, GeneralFailure)
	}
	host, named := "", false
	if a := [4]byte(b[4:8]); a[0] == 0 && a[1] == 0 && a[2] == 0 {
		if a[3] == 0 {
			return p.fail(fmt.Errorf("%w: no address", errMalformed), GeneralFailure)
		}
		name, end, ok := text0(b, n)
		if !ok {
			return p.fail(fmt.Errorf("%w: a name of more than %d bytes", errMalformed, maxText), GeneralFailure)
		}
		if end == 0 {
			return 0, event{kind: evMore}
		}
		if len(name) == 0 {
			return p.fail(fmt.Errorf("%w: empty name", errMalformed), GeneralFailure)
		}
		var err error
		if host, err = parseName(name); err != nil {
			return p.fail(err, GeneralFailure)
		}
		n, named = end, true
	} else {
		host = netip.AddrFrom4(a).String()
	}
	if len(user) > 0 {
		p.credentials = NewCredentials(string(user), "")
	}
	if cmd != Connect {
		port = 0
	}
	return p.asked(n, cmd, host, port, named)
}

// text0 is the text in b from at up to a zero byte, and where what follows that begins: 0 if it has not come yet. It is not
// ok if the text is too long.
func text0(b []byte, at int) (text []byte, next int, ok bool) {
	i := bytes.IndexByte(b[at:], 0)
	switch {
	case i > maxText || i < 0 && len(b)-at > maxText:
		return nil, 0, false
	case i < 0:
		return nil, 0, true
	}
	return b[at : at+i], at + i + 1, true
}

// reply4 is an answer of SOCKS 4; without an address it has 0.0.0.0.
func reply4(code byte, addr netip.Addr) []byte {
	b := []byte{0, code, 0, 0, 0, 0, 0, 0}
	if addr.Is4() {
		copy(b[4:], addr.AsSlice())
	}
	return b
}
