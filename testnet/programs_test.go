package testnet

import (
	"bytes"
	"context"
	"fmt"
	"image/color"
	"image/png"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"peel/client/socks"
)

// Names that the exits of these tests know: here is this machine, far an address of the internet, to which nothing is
// really sent.
const (
	here = "here.peel-test.net"
	far  = "far.peel-test.net"
)

var farAddr = netip.MustParseAddr("93.184.215.14") // torsocks refuses an answer of 127.0.0.0/8

// names is what the exits' DNS knows.
type names struct{}

func (names) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	switch {
	case network == "ip6":
	case host == here+".":
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
	case host == far+".":
		return []netip.Addr{farAddr}, nil
	}
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func (names) LookupAddr(_ context.Context, addr string) ([]string, error) {
	if addr == farAddr.String() {
		return []string{far + "."}, nil
	}
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

// house is a network, the doors of its client, and servers of this machine.
type house struct {
	t        *testing.T
	within   []string // the command that runs others, if programs do not run where the test does
	door     string   // of SOCKS and HTTP
	dns      string   // port
	web, tls *httptest.Server

	mu         sync.Mutex
	seen       []socks.Request
	paths      map[string]int // that the servers were asked for
	gathered   chan struct{}  // has one when the page has looked for addresses
	repository string         // the folder of repo.git
}

// newHouse runs it all in a network until the test ends, its doors on the address given, DNS on the port.
func newHouse(t *testing.T, n *Net, addr, dnsPort string) *house {
	h := &house{t: t, paths: map[string]int{}, gathered: make(chan struct{}, 1)}

	handler := http.HandlerFunc(h.serve)
	h.web, h.tls = httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(h.web.Close)
	t.Cleanup(h.tls.Close)

	door, err := net.Listen("tcp", addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, udp := listenDNS(t, addr+":"+dnsPort)
	h.door = door.Addr().String()
	_, h.dns, _ = net.SplitHostPort(tcp.Addr().String())
	server, dns := n.Client().SOCKSServer(nil), n.Client().DNSServer(nil)
	dial := server.Dial
	server.Dial = func(ctx context.Context, r socks.Request) (net.Conn, error) {
		h.mu.Lock()
		h.seen = append(h.seen, r)
		h.mu.Unlock()
		if r.Host == farAddr.String() {
			r.Host = "127.0.0.1" // nothing leaves this machine
		}
		return dial(ctx, r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, f := range []func() error{
		func() error { return server.Serve(ctx, door) },
		func() error { return dns.ServePacket(ctx, udp) },
		func() error { return dns.ServeListener(ctx, tcp) },
	} {
		wg.Go(func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

// listenDNS listens on the same port for TCP and UDP. Of ports that are any, it takes one that is free for both.
func listenDNS(t *testing.T, addr string) (net.Listener, net.PacketConn) {
	for tries := 0; ; tries++ {
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp
		}
		tcp.Close()
		if tries == 20 {
			t.Fatal("the UDP port of the same number is taken: ", err)
		}
	}
}

const hello = "hello through the network\n"

// gathering is a part of a page that looks for addresses of its reader, by a packet to a server of its own, past every proxy that carries none.
// The page is there when that is over.
const gathering = `<img src="/hold" style="display:none"><script>
const p = new RTCPeerConnection({iceServers: [{urls: "stun:198.51.100.1:3478"}]})
p.onicegatheringstatechange = () => { if (p.iceGatheringState == "complete") fetch("/gathered") }
p.createDataChannel("x")
p.createOffer().then(o => p.setLocalDescription(o))
</script>`

// serve is a web server: a page with ten resources, a git repository, and a text for everything else.
func (h *house) serve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.paths[r.URL.Path]++
	h.mu.Unlock()
	switch {
	case r.URL.Path == "/page":
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, `<!doctype html><title>ten</title><style>body{margin:0}img{float:left;width:80px;height:60px}</style>`)
		for i := range 10 {
			fmt.Fprintf(w, `<img src="/tile/%d.svg">`, i)
		}
		io.WriteString(w, gathering)
	case r.URL.Path == "/gathered":
		select {
		case h.gathered <- struct{}{}:
		default:
		}
	case r.URL.Path == "/hold":
		select {
		case <-h.gathered:
		case <-r.Context().Done():
		case <-time.After(time.Minute):
		}
	case strings.HasPrefix(r.URL.Path, "/tile/"):
		w.Header().Set("Content-Type", "image/svg+xml")
		io.WriteString(w, `<svg xmlns="http://www.w3.org/2000/svg" width="80" height="60"><rect width="80" height="60" fill="#0a0"/></svg>`)
	case strings.HasPrefix(r.URL.Path, "/repo.git/"):
		h.mu.Lock()
		dir := h.repository
		h.mu.Unlock()
		http.FileServer(http.Dir(dir)).ServeHTTP(w, r)
	default:
		io.WriteString(w, hello)
	}
}

func (h *house) asked(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.paths[path]
}

// since are the requests of applications after the first n.
func (h *house) since(n int) []socks.Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]socks.Request(nil), h.seen[n:]...)
}

// url is that of a path on one of the servers, under a name.
func url(s *httptest.Server, name, path string) string {
	scheme, rest, _ := strings.Cut(s.URL, "://")
	_, port, _ := net.SplitHostPort(rest)
	return scheme + "://" + net.JoinHostPort(name, port) + path
}

// makeRepository makes a folder with repo.git, of one commit, which the web server hands out.
func (h *house) makeRepository(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", "work"},
		{"-C", "work", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "--allow-empty", "-m", "the one commit"},
		{"clone", "-q", "--bare", "work", "repo.git"},
		{"-C", "repo.git", "update-server-info"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HOME="+dir, "GIT_CONFIG_NOSYSTEM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	h.mu.Lock()
	h.repository = dir
	h.mu.Unlock()
}

// needs skips the test, with a notice, where a program is missing.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("notice: %s is not installed: it is not tried with this network", p)
		}
	}
}

// try runs a program with nothing in its environment that could lead it past the door, and returns what it printed.
func (h *house) try(t *testing.T, env []string, in, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	all := append(append(append([]string(nil), h.within...), name), args...)
	cmd := exec.CommandContext(ctx, all[0], all[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C"}, env...)
	cmd.Stdin = strings.NewReader(in)
	cmd.WaitDelay = time.Minute // until its last child has ended, which may write in folders of the test
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, out, errs.String())
	}
	return string(out), err
}

// must is try that must print want.
func (h *house) must(t *testing.T, want string, env []string, in, name string, args ...string) {
	t.Helper()
	out, err := h.try(t, env, in, name, args...)
	if err != nil {
		t.Error(err)
	} else if !strings.Contains(out, want) {
		t.Errorf("%s %s: %q, want %q in it", name, strings.Join(args, " "), out, want)
	}
}

// Programs as people use them, through one local network.
func TestPrograms(t *testing.T) {
	h := newHouse(t, share(t), "127.0.0.1", "0")
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) { p.try(t, h) })
	}
}

var programs = []struct {
	name string
	try  func(*testing.T, *house)
}{
	{"curl", tryCurl}, {"wget", tryWget}, {"openssl", tryOpenSSL}, {"git", tryGit}, {"ssh", trySSH}, {"torsocks", tryTorsocks},
	{"proxychains", tryProxychains}, {"dig", tryDig}, {"chromium", tryChromium},
}

func tryCurl(t *testing.T, h *house) {
	needs(t, "curl")
	page := url(h.web, here, "/")
	n := len(h.since(0))
	curl := func(args ...string) {
		h.must(t, hello, nil, "", "curl", append([]string{"-sS", "--max-time", "100"}, args...)...)
	}
	curl("--socks5-hostname", h.door, page)
	curl("--socks5-hostname", h.door, "--proxy-user", "alice:one", page)
	curl("--socks4a", h.door, page)
	curl("-x", "socks4a://alice@"+h.door, page)
	curl("-x", "http://"+h.door, "--proxytunnel", page)
	curl("-x", "http://alice:one@"+h.door, "--proxytunnel", page)
	curl("-x", "http://"+h.door, "-k", url(h.tls, here, "/"))
	curl("--socks5", h.door, h.web.URL) // an address
	seen := h.since(n)
	if len(seen) != 8 {
		t.Fatalf("%d requests", len(seen))
	}
	one, user := socks.NewCredentials("alice", "one"), socks.NewCredentials("alice", "")
	for i, want := range []socks.Credentials{{}, one, {}, user, {}, one, {}, {}} {
		if seen[i].Isolation.Credentials != want || i < 7 && seen[i].Host != here {
			t.Errorf("request %d: for %q", i, seen[i].Host)
		}
	}
	// What fails says why, and with a code that ends the matter.
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for target, want := range map[string]string{
		"http://" + closed.Addr().String() + "/": "(5)", "http://nowhere.peel-test.net/": "(4)", "http://x.onion/": "(4)", "http://10.0.0.1/": "(2)",
	} {
		if out, err := h.try(t, nil, "", "curl", "-sS", "--max-time", "100", "--socks5-hostname", h.door, target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v; want %s", target, out, err, want)
		}
	}
}

func tryWget(t *testing.T, h *house) {
	needs(t, "wget")
	env := []string{"https_proxy=http://bob:two@" + h.door}
	n := len(h.since(0))
	h.must(t, hello, env, "", "wget", "-qO-", "--no-check-certificate", "--tries=1", url(h.tls, here, "/"))
	if seen := h.since(n); len(seen) != 1 || seen[0].Host != here || seen[0].Isolation.Credentials != socks.NewCredentials("bob", "two") {
		t.Errorf("%d requests", len(seen))
	}
	if _, err := h.try(t, env, "", "wget", "-nv", "-O-", "--no-check-certificate", "https://nowhere.peel-test.net/"); err == nil || !strings.Contains(err.Error(), "Bad Gateway") {
		t.Errorf("a host that is not there: %v", err)
	}
	if tried := len(h.since(n)); tried != 2 {
		t.Errorf("it tried %d times", tried-1)
	}
}

func tryOpenSSL(t *testing.T, h *house) {
	needs(t, "openssl")
	_, target, _ := strings.Cut(url(h.tls, here, ""), "://")
	h.must(t, hello, nil, "GET / HTTP/1.0\r\n\r\n", "openssl", "s_client", "-proxy", h.door, "-connect", target, "-servername", here, "-quiet", "-ign_eof")
}

func tryGit(t *testing.T, h *house) {
	needs(t, "git")
	h.makeRepository(t)
	for _, proxy := range []string{"socks5h://", "socks5h://carol:three@"} {
		dir := filepath.Join(t.TempDir(), "clone")
		if _, err := h.try(t, []string{"GIT_CONFIG_NOSYSTEM=1"}, "", "git", "-c", "http.proxy="+proxy+h.door, "clone", "-q", url(h.web, here, "/repo.git"), dir); err != nil {
			t.Fatal(err)
		}
		h.must(t, "the one commit", nil, "", "git", "-C", dir, "log", "--format=%s")
	}
}

func trySSH(t *testing.T, h *house) {
	needs(t, "ssh", "sshd", "ssh-keygen", "nc")
	if os.Getuid() != 0 {
		t.Skip("notice: only root can start a throwaway sshd: ssh is not tried with this network")
	}
	dir := t.TempDir()
	for _, key := range []string{"host", "user"} {
		if _, err := h.try(t, nil, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)); err != nil {
			t.Fatal(err)
		}
	}
	os.MkdirAll("/run/sshd", 0o755) // where sshd keeps its part without rights
	conf := filepath.Join(dir, "sshd_config")
	text := fmt.Sprintf("HostKey %[1]s/host\nAuthorizedKeysFile %[1]s/user.pub\nStrictModes no\n"+
		"PermitRootLogin yes\nUsePAM no\nPasswordAuthentication no\nPidFile none\n", dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sshd, _ := exec.LookPath("sshd") // it wants its own path whole
	if out, err := exec.Command(sshd, "-t", "-f", conf).CombinedOutput(); err != nil {
		t.Skipf("notice: sshd does not start here: %v: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var servers sync.WaitGroup
	defer servers.Wait()
	defer l.Close()
	servers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			servers.Go(func() {
				defer c.Close()
				f, err := c.(*net.TCPConn).File()
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				server := exec.Command(sshd, "-i", "-e", "-f", conf)
				var log bytes.Buffer
				server.Stdin, server.Stdout, server.Stderr = f, f, &log
				if err := server.Run(); err != nil && t.Failed() {
					t.Logf("sshd: %v: %s", err, log.String())
				}
			})
		}
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, speak := range []string{"5", "connect"} {
		h.must(t, "it is me", nil, "", "ssh", "-F", "none", "-i", filepath.Join(dir, "user"), "-p", port, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile="+filepath.Join(dir, "known"), "-o", "ProxyCommand=nc -X "+speak+" -x "+h.door+" %h %p", "root@"+here, "echo it is me")
	}
}

// torsocks asks for the address first, and connects to it as text.
func tryTorsocks(t *testing.T, h *house) {
	needs(t, "torsocks", "wget")
	host, port, _ := net.SplitHostPort(h.door)
	n := len(h.since(0))
	for _, isolate := range []bool{false, true} {
		args := []string{"-a", host, "-P", port}
		if isolate {
			args = append(args, "-i")
		}
		h.must(t, hello, nil, "", "torsocks", append(args, "wget", "-qO-", "--tries=1", url(h.web, far, "/"))...)
	}
	seen := h.since(n)
	if len(seen) != 2 || seen[0].Host != farAddr.String() || seen[1].Isolation.Credentials == seen[0].Isolation.Credentials {
		t.Fatalf("%d connections", len(seen))
	}
	// Services are not there yet; their virtual address is, and comes back as the name.
	_, err := h.try(t, nil, "", "torsocks", "-a", host, "-P", port, "wget", "-nv", "-O-", "--tries=1", "http://"+strings.Repeat("a2", 28)+".peel.alt/")
	seen = h.since(n)
	if err == nil || len(seen) != 3 || !strings.HasPrefix(seen[2].Host, "198.1") {
		t.Errorf("a service: %d connections, %v", len(seen), err)
	}
}

func tryProxychains(t *testing.T, h *house) {
	needs(t, "proxychains4", "wget")
	host, port, _ := net.SplitHostPort(h.door)
	for _, kind := range []string{"socks5", "http"} {
		conf := filepath.Join(t.TempDir(), "proxychains.conf")
		text := fmt.Sprintf("strict_chain\nquiet_mode\nproxy_dns\ntcp_read_time_out 60000\ntcp_connect_time_out 60000\n[ProxyList]\n%s %s %s\n", kind, host, port)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h.must(t, hello, nil, "", "proxychains4", "-f", conf, "wget", "-qO-", "--tries=1", url(h.web, here, "/"))
	}
}

func tryDig(t *testing.T, h *house) {
	needs(t, "dig")
	host, _, _ := net.SplitHostPort(h.door)
	dig := func(args string) string {
		out, err := h.try(t, nil, "", "dig", append([]string{"@" + host, "-p", h.dns, "+tries=1", "+time=60"}, strings.Fields(args)...)...)
		if err != nil {
			t.Error(err)
		}
		return out
	}
	service := strings.Repeat("a2", 28) + ".peel.alt"
	for args, want := range map[string]string{
		far + " A":                farAddr.String(),
		far + " A +tcp":           farAddr.String(),
		far + " A +noedns":        farAddr.String(),
		"Far.Peel-Test.NET A":     "Far.Peel-Test.NET.",
		"-x " + farAddr.String():  far + ".",
		service + " A":            "198.1",
		service + " AAAA +tcp":    "fd",
		far + " AAAA":             "status: NOERROR",
		"nowhere.peel-test.net A": "status: NXDOMAIN",
		"x.onion A":               "status: NXDOMAIN",
		"printer.local A":         "status: NXDOMAIN",
		"-x 192.168.1.1":          "status: NXDOMAIN",
		far + " TXT":              "status: NOTIMP",
	} {
		if out := dig(args); !strings.Contains(out, want) {
			t.Errorf("dig %s: %q, want %q in it", args, out, want)
		}
	}
	if out := dig(far + " AXFR"); strings.Contains(out, farAddr.String()) {
		t.Errorf("AXFR: %q", out)
	}
}

// A page with ten pictures, drawn by Chromium with the network as its only way out. PEEL_SCREENSHOT names a file to keep what
// it drew.
func tryChromium(t *testing.T, h *house) {
	needs(t, "chromium")
	n := len(h.since(0))
	shot := os.Getenv("PEEL_SCREENSHOT")
	if shot == "" {
		shot = filepath.Join(t.TempDir(), "page.png")
	}
	if _, err := h.try(t, nil, "", "chromium", chromium(t, h, "--screenshot="+shot, "--window-size=800,600", url(h.web, here, "/page"))...); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if got := h.asked(fmt.Sprintf("/tile/%d.svg", i)); got != 1 {
			t.Errorf("resource %d was fetched %d times", i, got)
		}
	}
	if h.asked("/gathered") == 0 {
		t.Error("the page did not look for addresses of its reader")
	}
	found := false
	for _, r := range h.since(n) {
		found = found || r.Host == here
	}
	if !found {
		t.Error("the page did not come through the door")
	}
	f, err := os.Open(shot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if got := color.RGBAModel.Convert(img.At(80*i+40, 30)); got != (color.RGBA{0, 0xAA, 0, 0xFF}) {
			t.Errorf("picture %d is drawn in %v", i, got)
		}
	}
}

// chromium are the arguments with which it goes nowhere but through the door.
func chromium(t *testing.T, h *house, args ...string) []string {
	all := []string{"--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--disable-dev-shm-usage", "--user-data-dir=" + t.TempDir(), "--proxy-server=socks5://" + h.door,
		"--proxy-bypass-list=<-loopback>", "--webrtc-ip-handling-policy=disable_non_proxied_udp", "--timeout=60000"}
	if os.Getuid() == 0 {
		all = append(all, "--no-sandbox")
	}
	return append(all, args...)
}
