package socks

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// attackPage tries all that a page may try with a port of this machine, and reports what it could read of the answers.
const attackPage = `<!doctype html><meta charset=utf-8><body><script>
const door = "http://DOOR", host = door.slice(7), socks = "\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x00\x50";
const hidden = "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n";
const read = [], waiting = [];
let tries = 0;
const limit = (p) => Promise.race([p, new Promise(r => setTimeout(r, 3000))]);
const attempt = (what, f) => { tries++; try { waiting.push(limit(Promise.resolve(f()).then(t => { if (t) read.push(what + ": " + t) }, () => {}))) } catch (e) {} };
for (const method of ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
  for (const mode of ["cors", "no-cors", "same-origin"])
    for (const body of method == "GET" || method == "HEAD" ? [null] : [socks, hidden, new Blob([socks + hidden])])
      for (const path of ["/", "/http://example.com/"])
        attempt(method + " " + mode, () => fetch(door + path, {method, mode, body, cache: "no-store"}).then(r => r.type != "opaque" && r.text()));
for (const headers of [{"Proxy-Authorization": "Basic YTpi"}, {"X-A": "b"}, {"Host": "example.com"}, {"Origin": "null"}])
  attempt("headers", () => fetch(door, {headers}).then(r => r.text()));
for (let i = 0; i < 40; i++) {
  attempt("WebSocket", () => new Promise((ok, no) => { const w = new WebSocket("ws://" + host + "/" + i); w.onopen = () => { w.send(hidden); ok("open") }; w.onerror = w.onclose = no }));
  attempt("beacon", () => { navigator.sendBeacon(door + "/b" + i, socks + hidden) });
  attempt("image", () => new Promise((ok, no) => { const m = new Image(); m.onload = () => ok("loaded"); m.onerror = no; m.src = door + "/i" + i }));
  attempt("script", () => new Promise((ok, no) => { const s = document.createElement("script"); s.onload = () => ok("loaded"); s.onerror = no; s.src = door + "/s" + i; document.body.append(s) }));
  attempt("EventSource", () => new Promise((ok, no) => { const e = new EventSource(door + "/e" + i); e.onopen = () => ok("open"); e.onerror = () => { e.close(); no() } }));
}
for (const sandbox of ["allow-scripts allow-forms", "allow-forms allow-scripts allow-same-origin"])
  for (const enctype of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
    for (const method of ["post", "get"]) {
      tries++;
      const f = document.createElement("iframe");
      f.sandbox = sandbox;
      f.srcdoc = '<form method=' + method + ' enctype="' + enctype + '" action="' + door + '/form"><textarea name=a></textarea></form>' +
        '<script>document.forms[0].a.value = ' + JSON.stringify(hidden + socks) + '; fetch("' + door + '/null", {method: "POST", mode: "no-cors", body: "x"}).catch(() => {}); document.forms[0].submit()<' + '/script>';
      document.body.append(f);
    }
Promise.all(waiting).then(() => limit(new Promise(() => {}))).then(() => fetch("/report", {method: "POST", body: tries + "\n" + read.join("\n")}));
</script>`

// A browser that shows a hostile page connects nothing through the port, and the page can read nothing of what the port says.
func TestChromiumShowsAHostilePage(t *testing.T) {
	if os.Getenv("PEEL_SLOW") != "1" {
		t.Skip("slow: PEEL_SLOW=1 runs it")
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("notice: chromium is not installed: the port is not attacked by a real browser")
	}
	s := &Server{Dial: neverDial(t)}
	door := start(t, s)
	report := make(chan string, 1)
	var once sync.Once
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/report" {
			b, _ := io.ReadAll(r.Body)
			once.Do(func() { report <- string(b) })
			return
		}
		fmt.Fprint(w, strings.Replace(attackPage, "DOOR", door, 1))
	}))
	defer page.Close()
	_, port, _ := net.SplitHostPort(page.Listener.Addr().String())
	args := []string{"--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-dev-shm-usage", "--user-data-dir=" + t.TempDir(), "--no-proxy-server", "--remote-debugging-port=0"}
	if os.Getuid() == 0 {
		args = append(args, "--no-sandbox")
	}
	cmd := exec.CommandContext(t.Context(), chromium, append(args, "http://localhost:"+port+"/")...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	// A pipe to a writer of ours: all processes of the browser hold it, so that Wait returns when the last has ended and
	// nobody writes in its folders any more.
	cmd.Stderr, cmd.WaitDelay = io.Discard, time.Minute
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	var said string
	select {
	case said = <-report:
	case <-time.After(time.Minute):
		t.Fatal("the page reports nothing")
	}
	count, read, _ := strings.Cut(said, "\n")
	tries, err := strconv.Atoi(count)
	st := s.Stats()
	t.Logf("%d attempts, %d connections", tries, st.Accepted)
	if err != nil || tries < 200 || st.Accepted < 200 || st.Requests != 0 {
		t.Errorf("%d attempts: %+v", tries, st)
	}
	if read != "" {
		t.Errorf("the page could read:\n%s", read)
	}
}
