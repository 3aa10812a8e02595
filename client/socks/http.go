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
	b = b[:min(len(b), maxHead)]
	for i, c := range b {
		switch {
		case i > 0 && c == ' ':
			if m := string(b[:i]); m != "CONNECT" && m != "OPTIONS" {
				return p.refuse(errHTTP, page(m)...)
			}
			return p.head(b)
		case c < 'A' || c > 'Z' || i == maxMethod:
			return p.refuse(errProtocol)
		}
	}
	return 0, event{kind: evMore}
}

// head reads a CONNECT or OPTIONS line by line up to the empty one.
func (p *proto) head(b []byte) (int, event) {
	var h head
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		switch {
		case i < 0 && len(b) == maxHead:
			return p.refuse(errTooLong, answer("431 Request Header Fields Too Large", "", "The request is too long.\n")...)
		case i < 0:
			return 0, event{kind: evMore}
		}
		line, ok := bytes.CutSuffix(b[at:at+i], []byte("\r"))
		if !ok || bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7F }) {
			return p.bad(fmt.Errorf("%w: a line of HTTP that is none", errMalformed))
		}
		at += i + 1
		var err error
		switch {
		case h.method == "":
			err = h.request(string(line))
		case len(line) == 0:
			return p.tunnel(at, h)
		default:
			err = h.field(string(line))
		}
		if err != nil {
			return p.bad(err)
		}
	}
}

// bad refuses what must not become a tunnel.
func (p *proto) bad(err error) (int, event) {
	switch err {
	case errWebPage:
		return p.refuse(err, page("CONNECT")...)
	case errLogin:
		return p.refuse(err, answer("407 Proxy Authentication Required", "Proxy-Authenticate: Basic realm=\"any user and password: they isolate\"\r\n", err.Error()+"\n")...)
	}
	return p.refuse(err, answer("400 Bad Request", "Proxy-Status: peel; error=http_request_error\r\n", "This request is not well formed.\n")...)
}

// tunnel ends the conversation with what the head, of n bytes, asks for.
func (p *proto) tunnel(n int, h head) (int, event) {
	if h.method == "OPTIONS" {
		return p.refuse(errOptions, answer("200 OK", "Allow: CONNECT, OPTIONS\r\n", about)...)
	}
	host, port, err := parseAuthority(h.target)
	if err != nil {
		return p.bad(err)
	}
	p.credentials = h.credentials
	return p.asked(n, Connect, host, port, true)
}

// head is what matters of a head of HTTP.
type head struct {
	method, target string
	credentials    Credentials
}

func (h *head) request(line string) error {
	f := strings.Split(line, " ")
	if len(f) != 3 || f[1] == "" || f[2] != "HTTP/1.1" && f[2] != "HTTP/1.0" {
		return fmt.Errorf("%w: not a request of HTTP/1", errMalformed)
	}
	h.method, h.target = f[0], f[1]
	return nil
}

// field reads one header field. Those which only browsers send, and send for web pages, end it all.
func (h *head) field(line string) error {
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" || strings.ContainsAny(name, " \t") {
		return fmt.Errorf("%w: a header field that is none", errMalformed)
	}
	name, value = strings.ToLower(name), strings.Trim(value, " \t")
	switch {
	case name == "origin", strings.HasPrefix(name, "sec-"), strings.HasPrefix(name, "access-control-"):
		return errWebPage
	case name == "transfer-encoding", name == "content-length" && value != "0":
		return fmt.Errorf("%w: a tunnel has no body", errMalformed)
	case name == "proxy-authorization":
		if h.credentials.given {
			return fmt.Errorf("%w: two logins", errMalformed)
		}
		return h.login(value)
	}
	return nil
}

// login reads a Proxy-Authorization: user and password, of which any will do. They isolate.
func (h *head) login(value string) error {
	kind, code, _ := strings.Cut(value, " ")
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

// problem is the answer to a CONNECT that came to nothing.
func problem(code byte) []byte {
	p, ok := problems[standard(code)]
	if !ok {
		p.status, p.name, p.text = "503 Service Unavailable", "proxy_internal_error", "Peel could not connect."
	}
	return answer(p.status, "Proxy-Status: peel; error="+p.name+"\r\n", p.text+"\n")
}
