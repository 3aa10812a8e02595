package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"peel/cmd/peel/internal/page"
	"peel/directory/cache"
)

// guarded puts the checks in front of all handlers (spec/admin.md, section 2).
func (s *Server) guarded(l *local) http.Handler {
	d := page.Door{Hosts: l.hosts, Token: l.token, Open: s.open, Refused: func(w http.ResponseWriter, code int, why string) {
		if code == http.StatusUnauthorized {
			why = "bring the token of the file " + TokenFile + " in the state folder: Authorization: Bearer TOKEN"
		}
		page.Fail(w, code, why)
	}}
	return d.Guard(s.mux)
}

// open is what is answered without the token, for it says nothing.
func (s *Server) open(path string) bool { return path == "/healthz" || s.site.Has(path) }

// CheckListen says what is wrong with an address for Config.Listen.
func CheckListen(addr string) error { return page.CheckListen(addr) }

// listenLoopback listens on an address of this machine, behind the token of the folder.
func listenLoopback(addr, dir string) (*local, error) {
	if err := CheckListen(addr); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	token, err := takeToken(filepath.Join(dir, TokenFile))
	if err != nil {
		return nil, err
	}
	l, hosts, err := page.Listen(addr)
	if err != nil {
		return nil, fmt.Errorf("admin %w", err) // the key, and the address
	}
	return &local{Listener: l, token: token, hosts: hosts}, nil
}

// takeToken reads the token, or makes one. It refuses a file that others can read.
func takeToken(path string) (string, error) {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		token := page.NewToken()
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
	if page.CheckToken(token) != nil {
		return "", fmt.Errorf("admin: %s holds no token: remove it, and a new one is made", path)
	}
	return token, nil
}
