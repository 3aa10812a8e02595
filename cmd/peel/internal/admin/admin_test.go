package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// folder is a short one: the path of a socket has a bound.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "peel")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// running is a server of a folder that serves until the test ends.
func running(t *testing.T, cfg Config, set func(*Server)) *Server {
	t.Helper()
	cfg.Kind, cfg.Version = "relay", "peel-test"
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if set != nil {
		set(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func asker(t *testing.T, dir string) *Asker {
	t.Helper()
	a, err := NewAsker(Find(dir))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func get(t *testing.T, a *Asker, page string) string {
	t.Helper()
	b, err := a.Get(t.Context(), page)
	if err != nil {
		t.Fatalf("%s: %v", page, err)
	}
	return string(b)
}

func TestANodeTellsItsOwnerWhatItDoes(t *testing.T) {
	dir := folder(t)
	waiting := errors.New("the first directory has not come")
	running(t, Config{Dir: dir}, func(s *Server) {
		s.Section("zebra", func() any { return map[string]int{"stripes": 7} })
		s.Section("ant", func() any { return []string{"a"} })
		s.Ready(func() error { return waiting })
		s.Action("reload", func(context.Context) (string, error) { return "all of it", nil })
		s.Action("newnym", func(context.Context) (string, error) {
			return "", errors.New("line 3 of the file is wrong\nand line 5")
		})
	})
	a := asker(t, dir)
	text := get(t, a, "/status")
	var got struct {
		Node  Node           `json:"node"`
		Zebra map[string]int `json:"zebra"`
		Ant   []string       `json:"ant"`
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got.Node.Kind != "relay" || got.Node.Version != "peel-test" || got.Node.Ready || got.Node.Waiting != waiting.Error() || got.Zebra["stripes"] != 7 || len(got.Ant) != 1 {
		t.Errorf("%s", text)
	}
	if strings.Index(text, "zebra") > strings.Index(text, "ant\"") {
		t.Error("parts are not in the order they were added in")
	}
	if !strings.Contains(get(t, a, "/healthz"), "true") {
		t.Error("not healthy")
	}
	if _, err := a.Get(t.Context(), "/readyz"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("ready: %v", err)
	}
	if said, err := a.Post(t.Context(), "reload"); err != nil || said != "all of it" {
		t.Errorf("%q, %v", said, err)
	}
	if _, err := a.Post(t.Context(), "newnym"); err == nil || err.Error() != "line 3 of the file is wrong\nand line 5" {
		t.Errorf("the reasons of a failed action: %v", err)
	}
	if _, err := a.Post(t.Context(), "explode"); err == nil || !strings.Contains(err.Error(), "of another kind: it has no explode") {
		t.Errorf("an unknown action: %v", err)
	}
	if _, err := a.Get(t.Context(), "/reload"); err == nil {
		t.Error("an action was done by GET")
	}
}

func TestTheSocketIsItsOwnersAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes here")
	}
	dir := filepath.Join(folder(t), "made")
	s := running(t, Config{Dir: dir, Listen: "127.0.0.1:0"}, nil)
	for name, want := range map[string]os.FileMode{"": 0o700, SocketFile: 0o600, TokenFile: 0o600, lockFile: 0o600} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%q: %v, %v; want %v", name, st.Mode(), err, want)
		}
	}
	if s.Addr() == nil {
		t.Error("no address")
	}
	if files, _ := os.ReadDir(dir); len(files) != 3 {
		t.Errorf("left in the folder: %v", files)
	}
}

func TestFoldersThatAreNotSafe(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes here")
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string) string
		says  string
	}{
		"the group can write":    {func(t *testing.T, dir string) string { chmod(t, dir, 0o770); return dir }, "chmod 700"},
		"everybody can write":    {func(t *testing.T, dir string) string { chmod(t, dir, 0o777); return dir }, "chmod 700"},
		"sticky is not enough":   {func(t *testing.T, dir string) string { chmod(t, dir, 0o777|os.ModeSticky); return dir }, "chmod 700"},
		"everybody writes above": {func(t *testing.T, dir string) string { chmod(t, dir, 0o777); return filepath.Join(dir, "state") }, "chmod o-w"},
		"a link to a folder": {func(t *testing.T, dir string) string {
			to := filepath.Join(dir, "to")
			os.Mkdir(to, 0o700)
			os.Symlink(to, filepath.Join(dir, "link"))
			return filepath.Join(dir, "link")
		}, "a link"},
		"a file": {func(t *testing.T, dir string) string {
			os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
			return filepath.Join(dir, "file")
		}, "is not a folder"},
		"a file above": {func(t *testing.T, dir string) string {
			os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
			return filepath.Join(dir, "file", "state")
		}, "choose another"},
		"a file in the socket's place": {func(t *testing.T, dir string) string {
			os.WriteFile(filepath.Join(dir, SocketFile), nil, 0o600)
			return dir
		}, "move it away"},
		"a link in the socket's place": {func(t *testing.T, dir string) string {
			os.Symlink("/elsewhere", filepath.Join(dir, SocketFile))
			return dir
		}, "move it away"},
		"a link in the lock's place": {func(t *testing.T, dir string) string {
			os.Symlink(filepath.Join(dir, "x"), filepath.Join(dir, lockFile))
			return dir
		}, "admin:"},
		"a path too long": {func(t *testing.T, dir string) string { return filepath.Join(dir, strings.Repeat("long", 25)) }, "shorter"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := c.spoil(t, folder(t))
			s, err := Open(Config{Dir: dir})
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func chmod(t *testing.T, dir string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
}

func TestAFolderOfAnotherUserIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" || os.Geteuid() != 0 {
		t.Skip("needs root, to give a folder away")
	}
	dir := folder(t)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Skip(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("%v", err)
	}
}

func TestTwoNodesDoNotShareAFolder(t *testing.T) {
	dir := folder(t)
	running(t, Config{Dir: dir}, nil)
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
	get(t, asker(t, dir), "/healthz") // the first is unharmed
}

// A node of an earlier version, or another program, may hold no lock.
func TestASocketThatSomebodyAnswersOnIsLeftAlone(t *testing.T) {
	dir := folder(t)
	l, err := net.Listen("unix", filepath.Join(dir, SocketFile))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, SocketFile)); err != nil {
		t.Error("the socket of another is gone")
	}
}

func TestTheSocketOfADeadNodeIsReplaced(t *testing.T) {
	dir := folder(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, SocketFile), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	running(t, Config{Dir: dir}, nil)
	get(t, asker(t, dir), "/healthz")
}

func TestNothingIsLeftOfANodeThatEnded(t *testing.T) {
	dir := folder(t)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, SocketFile)); err == nil {
		t.Error("the socket is still there")
	}
	_, err = NewAsker(Find(dir))
	var no *NotRunning
	if !errors.As(err, &no) || !strings.Contains(err.Error(), "is the node running?") {
		t.Errorf("%v", err)
	}
}

func TestAnAddressThatOthersReachIsRefused(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:80", "localhost:80", ":80", "127.0.0.1", "[fe80::1%lo]:1", "x"} {
		if s, err := Open(Config{Dir: folder(t), Listen: addr}); err == nil {
			s.Close()
			t.Errorf("%s was taken", addr)
		}
	}
	if _, err := Open(Config{Listen: "127.0.0.1:0"}); err == nil || !strings.Contains(err.Error(), "state") {
		t.Errorf("without a folder for the token: %v", err)
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	good := strings.Repeat("A", 43)
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		says string
	}{
		"readable by the group": {good, 0o640, "others than its owner"},
		"empty":                 {"", 0o600, "holds no token"},
		"short":                 {"AAAA", 0o600, "holds no token"},
		"two lines":             {good + "\n\n", 0o600, "holds no token"},
	} {
		if runtime.GOOS == "windows" && c.mode != 0o600 {
			continue
		}
		path := filepath.Join(folder(t), TokenFile)
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := takeToken(path); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	path := filepath.Join(folder(t), TokenFile)
	made, err := takeToken(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := takeToken(path); err != nil || again != made {
		t.Errorf("another token the second time: %v", err)
	}
}

func TestWebPagesAndStrangersGetNothing(t *testing.T) {
	dir := folder(t)
	done := false
	s := running(t, Config{Dir: dir, Listen: "127.0.0.1:0"}, func(s *Server) {
		s.Section("secret", func() any { return "canary" })
		s.Action("reload", func(context.Context) (string, error) { done = true; return "", nil })
	})
	token, err := takeToken(filepath.Join(dir, TokenFile))
	if err != nil {
		t.Fatal(err)
	}
	at := s.Addr().String()
	port := at[strings.LastIndex(at, ":"):]
	for name, c := range map[string]struct {
		method, page, host string
		header             map[string]string
		want               int
	}{
		"the owner":                  {"GET", "/status", at, nil, 200},
		"by the name localhost":      {"GET", "/status", "localhost" + port, nil, 200},
		"health, without a token":    {"GET", "/healthz", at, map[string]string{"Authorization": ""}, 200},
		"no token":                   {"GET", "/status", at, map[string]string{"Authorization": ""}, 401},
		"metrics without a token":    {"GET", "/metrics", at, map[string]string{"Authorization": ""}, 401},
		"a wrong token":              {"GET", "/status", at, map[string]string{"Authorization": "Bearer " + strings.Repeat("A", 43)}, 401},
		"an empty token":             {"GET", "/status", at, map[string]string{"Authorization": "Bearer "}, 401},
		"another scheme":             {"GET", "/status", at, map[string]string{"Authorization": "Basic " + token}, 401},
		"a name that means us":       {"GET", "/status", "evil.example" + port, nil, 421},
		"localhost, another port":    {"GET", "/status", "localhost:1", nil, 421},
		"health by a name":           {"GET", "/healthz", "evil.example" + port, map[string]string{"Authorization": ""}, 421},
		"a page of another site":     {"GET", "/status", at, map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"a page of the same machine": {"GET", "/status", at, map[string]string{"Origin": "http://127.0.0.1:1"}, 403},
		"an action from a page":      {"POST", "/reload", at, map[string]string{"Origin": "https://evil.example"}, 403},
		"an action without a token":  {"POST", "/reload", at, map[string]string{"Authorization": ""}, 401},
	} {
		r, err := http.NewRequest(c.method, "http://"+at+c.page, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = c.host
		r.Header.Set("Authorization", "Bearer "+token)
		for k, v := range c.header {
			r.Header.Set(k, v)
		}
		w, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, _ := io.ReadAll(w.Body)
		w.Body.Close()
		if w.StatusCode != c.want || (c.want != 200 && strings.Contains(string(body), "canary")) {
			t.Errorf("%s: %s %s", name, w.Status, body)
		}
		if w.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: may be kept", name)
		}
	}
	if done {
		t.Error("an action was done for a stranger")
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestTheSocketHasNoOtherName(t *testing.T) {
	dir := folder(t)
	running(t, Config{Dir: dir}, nil)
	a := asker(t, dir)
	r, _ := http.NewRequest("GET", "http://evil.example/status", nil)
	w, err := a.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	w.Body.Close()
	if w.StatusCode != http.StatusMisdirectedRequest {
		t.Error(w.Status)
	}
}

// Who asks can say how much of an answer is read.
func TestAnAnswerIsReadToItsBound(t *testing.T) {
	dir := folder(t)
	running(t, Config{Dir: dir}, func(s *Server) {
		s.Section("ant", func() any { return strings.Repeat("a", 5000) })
	})
	a := asker(t, dir)
	size := int64(len(get(t, a, "/status")))
	a.Most = 5000
	if _, err := a.Get(t.Context(), "/status"); err == nil || !strings.Contains(err.Error(), "more than 5000 bytes") {
		t.Errorf("of %d bytes 5000 may be read: %v", size, err)
	}
	a.Most = size + 100
	get(t, a, "/status")
}

// Of a node that is stopped, and of a question that its asker ends, is told what happened, and not the request by which it was asked.
func TestANodeThatDoesNotAnswerIsToldAsThat(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, SocketFile)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := NewAsker(Find(dir))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Get(ctx, "/status"); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "http://") {
		t.Error(err)
	}
	a.http.Timeout = time.Millisecond
	var no *NotRunning
	if _, err := a.Get(t.Context(), "/status"); !errors.As(err, &no) || !strings.HasPrefix(err.Error(), path+": the node has not answered") {
		t.Error(err)
	}
}
