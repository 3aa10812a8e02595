package socks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Lengths of what a client may send before its request is complete (spec/socks.md, section 2).
const (
	maxStep   = 3 + 255 + 255 // the longest single message: user and password
	maxMethod = 16            // of an HTTP request, in letters
)

// proto is the conversation of one client up to its request. It has no socket and no clock: bytes
// come in through next, which says what they mean. The zero value is a new conversation.
type proto struct {
	step        step
	credentials Credentials
}

type step uint8

const (
	stepGreeting step = iota
	stepCredentials
	stepRequest
	stepOver
)

// An event is what next found in the bytes.
type event struct {
	kind  kind
	reply []byte  // to be sent to the client; not to be changed
	req   Request // evRequest: Host, Port and Credentials are set
	named bool    // evRequest: the client sent a name, or an address as text
	err   error   // evRefuse: why
}

type kind uint8

const (
	evMore    kind = iota // the bytes are a beginning: come again with these and more
	evReply               // a step is over: send reply, drop what was used, go on
	evRequest             // the conversation is over; what follows are the application's own bytes
	evRefuse              // the conversation has failed: send reply, if any, and close
)

// What a client may have got wrong.
var (
	errProtocol  = errors.New("socks: not a SOCKS client")
	errSOCKS4    = errors.New("socks: SOCKS 4 is not supported: set the application to SOCKS 5 (socks5h)")
	errHTTP      = errors.New("socks: plain HTTP came in: set the application to a SOCKS 5 proxy, not an HTTP proxy")
	errMethods   = errors.New("socks: the application offers no login method that is known here (none, or user and password)")
	errReserved  = errors.New(`socks: user names that begin with "<torS0X>" are reserved, and this form is not known`)
	errCommand   = errors.New("socks: only CONNECT is supported")
	errAddrType  = errors.New("socks: unknown kind of address")
	errMalformed = errors.New("socks: malformed request")
)

// next looks at b, the bytes that came and were not used yet, and returns how many of them it used.
// Its events do not depend on how the bytes were cut, and it decides as soon as the bytes allow.
// Given maxStep bytes it never asks for more. b is not kept.
func (p *proto) next(b []byte) (int, event) {
	if len(b) == 0 && p.step != stepOver {
		return 0, event{kind: evMore}
	}
	switch p.step {
	case stepGreeting:
		switch {
		case b[0] == 5:
			return p.greeting(b)
		case b[0] == 4:
			return p.refuse(errSOCKS4, 0, 0x5B, 0, 0, 0, 0, 0, 0)
		case 'A' <= b[0] && b[0] <= 'Z':
			return p.http(b)
		}
		return p.refuse(fmt.Errorf("%w: its first byte is 0x%02x", errProtocol, b[0]))
	case stepCredentials:
		return p.login(b)
	case stepRequest:
		return p.request(b)
	}
	return p.refuse(errProtocol)
}

func (p *proto) refuse(err error, reply ...byte) (int, event) {
	p.step = stepOver
	return 0, event{kind: evRefuse, reply: reply, err: err}
}

func (p *proto) fail(err error, code byte) (int, event) {
	return p.refuse(err, reply(code)...)
}

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
	if strings.HasPrefix(user, "<torS0X>") && user != "<torS0X>0" {
		return p.refuse(errReserved, 1, 1)
	}
	n := u + 1 + int(b[u]) // where the password ends
	if len(b) < n {
		return 0, event{kind: evMore}
	}
	p.credentials = NewCredentials(user, string(b[u+1:n]))
	p.step = stepRequest
	return n, event{kind: evReply, reply: []byte{1, 0}}
}

// request reads 05 | command | 00 | address type | address | port.
func (p *proto) request(b []byte) (int, event) {
	if b[0] != 5 {
		return p.fail(fmt.Errorf("%w: version %d", errMalformed, b[0]), GeneralFailure)
	}
	if len(b) > 1 && b[1] != 1 {
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
	if port == 0 {
		return p.fail(fmt.Errorf("%w: port 0", errMalformed), GeneralFailure)
	}
	p.step = stepOver
	return at + n + 2, event{kind: evRequest, named: b[3] == 3,
		req: Request{Host: host, Port: port, Isolation: Isolation{Credentials: p.credentials}}}
}

// parseName reads a name, or an address as text: some programs (torsocks) send all addresses so.
func parseName(b []byte) (string, error) {
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return "", fmt.Errorf("%w: a name with a byte 0x%02x", errMalformed, c)
		}
	}
	name := string(b)
	if a, err := netip.ParseAddr(name); err == nil {
		if a.Zone() != "" {
			return "", fmt.Errorf("%w: an address with a zone", errMalformed)
		}
		return a.Unmap().String(), nil
	}
	return name, nil
}

// http answers a web browser, or a program that takes this port for an HTTP proxy. It needs the
// method only, and nothing of the request is acted upon.
func (p *proto) http(b []byte) (int, event) {
	for i, c := range b {
		switch {
		case i > 0 && c == ' ':
			return p.refuse(errHTTP, page(string(b[:i]))...)
		case c < 'A' || c > 'Z' || i == maxMethod:
			return p.refuse(fmt.Errorf("%w: neither SOCKS nor HTTP", errProtocol))
		}
	}
	return 0, event{kind: evMore}
}

// page is the whole answer to an HTTP request: 403, or 405 for those that want a tunnel.
func page(method string) []byte {
	status, allow := "403 Forbidden", ""
	if method == "CONNECT" {
		status, allow = "405 Method Not Allowed", "Allow:\r\n"
	}
	const text = "This is a SOCKS 5 port of Peel, not a web server and not an HTTP proxy.\n" +
		"Set your application to use it as a SOCKS 5 proxy that resolves names (socks5h://).\n"
	head := fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"+
		"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n", status, allow, len(text))
	if method == "HEAD" {
		return []byte(head)
	}
	return []byte(head + text)
}

// reply is the answer to a request. The address in it is always 0.0.0.0:0: where the far end of the
// connection stands is not for the application to know.
func reply(code byte) []byte {
	return []byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0}
}
