package socks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// attacks are what a web page can make a browser send to a port of this machine, and what a hostile program might send in
// its name: forms, fetches, preflights, WebSockets, DNS rebinding, and requests hidden in bodies.
func attacks() (all []string) {
	socks := "\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x00\x50"
	hidden := "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"
	sources := []string{
		"Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: empty\r\n",
		"Origin: null\r\n",
		"origin:null\r\n",
		"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n",
		"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\n",
		"Access-Control-Request-Method: CONNECT\r\nAccess-Control-Request-Headers: x\r\n",
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://127.0.0.1\r\n",
	}
	hosts := []string{"127.0.0.1:9250", "localhost:9250", "evil.example", "rebound.evil.example:9250", ""}
	for _, source := range sources {
		for _, host := range hosts {
			fields := "Host: " + host + "\r\n" + source
			for _, body := range []string{socks, hidden, "a=" + hidden} {
				length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
				all = append(all, "POST / HTTP/1.1\r\n"+fields+length+"Content-Type: text/plain\r\n\r\n"+body)
			}
			all = append(all,
				"GET /?"+host+" HTTP/1.1\r\n"+fields+"\r\n"+hidden,
				"PUT http://example.com/ HTTP/1.1\r\n"+fields+"Transfer-Encoding: chunked\r\n\r\n20\r\n"+socks+"\r\n0\r\n\r\n"+hidden,
				"OPTIONS / HTTP/1.1\r\n"+fields+"\r\n"+hidden,
				"CONNECT example.com:443 HTTP/1.1\r\n"+fields+"\r\n",
				"HEAD / HTTP/1.0\r\n"+fields+"\r\n"+socks,
			)
		}
	}
	for _, fields := range []string{"", "Host: a\r\n", "Host: a\r\nContent-Length: 10\r\n", "Host: a\r\nCookie: x\r\n"} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "QUERY"} {
			all = append(all, method+" http://example.com/ HTTP/1.1\r\n"+fields+"\r\n"+socks)
		}
	}
	return append(all,
		"GET / HTTP/1.1\r\nX: "+strings.Repeat("x", 2*maxHead)+"\r\n\r\n"+hidden,
		"get / HTTP/1.1\r\n\r\n"+hidden, // not what a browser sends
		"\r\n"+hidden,
		" CONNECT example.com:443 HTTP/1.1\r\n\r\n",
		"GET\tCONNECT example.com:443 HTTP/1.1\r\n\r\n",
		"CONNECT example.com:443\r\n\r\n",
		"CONNECT example.com:443 HTTP/1.1\r\nX\r\n\r\n",
		"CONNECT example.com:443 HTTP/1.1\r\nOrigin : null\r\n\r\n",
		"CONNECT example.com:443 HTTP/1.1\r\n Origin: null\r\n\r\n",
		"CONNECT example.com:443 HTTP/1.1\r\nX: \r\rOrigin: null\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // https://127.0.0.1:9250
		"USER anonymous\r\nPASS x\r\n"+hidden,          // ftp
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+hidden,
	)
}

// Nothing that a web page can send connects anything, and no answer may be read by the page.
func TestWebPagesConnectNothing(t *testing.T) {
	var dialled atomic.Int32
	var log bytes.Buffer
	s := &Server{Log: slog.New(slog.NewTextHandler(&log, nil)), Dial: neverDial(t), Resolve: func(context.Context, Request) (Answer, error) {
		dialled.Add(1)
		return Answer{}, nil
	}}
	addr, stop := startStop(t, s)
	all := attacks()
	if len(all) < 200 {
		t.Fatalf("%d attacks", len(all))
	}
	for _, in := range all {
		c := dialTCP(t, addr)
		io.WriteString(c, in)
		c.CloseWrite()
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		head, body, _ := strings.Cut(string(b), "\r\n\r\n")
		switch {
		case len(b) == 0: // neither SOCKS nor HTTP
		case !strings.HasPrefix(head, "HTTP/1.1 4"):
			t.Errorf("%q was answered %q", in, b)
		case strings.HasPrefix(in, "HEAD") != (body == ""):
			t.Errorf("%q was answered %q", in, b)
		case strings.Contains(head, "Access-Control") || !strings.Contains(head, "Cross-Origin-Resource-Policy: same-origin"):
			t.Errorf("%q: a web page may read the answer %q", in, b)
		case strings.Contains(body, "example"):
			t.Errorf("%q: the answer repeats what was asked: %q", in, b)
		}
		c.Close()
	}
	stop()
	t.Logf("%d requests", len(all))
	if st := s.Stats(); st.Requests != 0 || st.Refused != uint64(len(all)) || dialled.Load() != 0 {
		t.Errorf("%+v", st)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 2 || strings.Contains(log.String(), "example") {
		t.Errorf("%d hints instead of one for plain HTTP and one for web pages: %s", n, log.String())
	}
}

// A browser that is pointed at the port shows what it is.
func TestPeopleGetAPage(t *testing.T) {
	addr := start(t, &Server{Dial: neverDial(t)})
	res, err := http.Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 403 || int64(len(b)) != res.ContentLength || !strings.Contains(string(b), "belongs to Peel") {
		t.Errorf("%d %q %v", res.StatusCode, b, err)
	}
	req, _ := http.NewRequest("OPTIONS", "http://"+addr+"/", nil)
	res, err = http.DefaultTransport.RoundTrip(req)
	if err != nil || res.StatusCode != 200 || res.Header.Get("Allow") != "CONNECT, OPTIONS" {
		t.Errorf("OPTIONS: %v %v", res, err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}
