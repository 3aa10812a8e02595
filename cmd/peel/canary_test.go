package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"peel/client"
	"peel/cmd/peel/internal/admin"
	"peel/directory"
	"peel/directory/authority"
	"peel/relay"
	"peel/testnet"
)

// What must be in nothing that an operator may show to a stranger. The word in them is in no name of the code, which traces have.
const (
	canaryHost    = "quagga-destination.example"
	canaryMissing = "quagga-missing.example"
	canaryPanic   = "quagga-panic.example"
	canaryClient  = "127.93.7.41"
	canaryTarget  = "127.93.8.77"
	canaryUser    = "quagga-user"
	canaryBody    = "quagga-of-what-was-said"
)

// canaryPlaces are the files that the child leaves; the last is its error output, with the crash.
const (
	canarySecrets = "secrets.json"
	canaryLog     = "log"
	canaryShown   = "shown"
)

// canaryResolver knows one name.
type canaryResolver struct{}

func (canaryResolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	switch host {
	case canaryHost + ".":
		return []netip.Addr{netip.MustParseAddr(canaryTarget)}, nil
	case canaryPanic + ".":
		panic("a bug that the test made")
	}
	return nil, &net.DNSError{Err: "no " + host, Name: host, IsNotFound: true}
}

func (canaryResolver) LookupAddr(_ context.Context, addr string) ([]string, error) {
	return nil, &net.DNSError{Err: "no name for " + addr, Name: addr, IsNotFound: true}
}

// A network carries traffic and crashes; what its nodes logged and showed, and what the crash wrote, names nobody and holds no key.
func TestLogsMetricsAndACrashNameNobody(t *testing.T) {
	if os.Getenv("PEEL_SLOW") != "1" {
		t.Skip("slow: PEEL_SLOW=1 runs it")
	}
	if !testnet.HasLoopbackNet() {
		t.Skip("notice: this machine has no 127.0.0.0/8: nodes would share an address")
	}
	dir, err := os.MkdirTemp("", "peel") // short: the path of a socket has a bound
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestANetworkOfCanaries$", "-test.timeout=4m")
	cmd.Env = append(os.Environ(), "PEEL_CANARY="+dir)
	var crash bytes.Buffer
	cmd.Stdout, cmd.Stderr = &crash, &crash
	err = cmd.Run()
	var status *exec.ExitError
	if !errors.As(err, &status) || !strings.Contains(crash.String(), "the crash that the test made") {
		t.Fatalf("the network did not crash as it should: %v\n%s", err, crash.String())
	}
	var secrets map[string][]byte
	text, err := os.ReadFile(filepath.Join(dir, canarySecrets))
	if err == nil {
		err = json.Unmarshal(text, &secrets)
	}
	if err != nil || len(secrets) < 10 {
		t.Fatalf("%d secrets: %v", len(secrets), err)
	}
	texts := map[string]string{"crash": crash.String()}
	for _, name := range []string{canaryLog, canaryShown} {
		text := mustRead(t, filepath.Join(dir, name))
		texts[name] = string(text)
	}
	// What is looked through is what there is: each has something that it must have.
	for name, has := range map[string][]string{
		"crash": {"goroutine ", "relay.(*Relay)", "client.(*Client)"}, canaryLog: {"relay", "a bug: please report this", "level=INFO"},
		canaryShown: {"peel_relay_exits_total", "onion_key_made", "peel_client_open", "peel_authority_votes", `"values":`},
	} {
		for _, want := range has {
			if !strings.Contains(texts[name], want) {
				t.Errorf("%s has no %q: is it all there?\n%.2000s", name, want, texts[name])
			}
		}
	}
	for where, text := range texts {
		low := strings.ToLower(text)
		for _, canary := range []string{"quagga", canaryClient, canaryTarget, "7f5d0729", "7f5d084d", "29075d7f", "4d085d7f"} {
			if i := strings.Index(low, canary); i >= 0 {
				t.Errorf("%s has %q: …%s…", where, canary, text[max(0, i-200):min(len(text), i+200)])
			}
		}
		for what, secret := range secrets {
			for form, written := range writtenForms(secret) {
				if strings.Contains(text, written) {
					t.Errorf("%s has the %s, as %s", where, what, form)
				}
			}
		}
	}
}

// writtenForms are the ways in which the beginning of a secret could be written.
func writtenForms(secret []byte) map[string]string {
	var words []string
	for _, b := range secret[:6] {
		words = append(words, fmt.Sprintf("%#x", b))
	}
	return map[string]string{
		"hex": hex.EncodeToString(secret[:8]), "HEX": strings.ToUpper(hex.EncodeToString(secret[:8])),
		"base64": base64.StdEncoding.EncodeToString(secret[:9]), "base64 of URLs": base64.URLEncoding.EncodeToString(secret[:9]),
		"base32": strings.ToLower(base32.StdEncoding.EncodeToString(secret[:10])), "bytes of a trace": strings.Join(words, ", "),
		"numbers": strings.Trim(fmt.Sprint(secret[:6]), "[]"), "a quoted string": strings.Trim(fmt.Sprintf("%q", secret[:8]), `"`), "bytes": string(secret[:8]),
	}
}

// TestANetworkOfCanaries is the child of the test above.
func TestANetworkOfCanaries(t *testing.T) {
	dir := os.Getenv("PEEL_CANARY")
	if dir == "" {
		t.Skip("the child of another test")
	}
	c := newCanaryNet(t, dir)
	c.talk(t)
	c.show(t, dir)
	debug.SetTraceback("all")
	go func() { panic("the crash that the test made") }()
	select {}
}

// canaryNet is an authority, four relays of which one is an exit, and a client, each with its window.
type canaryNet struct {
	windows map[string]*admin.Server
	door    string
	target  net.Listener
}

func newCanaryNet(t *testing.T, dir string) *canaryNet {
	to, err := os.Create(filepath.Join(dir, canaryLog))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(to, nil)) // at Info
	size := testnet.Size{Authorities: 1, Relays: 4, Exits: 1}
	var ls []net.Listener
	l, err := testnet.Plan("local", size, func(i int) (netip.AddrPort, error) {
		a, err := testnet.Loopback(0)(i)
		if err != nil {
			return a, err
		}
		l, err := net.Listen("tcp", netip.AddrPortFrom(a.Addr(), 0).String())
		if err != nil {
			return a, err
		}
		ls = append(ls, l)
		return l.Addr().(*net.TCPAddr).AddrPort(), nil
	}, time.Now().Add(3*time.Second).Truncate(time.Second), 5*time.Second, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := &canaryNet{windows: make(map[string]*admin.Server)}
	if c.target, err = net.Listen("tcp", canaryTarget+":0"); err != nil {
		t.Fatal(err)
	}
	secrets := make(map[string][]byte)
	open := func(kind, name string) *admin.Server {
		s, err := admin.Open(admin.Config{Kind: kind, Dir: filepath.Join(dir, name), Log: log})
		if err != nil {
			t.Fatal(err)
		}
		c.windows[name] = s
		return s
	}
	run := func(run func(context.Context) error) { // until the process crashes
		go func() {
			if err := run(context.Background()); err != nil {
				fmt.Println("a part of the network ended:", err)
			}
		}()
	}
	from := func(a string) func(context.Context, string, string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(a)}}).DialContext
	}
	a := &l.Authorities[0]
	secrets["authority's signing key"], secrets["authority's link key"] = a.Signing.Seed(), a.Link.Bytes()
	na, err := relay.NewAuthority(relay.Config{Network: l.Network, Keys: relay.Keys{Link: a.Link}, Listeners: ls[:1], Log: log, Dial: from(a.Addr.Addr().String())},
		authority.Config{Certificate: a.Certificate, SigningKey: a.Signing, PrivateAddrs: true, Params: l.Params(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	authorityView(open("authority", "a"), na)
	run(na.Run)
	for i := range l.Relays {
		r := &l.Relays[i]
		for what, key := range map[string]*ecdh.PrivateKey{"link": r.Keys.Link, "onion": r.Keys.Onion} {
			secrets[fmt.Sprintf("%s key of %s", what, r.Nickname)] = key.Bytes()
		}
		secrets["identity of "+r.Nickname] = r.Keys.Identity.Seed()
		cfg := relay.Config{Network: l.Network, Keys: r.Keys, Nickname: r.Nickname, Listeners: ls[1+i : 2+i], Log: log, Resolver: canaryResolver{}, Dial: from(r.Addr.Addr().String())}
		if r.Exit {
			if cfg.Exit, err = directory.ParsePolicy(testnet.ExitPolicy); err != nil {
				t.Fatal(err)
			}
		}
		nr, err := relay.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		relayView(open("relay", r.Nickname), nr)
		run(nr.Run)
	}
	cl, err := client.New(client.Config{Network: l.Network, Log: log, Dial: from(canaryClient)})
	if err != nil {
		t.Fatal(err)
	}
	clientWindow(open("client", "c"), cl)
	run(cl.Run)
	for _, s := range c.windows {
		run(s.Run)
	}
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.door = door.Addr().String()
	socks := cl.SOCKSServer(log)
	run(func(ctx context.Context) error { return socks.Serve(ctx, door) })
	text, err := json.Marshal(secrets)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, canarySecrets), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	if err := cl.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

// talk has a program reach the target, a name that is not there, a port where nobody listens, and a name that makes the exit panic;
// one connection stays.
func (c *canaryNet) talk(t *testing.T) {
	var once sync.Once
	held := make(chan bool)
	go http.Serve(c.target, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, canaryBody)
		if r.URL.Path == "/stay" {
			w.(http.Flusher).Flush()
			once.Do(func() { close(held) })
			select {}
		}
	}))
	d, err := proxy.SOCKS5("tcp", c.door, &proxy.Auth{User: canaryUser, Password: canaryBody}, proxy.Direct)
	if err != nil {
		t.Fatal(err)
	}
	h := http.Client{Transport: &http.Transport{DialContext: d.(proxy.ContextDialer).DialContext}, Timeout: time.Minute}
	_, port, _ := net.SplitHostPort(c.target.Addr().String())
	get := func(host, path string) error {
		w, err := h.Get("http://" + host + path)
		if err != nil {
			return err
		}
		defer w.Body.Close()
		text, err := io.ReadAll(w.Body)
		if err == nil && string(text) != canaryBody {
			err = fmt.Errorf("%q came", text)
		}
		return err
	}
	for _, host := range []string{canaryHost, canaryTarget} {
		if err := get(host+":"+port, "/"); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range []string{canaryMissing + ":" + port, canaryPanic + ":" + port, canaryTarget + ":1"} {
		if get(host, "/") == nil {
			t.Fatalf("%s answers", host)
		}
	}
	go get(canaryHost+":"+port, "/stay")
	<-held
}

// show writes down all that the windows of all nodes say.
func (c *canaryNet) show(t *testing.T, dir string) {
	var all bytes.Buffer
	for name := range c.windows {
		a, err := admin.NewAsker(admin.Find(filepath.Join(dir, name)))
		if err != nil {
			t.Fatal(err)
		}
		for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) { // a relay loads the directory in its own time
			if _, err = a.Get(t.Context(), "/readyz"); err == nil || time.Since(begun) > time.Minute {
				break
			}
		}
		for _, page := range []string{"/status", "/metrics", "/history", "/history?span=days", "/healthz", "/readyz", "/"} {
			text, err := a.Get(t.Context(), page)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, page, err)
			}
			all.Write(text)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, canaryShown), all.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
