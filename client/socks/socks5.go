package socks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// greeting reads 05 | n | n methods, and chooses user and password (02) before none (00).
func (p *proto) greeting(b []byte) (int, event) {
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return 0, event{kind: evMore}
	}
	n := 2 + int(b[1])
	switch methods := b[2:n]; {
	case bytes.IndexByte(methods, 2) >= 0:
		p.step = stepCredentials
		return n, event{kind: evReply, reply: []byte{5, 2}}
	case bytes.IndexByte(methods, 0) >= 0:
		p.step = stepRequest
		return n, event{kind: evReply, reply: []byte{5, 0}}
	}
	return p.refuse(errMethods, 5, 0xFF)
}

// login reads 01 | n | user | n | password (RFC 1929). It accepts any.
func (p *proto) login(b []byte) (int, event) {
	if b[0] != 1 {
		return p.refuse(fmt.Errorf("%w: login of version %d", errMalformed, b[0]), 1, 1)
	}
	if len(b) < 2 {
		return 0, event{kind: evMore}
	}
	u := 2 + int(b[1]) // where the user ends
	if len(b) < u+1 {
		return 0, event{kind: evMore}
	}
	user := string(b[2:u])
	if err := checkUser(user); err != nil {
		return p.refuse(err, 1, 1)
	}
	n := u + 1 + int(b[u]) // where the password ends
	if len(b) < n {
		return 0, event{kind: evMore}
	}
	p.credentials = NewCredentials(user, string(b[u+1:n]))
	p.step = stepRequest
	return n, event{kind: evReply, reply: []byte{1, 0}}
}

// command says what a command byte of SOCKS 5 asks for; BIND (02) and UDP ASSOCIATE (03) are not offered.
func command(b byte) (Command, bool) {
	switch b {
	case 0x01:
		return Connect, true
	case 0xF0:
		return Resolve, true
	case 0xF1:
		return ResolvePTR, true
	}
	return 0, false
}

// request5 reads 05 | command | 00 | address type | address | port.
func (p *proto) request5(b []byte) (int, event) {
	if b[0] != 5 {
		return p.fail(fmt.Errorf("%w: version %d", errMalformed, b[0]), GeneralFailure)
	}
	if len(b) < 2 {
		return 0, event{kind: evMore}
	}
	cmd, ok := command(b[1])
	if !ok {
		return p.fail(fmt.Errorf("%w, not command 0x%02x", errCommand, b[1]), CommandNotSupported)
	}
	if len(b) > 2 && b[2] != 0 {
		return p.fail(fmt.Errorf("%w: reserved byte is 0x%02x", errMalformed, b[2]), GeneralFailure)
	}
	if len(b) < 4 {
		return 0, event{kind: evMore}
	}
	at, n := 4, 0 // where the address begins, and its length
	switch b[3] {
	case 1:
		n = 4
	case 4:
		n = 16
	case 3:
		if len(b) < 5 {
			return 0, event{kind: evMore}
		}
		if b[4] == 0 {
			return p.fail(fmt.Errorf("%w: empty name", errMalformed), GeneralFailure)
		}
		at, n = 5, int(b[4])
	default:
		return p.fail(fmt.Errorf("%w: 0x%02x", errAddrType, b[3]), AddressTypeUnsupported)
	}
	if len(b) < at+n+2 {
		return 0, event{kind: evMore}
	}
	host, port := "", binary.BigEndian.Uint16(b[at+n:])
	if b[3] == 3 {
		var err error
		if host, err = parseName(b[at : at+n]); err != nil {
			return p.fail(err, GeneralFailure)
		}
	} else {
		a, _ := netip.AddrFromSlice(b[at : at+n])
		host = a.Unmap().String()
	}
	if cmd == Connect && port == 0 {
		return p.fail(fmt.Errorf("%w: port 0", errMalformed), GeneralFailure)
	}
	if _, err := netip.ParseAddr(host); cmd == ResolvePTR && err != nil {
		return p.fail(fmt.Errorf("%w: RESOLVE_PTR of a name", errMalformed), AddressTypeUnsupported)
	}
	if cmd != Connect {
		port = 0 // programs put anything there: torsocks 42, tor-resolve 0
	}
	return p.asked(at+n+2, cmd, host, port, b[3] == 3)
}

// reply is the answer to a request of SOCKS 5. The address in it is always 0.0.0.0:0: where the far end of the
// connection stands is not for the application to know.
func reply(code byte) []byte {
	return []byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0}
}
