package socks

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// maxHead is what a client may send up to the end of its request, one message of SOCKS or a whole head of HTTP
// (spec/socks.md, section 9). What a login, a CONNECT and a name need at most is far less. Beside it, what else a connection takes that has
// said most of one stays within 8 KiB.
const maxHead = 2048

// proto is the conversation of one client up to its request. It has no socket and no clock: bytes
// come in through next, which says what they mean. The zero value is a new conversation.
type proto struct {
	step        step
	speech      speech
	credentials Credentials
}

type step uint8

const (
	stepGreeting step = iota
	stepCredentials
	stepRequest
	stepOver
)

// speech is what the client speaks: its answers must be in it.
type speech uint8

const (
	socks5 speech = iota
	socks4
	tunnel // HTTP CONNECT
)

// An event is what next found in the bytes.
type event struct {
	kind  kind
	reply []byte  // to be sent to the client; not to be changed
	req   Request // evRequest: all but what the listener adds to the isolation
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
	errProtocol  = errors.New("socks: neither SOCKS nor HTTP")
	errHTTP      = errors.New("socks: plain HTTP came in: set the application to a SOCKS 5 proxy (socks5h), or to an HTTP proxy that makes tunnels (CONNECT)")
	errWebPage   = errors.New("socks: a web page tried to use this port")
	errOptions   = errors.New("socks: asked what this port can do")
	errLogin     = errors.New("socks: Proxy-Authorization must be Basic: any user and password will do, they only isolate")
	errMethods   = errors.New("socks: the application offers no login method that is known here (none, or user and password)")
	errReserved  = errors.New(`socks: user names that begin with "<torS0X>" are reserved, and this form is not known`)
	errCommand   = errors.New("socks: only CONNECT, RESOLVE and RESOLVE_PTR are supported")
	errAddrType  = errors.New("socks: unknown kind of address")
	errMalformed = errors.New("socks: malformed request")
	errTooLong   = fmt.Errorf("socks: the request is longer than %d bytes", maxHead)
)

// next looks at b, the bytes that came and were not used yet, and returns how many of them it used.
// Its events do not depend on how the bytes were cut, and it decides as soon as the bytes allow.
// Given maxHead bytes it never asks for more. b is not kept.
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
			p.speech = socks4
			return p.request4(b)
		case 'A' <= b[0] && b[0] <= 'Z':
			p.speech = tunnel
			return p.http(b)
		}
		return p.refuse(fmt.Errorf("%w: its first byte is 0x%02x", errProtocol, b[0]))
	case stepCredentials:
		return p.login(b)
	case stepRequest:
		return p.request5(b)
	}
	return p.refuse(errProtocol)
}

func (p *proto) refuse(err error, reply ...byte) (int, event) {
	p.step = stepOver
	return 0, event{kind: evRefuse, reply: reply, err: err}
}

func (p *proto) fail(err error, code byte) (int, event) {
	return p.refuse(err, p.failed(code)...)
}

// asked ends the conversation with a request, of which n bytes are the last message.
func (p *proto) asked(n int, c Command, host string, port uint16, named bool) (int, event) {
	p.step = stepOver
	return n, event{kind: evRequest, named: named,
		req: Request{Command: c, Host: host, Port: port, Isolation: Isolation{Credentials: p.credentials}}}
}

// connected is the answer to a CONNECT that worked.
func (p *proto) connected() []byte {
	switch p.speech {
	case socks4:
		return reply4(granted4, netip.Addr{})
	case tunnel:
		return []byte("HTTP/1.1 200 Connection established\r\n\r\n")
	}
	return reply(Succeeded)
}

// failed is the answer to a request that did not work.
func (p *proto) failed(code byte) []byte {
	switch p.speech {
	case socks4:
		return reply4(rejected4, netip.Addr{})
	case tunnel:
		return problem(code)
	}
	return reply(code)
}

// resolved is the answer to a RESOLVE or RESOLVE_PTR that worked; an answer that cannot be put into words fails.
func (p *proto) resolved(a Answer) []byte {
	switch {
	case p.speech == socks4 && a.Addr.Is4():
		return reply4(granted4, a.Addr)
	case p.speech == socks4:
		return reply4(rejected4, netip.Addr{})
	case a.Addr.IsValid():
		kind := byte(1)
		if a.Addr.Is6() {
			kind = 4
		}
		return append(append([]byte{5, Succeeded, 0, kind}, a.Addr.AsSlice()...), 0, 0)
	case a.Name != "" && len(a.Name) <= 255:
		return append(append([]byte{5, Succeeded, 0, 3, byte(len(a.Name))}, a.Name...), 0, 0)
	}
	return reply(GeneralFailure)
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

// checkUser refuses user names that are reserved (Tor's proposal 351).
func checkUser(user string) error {
	if strings.HasPrefix(user, "<torS0X>") && user != "<torS0X>0" {
		return errReserved
	}
	return nil
}
