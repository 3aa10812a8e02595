package socks

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxMethod is the longest method of an HTTP request, in letters.
const maxMethod = 16

// http reads a request for a tunnel: CONNECT host:port. Whatever else comes is answered as soon as its method is known, and
// nothing of it is acted upon: it may come from a web page (spec/socks.md, section 5).
func (p *proto) http(b []byte) (int, event) {
	var h head
	n, err := h.read(b)
	if err == nil && n > 0 {
		err = h.logIn()
	}
	switch {
	case err != nil:
		return p.bad(&h, err)
	case n == 0:
		return 0, event{kind: evMore}
	}
	return p.tunnel(n, &h)
}

// unsaid says that b is the beginning of a request of HTTP, of which next would want more. To ask that first takes less than half of the stack
// that next does, and so a connection of which nothing more comes keeps less (spec/socks.md, section 9).
func (p *proto) unsaid(b []byte) bool {
	if p.step != stepGreeting || len(b) == 0 || b[0] < 'A' || b[0] > 'Z' {
		return false
	}
	var h head
	n, err := h.read(b)
	return n == 0 && err == nil
}

// read reads a head up to its empty line, and says how long it is; 0: what there is of it is as it should be, and more is to come. Whoever waits
// for more has gone through here, so neither it nor what it calls for a line that is well formed takes much of the stack.
func (h *head) read(b []byte) (n int, err error) {
	b = b[:min(len(b), maxHead)]
	if err := h.begin(b); err != nil || h.method == "" {
		return 0, err
	}
	for {
		i := bytes.IndexByte(b[n:], '\n')
		switch {
		case i < 0 && len(b) == maxHead:
			return 0, errTooLong
		case i < 0:
			return 0, nil
		}
		line, ok := bytes.CutSuffix(b[n:n+i], []byte("\r"))
		if !ok || bytes.ContainsFunc(line, control) {
			return 0, errLines
		}
		first := n == 0
		n += i + 1
		switch {
		case first:
			err = h.request(string(line))
		case len(line) == 0:
			return n, nil
		default:
			err = h.field(string(line))
		}
		if err != nil {
			return 0, err
		}
	}
}

// begin reads the method; it stays empty until a space has come.
func (h *head) begin(b []byte) error {
	for i, c := range b {
		switch {
		case i > 0 && c == ' ':
			if h.method = string(b[:i]); h.method != "CONNECT" && h.method != "OPTIONS" {
				return errHTTP
			}
			return nil
		case c < 'A' || c > 'Z' || i == maxMethod:
			return errProtocol
		}
	}
	return nil
}

// control tells the bytes that a line cannot have.
func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7F }

// bad refuses what must not become a tunnel.
func (p *proto) bad(h *head, err error) (int, event) {
	switch err {
	case errProtocol:
		return p.refuse(err)
	case errHTTP:
		return p.refuse(err, page(h.method)...)
	case errTooLong:
		return p.refuse(err, answer("431 Request Header Fields Too Large", "", "The request is too long.\n")...)
	case errWebPage:
		return p.refuse(err, page("CONNECT")...)
	case errLogin:
		return p.refuse(err, answer("407 Proxy Authentication Required", "Proxy-Authenticate: Basic realm=\"any user and password: they isolate\"\r\n", err.Error()+"\n")...)
	}
	return p.refuse(err, answer("400 Bad Request", "Proxy-Status: peel; error=http_request_error\r\n", "This request is not well formed.\n")...)
}

// tunnel ends the conversation with what the head, of n bytes, asks for.
func (p *proto) tunnel(n int, h *head) (int, event) {
	if h.method == "OPTIONS" {
		return p.refuse(errOptions, answer("200 OK", "Allow: CONNECT, OPTIONS\r\n", about)...)
	}
	host, port, err := parseAuthority(h.target)
	if err != nil {
		return p.bad(h, err)
	}
	p.credentials = h.credentials
	return p.asked(n, Connect, host, port, true)
}

// What may be wrong with a head. They are made once: to make them takes more of the stack than to read it.
var (
	errLines   = fmt.Errorf("%w: a line of HTTP that is none", errMalformed)
	errRequest = fmt.Errorf("%w: not a request of HTTP/1", errMalformed)
	errField   = fmt.Errorf("%w: a header field that is none", errMalformed)
	errBody    = fmt.Errorf("%w: a tunnel has no body", errMalformed)
	errLogins  = fmt.Errorf("%w: two logins", errMalformed)
)

// head is what matters of a head of HTTP.
type head struct {
	method, target string
	login          string // Proxy-Authorization
	loggedIn       bool   // there is one
	credentials    Credentials
}

func (h *head) request(line string) error {
	_, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	if target == "" || version != "HTTP/1.1" && version != "HTTP/1.0" {
		return errRequest
	}
	h.target = target
	return nil
}

// field reads one header field. Those which only browsers send, and send for web pages, end it all.
func (h *head) field(line string) error {
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" || strings.ContainsAny(name, " \t") {
		return errField
	}
	name, value = strings.ToLower(name), strings.Trim(value, " \t")
	switch {
	case name == "origin", strings.HasPrefix(name, "sec-"), strings.HasPrefix(name, "access-control-"):
		return errWebPage
	case name == "transfer-encoding", name == "content-length" && value != "0":
		return errBody
	case name == "proxy-authorization":
		if h.loggedIn {
			return errLogins
		}
		h.loggedIn, h.login = true, value
	}
	return nil
}

// logIn reads what Proxy-Authorization says, if it is there: user and password, of which any will do. They isolate.
func (h *head) logIn() error {
	if !h.loggedIn {
		return nil
	}
	kind, code, _ := strings.Cut(h.login, " ")
	text, err := base64.StdEncoding.Strict().DecodeString(strings.TrimLeft(code, " "))
	user, password, ok := strings.Cut(string(text), ":")
	if !strings.EqualFold(kind, "basic") || err != nil || !ok {
		return errLogin
	}
	h.credentials = NewCredentials(user, password)
	return checkUser(user)
}

// parseAuthority reads host:port, an IPv6 address in brackets.
func parseAuthority(s string) (host string, port uint16, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 1 {
		return "", 0, fmt.Errorf("%w: CONNECT without host:port", errMalformed)
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || n == 0 || s[i+1] == '0' {
		return "", 0, fmt.Errorf("%w: CONNECT without a port", errMalformed)
	}
	name := s[:i]
	if in, ok := strings.CutPrefix(name, "["); ok {
		in, ok = strings.CutSuffix(in, "]")
		if a, err := netip.ParseAddr(in); !ok || err != nil || !a.Is6() {
			return "", 0, fmt.Errorf("%w: brackets without an IPv6 address", errMalformed)
		}
		name = in
	} else if strings.ContainsAny(name, ":/@[]") {
		return "", 0, fmt.Errorf("%w: CONNECT to what is no host", errMalformed)
	}
	if len(name) > 255 {
		return "", 0, fmt.Errorf("%w: a name of more than 255 bytes", errMalformed)
	}
	host, err = parseName([]byte(name))
	return host, uint16(n), err
}

// about is what this port says of itself to people.
const about = "This port belongs to Peel, an anonymity network. It is not a web server, and hands no web pages on.\n" +
	"Set your application to use it as a SOCKS 5 proxy that resolves names (socks5h://), as a SOCKS 4a proxy,\n" +
	"or as an HTTP proxy for https (CONNECT).\n"

// page is the whole answer to an HTTP request that asks for no tunnel, or must not have one.
func page(method string) []byte {
	if method == "HEAD" {
		b := answer("403 Forbidden", "Allow: CONNECT, OPTIONS\r\n", about)
		return b[:len(b)-len(about)]
	}
	return answer("403 Forbidden", "Allow: CONNECT, OPTIONS\r\n", about)
}

// answer is an HTTP response. It gives no other origin leave to read, show or keep it.
func answer(status, fields, text string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"+
		"X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"+
		"Cache-Control: no-store\r\nConnection: close\r\n\r\n%s", status, fields, len(text), text)
}

// problems are the statuses of HTTP for the codes of SOCKS, and what Proxy-Status (RFC 9209) calls them.
var problems = map[byte]struct{ status, name, text string }{
	NotAllowed:             {"403 Forbidden", "destination_ip_prohibited", "No exit connects there."},
	NetworkUnreachable:     {"502 Bad Gateway", "destination_ip_unroutable", "There is no way to the host."},
	HostUnreachable:        {"502 Bad Gateway", "dns_error", "There is no such host."},
	ConnectionRefused:      {"502 Bad Gateway", "connection_refused", "The host refused the connection."},
	TTLExpired:             {"504 Gateway Timeout", "connection_timeout", "The host did not answer in time."},
	CommandNotSupported:    {"501 Not Implemented", "http_request_error", "This port does not do that."},
	AddressTypeUnsupported: {"400 Bad Request", "http_request_error", "This kind of address is not known."},
}

// problemOf is that of a code, or what stands for all that have none.
func problemOf(code byte) (p struct{ status, name, text string }) {
	p, ok := problems[standard(code)]
	if !ok {
		p.status, p.name, p.text = "503 Service Unavailable", "proxy_internal_error", "Peel could not connect."
	}
	return p
}

// problem is the answer to a CONNECT that came to nothing.
func problem(code byte) []byte {
	p := problemOf(code)
	return answer(p.status, "Proxy-Status: peel; error="+p.name+"\r\n", p.text+"\n")
}
