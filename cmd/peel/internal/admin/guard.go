package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"peel/directory/cache"
)

// guarded puts the checks in front of all handlers (spec/admin.md, section 2): the name by which we are called, so that a
// web page whose name was made to mean this machine gets nothing; the page a request comes from; the token.
func (s *Server) guarded(l *local) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		if !slices.Contains(l.hosts, r.Host) {
			fail(w, http.StatusMisdirectedRequest, "this server goes by "+strings.Join(l.hosts, ", ")+" only")
			return
		}
		if err := cross.Check(r); err != nil || foreign(r) {
			fail(w, http.StatusForbidden, "requests of other web pages are not answered")
			return
		}
		if !l.allows(r) {
			h.Set("WWW-Authenticate", "Bearer")
			fail(w, http.StatusUnauthorized, "bring the token of the file "+TokenFile+" in the state folder: Authorization: Bearer TOKEN")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, mostBody)
		s.mux.ServeHTTP(w, r)
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

// allows says whether a request brings the token. /healthz needs none: it says nothing.
func (l *local) allows(r *http.Request) bool {
	if l.token == "" || r.URL.Path == "/healthz" {
		return true
	}
	brought, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(brought)), sha256.Sum256([]byte(l.token))
	return ok && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// CheckListen says what is wrong with an address for Config.Listen: it must be one of loopback, in digits, with a port.
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

// listenLoopback listens on an address of this machine, behind the token of the folder.
func listenLoopback(addr, dir string) (*local, error) {
	if err := CheckListen(addr); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	token, err := takeToken(filepath.Join(dir, TokenFile))
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("admin: %w: end what listens there, or choose another port", err)
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	return &local{Listener: l, token: token, hosts: []string{at.String(), fmt.Sprintf("localhost:%d", at.Port())}}, nil
}

// tokenSize is in bytes, before they are written as base64.
const tokenSize = 32

// takeToken reads the token, or makes one. It refuses a file that others can read.
func takeToken(path string) (string, error) {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		var b [tokenSize]byte
		rand.Read(b[:])
		token := base64.RawURLEncoding.EncodeToString(b[:])
		if err := cache.WriteFile(path, []byte(token+"\n")); err != nil {
			return "", fmt.Errorf("admin: token: %w", err)
		}
		return token, nil
	}
	if err != nil {
		return "", fmt.Errorf("admin: token: %w", err)
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("admin: %s is not a file: remove it, and a new one is made", path)
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("admin: %s: others than its owner can read this token (mode %04o): remove the file, and a new one is made", path, st.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("admin: token: %w", err)
	}
	token := strings.TrimSuffix(string(text), "\n")
	if b, err := base64.RawURLEncoding.DecodeString(token); err != nil || len(b) != tokenSize || strings.ContainsAny(token, "\r\n") {
		return "", fmt.Errorf("admin: %s holds no token: remove it, and a new one is made", path)
	}
	return token, nil
}
