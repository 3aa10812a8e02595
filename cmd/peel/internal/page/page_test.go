package page

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// own are the files of a small page.
var own = fstest.MapFS{
	"index.html": {Data: []byte("<!doctype html><title>page</title>")},
	"page.js":    {Data: []byte("1")},
	"notes.md":   {Data: []byte("canary")},
}

func site(t *testing.T) *Site {
	t.Helper()
	s, err := NewSite(own)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// answers runs a guarded handler for the time of a test: a site, and /secret beside it.
func answers(t *testing.T) (at, token string) {
	t.Helper()
	s := site(t)
	l, hosts, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &Door{Hosts: hosts, Token: NewToken(), Open: s.Has}
	mux := http.NewServeMux()
	mux.Handle("/", s)
	mux.HandleFunc("/secret", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "canary") })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, d.Guard(mux), nil, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), d.Token
}

// ask is one request, on a connection of its own.
func ask(t *testing.T, method, url, host string, header map[string]string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host, r.Close = host, true
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w, string(body)
}

func TestWhoIsAnswered(t *testing.T) {
	at, token := answers(t)
	port := at[strings.LastIndex(at, ":"):]
	good := map[string]string{"Authorization": "Bearer " + token}
	with := func(name, value string) map[string]string {
		return map[string]string{"Authorization": "Bearer " + token, name: value}
	}
	for name, c := range map[string]struct {
		method, path, host string
		header             map[string]string
		want               int
	}{
		"the page":                         {"GET", "/", at, nil, 200},
		"its head":                         {"HEAD", "/", at, nil, 200},
		"a script":                         {"GET", "/page.js", at, nil, 200},
		"what pages share":                 {"GET", "/shared/peel.js", at, nil, 200},
		"plots":                            {"GET", "/shared/uplot/uPlot.iife.min.js", at, nil, 200},
		"as localhost":                     {"GET", "/", "localhost" + port, nil, 200},
		"typed into the browser":           {"GET", "/", at, map[string]string{"Sec-Fetch-Site": "none"}, 200},
		"by the page itself":               {"GET", "/secret", at, with("Sec-Fetch-Site", "same-origin"), 200},
		"with the token":                   {"GET", "/secret", at, good, 200},
		"without the token":                {"GET", "/secret", at, nil, 401},
		"with half of it":                  {"GET", "/secret", at, map[string]string{"Authorization": "Bearer " + token[:20]}, 401},
		"with an empty one":                {"GET", "/secret", at, map[string]string{"Authorization": "Bearer "}, 401},
		"as a password":                    {"GET", "/secret", at, map[string]string{"Authorization": "Basic " + token}, 401},
		"as a cookie":                      {"GET", "/secret", at, map[string]string{"Cookie": "token=" + token + "; peel-token=" + token}, 401},
		"in the address":                   {"GET", "/secret?token=" + token, at, nil, 401},
		"what is not there, for a guess":   {"GET", "/nothing", at, nil, 401},
		"what is not there":                {"GET", "/nothing", at, good, 404},
		"no part of the page":              {"GET", "/notes.md", at, good, 404},
		"the page by its file":             {"GET", "/index.html", at, good, 404},
		"a folder":                         {"GET", "/shared/", at, good, 404},
		"above":                            {"GET", "/shared/../../page.go", at, good, 307},
		"a post to a file, no token":       {"POST", "/", at, nil, 401},
		"a post to a file":                 {"POST", "/", at, good, 405},
		"a name that means us":             {"GET", "/", "evil.example" + port, nil, 421},
		"a name that means us, with all":   {"GET", "/secret", "evil.example" + port, good, 421},
		"localhost without its port":       {"GET", "/", "localhost", nil, 421},
		"another port":                     {"GET", "/", "127.0.0.1:1", nil, 421},
		"another address of loopback":      {"GET", "/", "127.0.0.2" + port, nil, 421},
		"a name that ends as ours":         {"GET", "/", "x.localhost" + port, nil, 421},
		"a link on another site":           {"GET", "/", at, map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"a page of another port":           {"GET", "/secret", at, with("Sec-Fetch-Site", "same-site"), 403},
		"a page of another origin":         {"GET", "/secret", at, with("Origin", "http://evil.example"), 403},
		"a page of another port, by name":  {"GET", "/secret", at, with("Origin", "http://127.0.0.1:1"), 403},
		"a page of no origin":              {"GET", "/secret", at, with("Origin", "null"), 403},
		"the page over TLS":                {"GET", "/secret", at, with("Origin", "https://"+at), 403},
		"a post of another origin":         {"POST", "/secret", at, with("Origin", "http://evil.example"), 403},
		"a post of the page":               {"POST", "/secret", at, with("Origin", "http://"+at), 200},
		"a question before a foreign post": {"OPTIONS", "/secret", at, map[string]string{"Origin": "http://evil.example"}, 403},
	} {
		w, body := ask(t, c.method, "http://"+at+c.path, c.host, c.header)
		if w.StatusCode != c.want || c.want != 200 && strings.Contains(body, "canary") {
			t.Errorf("%s: %s %.60q", name, w.Status, body)
		}
		for header, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Referrer-Policy": "no-referrer", "Content-Security-Policy": policy, "Access-Control-Allow-Origin": "", "Set-Cookie": ""} {
			if got := w.Header.Get(header); got != want {
				t.Errorf("%s: %s: %q", name, header, got)
			}
		}
	}
}

// Who brings the token may go on asking on a connection; others, who cost nothing until they ask, have one answer. What a browser has of other
// programs on this machine makes no difference.
func TestWhoMayAskAgainOnAConnection(t *testing.T) {
	at, token := answers(t)
	for name, c := range map[string]struct {
		fields      string
		code, times int
		asks        string // "": GET /
	}{
		"with the token":    {"Authorization: Bearer " + token + "\r\n", 200, 3, ""},
		"and with cookies":  {"Cookie: x=" + strings.Repeat("y", 20<<10) + "\r\nAuthorization: Bearer " + token + "\r\n", 200, 1, ""},
		"without":           {"", 200, 1, ""},
		"a large head":      {"X: " + strings.Repeat("x", MostHeader) + "\r\n", 431, 1, ""},
		"no name we go by":  {"Host: other\r\n", 400, 1, ""},
		"no field":          {"x\r\n", 400, 1, ""},
		"about no page":     {"", 401, 1, "OPTIONS *"},
		"the last, it says": {"Connection: close\r\nAuthorization: Bearer " + token + "\r\n", 200, 1, ""},
	} {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		for n := range c.times {
			io.WriteString(conn, cmp.Or(c.asks, "GET /")+" HTTP/1.1\r\nHost: "+at+"\r\n"+c.fields+"\r\n")
			w, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("%s, %d: %v", name, n, err)
			}
			if _, err := io.Copy(io.Discard, w.Body); err != nil || w.StatusCode != c.code || w.Close != (c.times == 1 && name != "and with cookies") {
				t.Errorf("%s, %d: %s, close %v, %v", name, n, w.Status, w.Close, err)
			}
		}
		conn.Close()
	}
}

func TestThePolicyLetsNothingInline(t *testing.T) {
	for _, bad := range []string{"unsafe", "*", "http", "data:", "blob:"} {
		if strings.Contains(policy, bad) {
			t.Errorf("the policy has %s", bad)
		}
	}
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "trusted-types 'none'"} {
		if !slices.Contains(strings.Split(policy, "; "), want) {
			t.Errorf("the policy has no %s", want)
		}
	}
}

func TestWhatPagesShare(t *testing.T) {
	s := site(t)
	want := []string{"/", "/page.js", "/shared/base.css", "/shared/peel.js", "/shared/uplot/uPlot.iife.min.js", "/shared/uplot/uPlot.min.css"}
	if got := s.Paths(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	for _, p := range s.Paths() {
		r := httptest.NewRecorder()
		s.ServeHTTP(r, httptest.NewRequest("GET", p, nil))
		if kind := r.Header().Get("Content-Type"); !strings.HasPrefix(kind, "text/") || r.Body.Len() == 0 {
			t.Errorf("%s: %q, %d bytes", p, kind, r.Body.Len())
		}
	}
	if _, err := NewSite(fstest.MapFS{}); err == nil {
		t.Error("a page without a page was taken")
	}
}

func TestAddressesOfThisMachineAlone(t *testing.T) {
	for _, bad := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:80", "localhost:80", ":80", "127.0.0.1", "[fe80::1%lo]:1", "x", ""} {
		if l, _, err := Listen(bad); err == nil {
			l.Close()
			t.Errorf("%s was taken", bad)
		}
	}
	l, _, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, _, err := Listen(l.Addr().String()); err == nil || !strings.Contains(err.Error(), "another port") {
		t.Errorf("%v", err)
	}
	if link := Link(l.Addr(), "x"); link != "http://"+l.Addr().String()+"/#token=x" {
		t.Error(link)
	}
}

func TestTokens(t *testing.T) {
	a, b := NewToken(), NewToken()
	if a == b || CheckToken(a) != nil {
		t.Errorf("%v", CheckToken(a))
	}
	for _, bad := range []string{"", "AAAA", a + "\n", a + "A", a[1:], strings.Repeat("!", len(a))} {
		if CheckToken(bad) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
