package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// mostAnswer bounds what a verb reads of a node.
const mostAnswer = 16 << 20

// askWithin is how long a verb waits for a node.
const askWithin = 30 * time.Second

// Asker asks a running node through its socket.
type Asker struct {
	Most int64 // bytes of an answer: a longer one is an error, and no more is read of it; 0: 16 MiB

	path string
	http http.Client
}

// Find is the socket of a folder: that of a node (DIR/state/admin.sock) or of its state (DIR/admin.sock).
func Find(dir string) string {
	for _, below := range []string{"", "state"} {
		path := filepath.Join(dir, below, SocketFile)
		if _, err := os.Lstat(path); err == nil || errors.Is(err, fs.ErrPermission) { // which is to be told of it
			return path
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "state")); err == nil && st.IsDir() {
		dir = filepath.Join(dir, "state")
	}
	return filepath.Join(dir, SocketFile)
}

// NotRunning is the error of a socket where no node answers.
type NotRunning struct {
	Path string
	Err  error
}

func (e *NotRunning) Error() string {
	why := "nobody answers there"
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		why = "there is no such socket"
	case errors.Is(e.Err, fs.ErrPermission):
		return fmt.Sprintf("%s: permission denied, for it is another user's: ask as the user that the node runs as, or as root", e.Path)
	}
	if os.IsTimeout(e.Err) {
		return fmt.Sprintf("%s: the node has not answered for %v: it is stopped, or has too much to do", e.Path, askWithin)
	}
	return fmt.Sprintf("%s: %s: is the node running?", e.Path, why)
}

func (e *NotRunning) Unwrap() error { return e.Err }

// NewAsker asks at a socket. It refuses one that belongs to another user than us or root, who could make us believe anything.
func NewAsker(path string) (*Asker, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, &NotRunning{path, err}
	}
	if st.Mode()&fs.ModeSocket == 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s is not a socket", path)
	}
	if os.Geteuid() != 0 && !OwnedByUs(st) {
		return nil, &NotRunning{path, fs.ErrPermission}
	}
	a := &Asker{path: path}
	a.http.Timeout = askWithin
	a.http.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}
	return a, nil
}

// Get reads a page.
func (a *Asker) Get(ctx context.Context, page string) ([]byte, error) {
	return a.ask(ctx, http.MethodGet, page)
}

// Post asks for an action, and returns what the node says of it. Its error is several where the node says several lines.
func (a *Asker) Post(ctx context.Context, action string) (said string, err error) {
	text, err := a.ask(ctx, http.MethodPost, "/"+action)
	if err != nil {
		return "", err
	}
	var told struct {
		Said string `json:"said"`
	}
	err = json.Unmarshal(text, &told)
	return Printable(told.Said), err
}

func (a *Asker) ask(ctx context.Context, method, page string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+socketHost+page, nil)
	if err != nil {
		return nil, err
	}
	w, err := a.http.Do(r)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil, &NotRunning{a.path, err}
		}
		var asked *url.Error // which begins with an address that nobody typed
		if errors.As(err, &asked) {
			err = asked.Err
		}
		if os.IsTimeout(err) && ctx.Err() == nil {
			return nil, &NotRunning{a.path, err}
		}
		return nil, err
	}
	defer w.Body.Close()
	b, err := readAll(w.Body, cmp.Or(a.Most, mostAnswer))
	if err != nil {
		return nil, err
	}
	if w.StatusCode/100 == 2 {
		return b, nil
	}
	var told struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(b, &told) == nil && told.Error != "" {
		return nil, lines(told.Error)
	}
	if w.StatusCode == http.StatusNotFound {
		return nil, notOfThisKind(strings.TrimPrefix(page, "/"))
	}
	return nil, fmt.Errorf("%s: %s", page, w.Status)
}

// lines are an error a line.
func lines(text string) error {
	var all []error
	for line := range strings.SplitSeq(text, "\n") {
		all = append(all, errors.New(Printable(line)))
	}
	return errors.Join(all...)
}

// notOfThisKind says that a node cannot be asked for something, and which can.
func notOfThisKind(what string) error {
	kind := map[string]string{"circuits": "a client", "doors": "a client", "newnym": "a client", "authority": "an authority"}[what]
	if kind == "" {
		return fmt.Errorf("this node is of another kind: it has no %s", what)
	}
	return fmt.Errorf("this node is of another kind: ask %s (peel status says what a node is)", kind)
}
