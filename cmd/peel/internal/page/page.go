// Package page serves web pages to one person on this machine, safely: behind checks against other pages, other users and names
// made to mean us, within bounds, from files in the program alone (spec/admin.md, sections 2, 3 and 5).
//
// A page's own files say nothing and are open to whoever asks by the right name; what they show is behind a token. The token comes
// in the fragment of the address, which browsers send to nobody, and is brought in a header: no cookie, which a browser would bring
// for any page and to any port, so no page can ask for its reader. A program Listens, makes a Door, and Serves door.Guard(handler);
// Files is the handler of a page's files, and Shared are those that all pages use.
package page

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strings"
	"syscall"
)

// mostBody is the most of a request's body.
const mostBody = 64 << 10

// A Door says who is answered.
type Door struct {
	Hosts []string // what a request may call us, with the port

	// Token is what a request must bring, as Authorization: Bearer TOKEN; "": nothing. Open says what is answered without: for
	// what says nothing, and only GET and HEAD. nil: nothing is.
	Token string
	Open  func(path string) bool

	Refused func(w http.ResponseWriter, code int, why string) // writes a refusal; nil: as text
}

// policy lets a page use what we serve and nothing else: no other machine, no script or style in the text, no frame, no form.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Guard puts the checks in front of a handler: the name by which we are called, so that a page whose name was made to mean this
// machine gets nothing; the page a request comes from, whatever the method; the token.
func (d *Door) Guard(h http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	refuse := d.Refused
	if refuse == nil {
		refuse = func(w http.ResponseWriter, code int, why string) { http.Error(w, why, code) }
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Content-Security-Policy": policy,
		} {
			w.Header().Set(name, value)
		}
		token := d.brings(r)
		if !token {
			w.Header().Set("Connection", "close") // it costs more than one that has not asked, until it is closed
		}
		if !slices.Contains(d.Hosts, r.Host) {
			refuse(w, http.StatusMisdirectedRequest, "this server goes by "+strings.Join(d.Hosts, ", ")+" only")
			return
		}
		if err := cross.Check(r); err != nil || foreign(r) {
			refuse(w, http.StatusForbidden, "requests of other web pages are not answered")
			return
		}
		if !token && !d.opens(r) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "bring the token: Authorization: Bearer TOKEN")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, mostBody)
		h.ServeHTTP(w, r)
	})
}

// foreign says of any method whether a page of another origin asks; CrossOriginProtection lets it read.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return true
	}
	o := r.Header.Get("Origin")
	return o != "" && o != "http://"+r.Host
}

// brings says whether a request brings the token, or there is none.
func (d *Door) brings(r *http.Request) bool {
	if d.Token == "" {
		return true
	}
	brought, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(brought)), sha256.Sum256([]byte(d.Token))
	return ok && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// opens says whether a request needs no token.
func (d *Door) opens(r *http.Request) bool {
	return d.Open != nil && (r.Method == http.MethodGet || r.Method == http.MethodHead) && d.Open(r.URL.Path)
}

// TokenSize is in bytes, before they are written as base64.
const TokenSize = 32

// NewToken makes a token.
func NewToken() string {
	var b [TokenSize]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// CheckToken says what is wrong with a token.
func CheckToken(token string) error {
	if b, err := base64.RawURLEncoding.DecodeString(token); err != nil || len(b) != TokenSize || strings.ContainsAny(token, "\r\n") {
		return fmt.Errorf("a token is %d bytes as base64", TokenSize)
	}
	return nil
}

// Link is the address that opens a page with its token. It is as secret as the token: for the terminal of the person, never a log.
func Link(at net.Addr, token string) string { return fmt.Sprintf("http://%v/#token=%s", at, token) }

// CheckListen says what is wrong with an address for Listen: it must be one of loopback, in digits, with a port.
func CheckListen(addr string) error {
	a, err := netip.ParseAddrPort(addr)
	if err != nil || a.Addr().Zone() != "" {
		return fmt.Errorf("%q is not an address and a port, such as 127.0.0.1:9270", addr)
	}
	if !a.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("%v is not an address of this machine alone: give one such as 127.0.0.1:9270, and reach it from elsewhere through ssh", a.Addr())
	}
	return nil
}

// Listen listens on an address of this machine, and says what requests may call it: Door.Hosts.
func Listen(addr string) (net.Listener, []string, error) {
	if err := CheckListen(addr); err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%s: another program listens there: end it, or choose another port", addr)
		}
		return nil, nil, err
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	return l, []string{at.String(), fmt.Sprintf("localhost:%d", at.Port())}, nil
}

//go:embed assets
var assets embed.FS

// Shared are the files that all pages use, at /shared/ of each: base.css, the looks; peel.js, how a page asks; uplot/, plots
// (MIT licence, beside it).
func Shared() fs.FS {
	sub, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // cannot be: it was embedded
	}
	return sub
}

// kinds are the files that a page may have, and what they are.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// Site is the files of a page: its own at /, with index.html as / itself, and the shared ones at /shared/.
type Site struct{ files map[string]file }

type file struct {
	kind string
	text []byte
}

// NewSite reads a page's files. What is no part of a page (kinds) is left out.
func NewSite(own fs.FS) (*Site, error) {
	s := &Site{make(map[string]file)}
	for at, from := range map[string]fs.FS{"/": own, "/shared/": Shared()} {
		err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
			kind := kinds[path.Ext(name)]
			if err != nil || d.IsDir() || kind == "" {
				return err
			}
			text, err := fs.ReadFile(from, name)
			s.files[at+name] = file{kind, text}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("page: %w", err)
		}
	}
	index, ok := s.files["/index.html"]
	if !ok {
		return nil, errors.New("page: there is no index.html")
	}
	delete(s.files, "/index.html")
	s.files["/"] = index
	return s, nil
}

// Has says whether a path is one of the site's files: for Door.Open.
func (s *Site) Has(path string) bool {
	_, ok := s.files[path]
	return ok
}

// Paths are those of the site's files, in order.
func (s *Site) Paths() []string {
	var all []string
	for p := range s.files {
		all = append(all, p)
	}
	slices.SortFunc(all, cmp.Compare[string])
	return all
}

// ServeHTTP answers GET and HEAD of the site's files.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := s.files[r.URL.Path]
	switch {
	case !ok:
		http.NotFound(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this can only be read", http.StatusMethodNotAllowed)
	default:
		w.Header().Set("Content-Type", f.kind)
		w.Write(f.text)
	}
}

// Answer writes JSON.
func Answer(w http.ResponseWriter, code int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"error": "a part of the answer cannot be written as JSON: please report this"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(b, '\n'))
}

// Fail says in JSON what is wrong.
func Fail(w http.ResponseWriter, code int, why string) { Answer(w, code, map[string]any{"error": why}) }
