package admin

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"peel/cmd/peel/internal/page"
	"peel/testnet/browser"
)

// gotten is what GET of an address, with these headers, answers.
func gotten(t *testing.T, url string, header map[string]string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	for k, v := range header {
		r.Header.Set(k, v)
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	w, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.StatusCode, w.Header, string(text)
}

// served is how a page can be shown: by the node on an address of its own, or from its socket by the verb.
func served(t *testing.T, do func(t *testing.T, link string, stop func())) {
	t.Helper()
	fill := func(s *Server) {
		s.Section("relay", func() any { return map[string]any{"canary": "shown"} })
		s.Action("reload", func(context.Context) (string, error) { t.Error("a page did something"); return "", nil })
	}
	t.Run("by the node", func(t *testing.T) {
		dir := folder(t)
		running(t, Config{Dir: dir, Listen: "127.0.0.1:0"}, fill)
		link, err := asker(t, dir).PageLink(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		do(t, link, func() {})
	})
	t.Run("from the socket", func(t *testing.T) {
		dir := folder(t)
		running(t, Config{Dir: dir}, fill)
		a := asker(t, dir)
		if link, err := a.PageLink(t.Context()); link != "" || err != nil {
			t.Errorf("a node without an address shows its page at %q: %v", link, err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		links, ended := make(chan string, 1), make(chan error, 1)
		go func() { ended <- a.ServePage(ctx, "127.0.0.1:0", func(link string) { links <- link }) }()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		do(t, <-links, func() {})
	})
}

func TestThePageIsForWhoHasItsToken(t *testing.T) {
	served(t, func(t *testing.T, link string, _ func()) {
		at, token, ok := strings.Cut(link, "#token=")
		if !ok || len(token) != 43 {
			t.Fatal("the address has no token in its fragment")
		}
		with := map[string]string{"Authorization": "Bearer " + token}
		for name, c := range map[string]struct {
			path   string
			header map[string]string
			want   int
			has    string
		}{
			"the page":                    {"", nil, 200, "<!doctype html>"},
			"its script":                  {"page.js", nil, 200, "watch("},
			"its looks":                   {"shared/base.css", nil, 200, "--paper"},
			"plots":                       {"shared/uplot/uPlot.iife.min.js", nil, 200, "uPlot"},
			"the status":                  {"status", with, 200, "canary"},
			"the history":                 {"history?span=days", with, 200, `"every":300`},
			"a span there is not":         {"history?span=x", with, 400, "hour or days"},
			"the status without a token":  {"status", nil, 401, "token"},
			"the history without a token": {"history", nil, 401, "token"},
			"the status of a name":        {"status", map[string]string{"Host": "evil.example", "Authorization": "Bearer " + token}, 421, ""},
			"the page by a name":          {"", map[string]string{"Host": "evil.example"}, 421, ""},
			"the page in another's frame": {"", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}, 403, ""},
			"a script for another page":   {"page.js", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403, ""},
			"what is not there":           {"nothing", with, 404, ""},
			"an action":                   {"reload", with, 0, ""},
		} {
			code, header, text := gotten(t, at+c.path, c.header)
			if c.want == 0 && code == 200 || c.want != 0 && code != c.want || !strings.Contains(text, c.has) || code != 200 && strings.Contains(text, "canary") {
				t.Errorf("%s: %d %.200q", name, code, text)
			}
			if policy := header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'; script-src 'self'") || strings.Contains(policy, "unsafe") {
				t.Errorf("%s: %q", name, policy)
			}
			if strings.Contains(text, token) {
				t.Errorf("%s: the answer has the token", name)
			}
		}
	})
}

var inlined = regexp.MustCompile(`(?i)<script(?:[^>]*)>[^<]|<style|\sstyle=|\son[a-z]+=|javascript:|https?://`)

// The policy would keep what is inline from working; what would come from elsewhere would tell somebody who looks at which page.
func TestThePageHasNothingInlineAndNothingOfOthers(t *testing.T) {
	s := newSite()
	n := 0
	for _, p := range s.Paths() {
		if !strings.HasSuffix(p, ".html") && p != "/" && !strings.HasSuffix(p, ".js") && !strings.HasSuffix(p, ".css") || strings.HasPrefix(p, "/shared/uplot/") {
			continue
		}
		n++
		name := "page" + p
		if p == "/" {
			name = "page/index.html"
		}
		if strings.HasPrefix(p, "/shared/") {
			name = filepath.Join("../page/assets", strings.TrimPrefix(p, "/shared/"))
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bad := inlined.FindString(string(text)); bad != "" {
			t.Errorf("%s has %q", p, bad)
		}
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%s uses %s", p, bad)
			}
		}
	}
	if n < 6 {
		t.Errorf("only %d files were read", n)
	}
}

func TestWhatIsWrongStandsAtTheHead(t *testing.T) {
	dir := folder(t)
	running(t, Config{Dir: dir}, func(s *Server) {
		s.Warning(func() string { return "" })
		s.Warning(func() string { return "the key is old" })
	})
	if text := get(t, asker(t, dir), "/status"); !strings.Contains(text, `"warnings": [`) || !strings.Contains(text, "the key is old") {
		t.Error(text)
	}
}

// busy is a relay that has been at work for an hour, as far as can be seen.
func busy(s *Server) {
	now := time.Now()
	at := func(n float64) float64 { return n }
	turn := 0.0
	two := func(a, b string, n, m float64) func() map[string]float64 {
		return func() map[string]float64 {
			return map[string]float64{a: at(turn * n), b: at(turn * m)}
		}
	}
	wave := func(n float64) float64 { return n * (1.2 + math.Sin(turn/17)) }
	s.Metric(
		Metric{Name: "peel_link_bytes_total", Help: "B.", Rise: true, Keep: true, Label: "direction", Values: func() map[string]float64 {
			return map[string]float64{"in": 2e8*turn + 3e8*math.Sin(turn/20), "out": 2.1e8*turn + 2.6e8*math.Sin(turn/20)}
		}},
		Metric{Name: "peel_relay_cells_total", Help: "C.", Rise: true, Keep: true, Value: func() float64 { return 1.5e5*turn + 2e5*math.Sin(turn/20) }},
		Metric{Name: "peel_relay_open", Help: "O.", Keep: true, Label: "kind", Values: func() map[string]float64 {
			return map[string]float64{"circuits": wave(900), "streams": wave(300), "extensions": 16, "dials": 16, "handshakes": max(0, wave(16)-16)}
		}},
		Metric{Name: "peel_relay_handshakes_total", Help: "H.", Rise: true, Keep: true, Label: "result", Values: func() map[string]float64 {
			return map[string]float64{"answered": 120 * turn, "failed": 2 * turn, "busy": max(0, 10*(turn-200))}
		}},
		Metric{Name: "peel_relay_queue_bytes", Help: "Q.", Keep: true, Label: "queue", Values: func() map[string]float64 {
			return map[string]float64{"cells": wave(4 << 20), "hosts": wave(1 << 20)}
		}},
		Metric{Name: "peel_relay_links", Help: "L.", Keep: true, Label: "kind", Values: func() map[string]float64 {
			return map[string]float64{"dialled": 40, "nodes": 64, "clients": wave(200)}
		}},
		Metric{Name: "peel_relay_exits_total", Help: "E.", Rise: true, Keep: true, Label: "result", Values: two("connected", "failed", 60, 3)},
		Metric{Name: "peel_relay_drops_total", Help: "D.", Rise: true, Keep: true, Label: "reason", Values: two("breach", "rate", 0, 8)},
	)
	for ; turn < fineSlots; turn++ {
		if turn > 100 && turn < 120 {
			continue // it was not running
		}
		s.see(now.Add(time.Duration(turn-fineSlots) * lookEvery))
	}
	soon := now.UTC().Truncate(time.Second)
	s.Section("relay", func() any {
		return map[string]any{"identity": "27ltz7pdoytuj3kbevaiuthkershqen6dxn4sjpfktlreacrmkpa", "circuits_made": 43200, "handshakes_failed": 712, "panics": 0}
	})
	s.Section("links", func() any { return map[string]int{"dialled": 40, "from_nodes": 64, "from_clients": 216, "most": 3185} })
	s.Section("limits", func() any {
		return []map[string]any{{"what": "circuits", "now": 1088, "most": 32768}, {"what": "streams", "now": 320, "most": 8192},
			{"unit": "bytes", "what": "cells that wait for links", "now": 4 << 20, "most": 512 << 20}, {"unit": "bytes", "what": "data that hosts do not take", "now": 350 << 20, "most": 384 << 20}}
	})
	s.Section("directory", func() any {
		return map[string]any{"nested": map[string]any{"signatures": 3, "of": soon}, "relay_is_listed": true, "consensus_of": soon.Add(-40 * time.Minute), "consensus_holds_until": soon.Add(140 * time.Minute), "relays": 214}
	})
	s.Section("keys", func() any {
		return map[string]any{"onion_key_made": soon.Add(-30 * time.Hour), "onion_key_next": soon.Add(138 * time.Hour), "previous_honoured": true}
	})
	s.Section("offer", func() any {
		return map[string]any{"bandwidth_bytes_a_second": 20_000_000, "most_of_the_day_bytes_a_second": 31_400_000, "ends_soon": false, "exit_policy": []string{"reject 192.0.2.0/24:*", "accept *:80", "accept *:443"}}
	})
	s.Section("guards", func() any {
		return []map[string]any{{"nickname": "<b>Fennel</b>", "state": "up", "primary": true, "used": true, "retry": soon}, {"nickname": "Dill", "state": "down", "primary": true, "used": false}}
	})
	s.Warning(func() string { return "the signing key ends in 3 days: peel keys rotate makes another <script>" })
}

// What people see: plots, on wide and narrow screens, light and dark, without a complaint of the browser's. PEEL_SCREENSHOT names a
// folder to keep what was drawn.
func TestInABrowserTheStatusPageShowsANode(t *testing.T) {
	if os.Getenv("PEEL_SLOW") != "1" {
		t.Skip("slow: PEEL_SLOW=1 runs it")
	}
	dir := folder(t)
	running(t, Config{Dir: dir, Listen: "127.0.0.1:0"}, busy)
	link, err := asker(t, dir).PageLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := browser.Start(t)
	p := b.Open(t, link, browser.View{Width: 1280, Height: 900})
	p.Until(t.Context(), `document.querySelectorAll(".plot canvas").length >= 9 && document.querySelectorAll(".part").length >= 7`)
	var where string
	if err := p.Eval("location.href", &where); err != nil || strings.Contains(where, "token") {
		t.Errorf("the token stays in the address: %v", err)
	}
	for _, v := range []browser.View{{Width: 1280, Height: 900}, {Width: 1280, Height: 900, Dark: true}, {Width: 390, Height: 844}, {Width: 390, Height: 844, Dark: true}} {
		name := fmt.Sprintf("%d-%v", v.Width, v.Dark)
		p.Look(v)
		p.Until(t.Context(), fmt.Sprintf(`innerWidth === %d && matchMedia("(prefers-color-scheme: dark)").matches === %v && [...document.querySelectorAll(".draw")].every((d) => Math.abs(d.clientWidth - d.querySelector(".uplot").clientWidth) <= 2)`, v.Width, v.Dark))
		p.Until(t.Context(), browser.Inked(".plot canvas")+".every((n) => n > 500)")
		p.Until(t.Context(), browser.Whole(".plot canvas"))
		var over int
		if err := p.Eval("document.documentElement.scrollWidth - innerWidth", &over); err != nil || over > 0 {
			t.Errorf("%s: %d pixels wider than the screen: %v", name, over, err)
		}
		text, img := p.Draw()
		dark := func(x, y int) bool { return color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y < 100 }
		if dark(2, 2) != v.Dark || img.Bounds() == (image.Rectangle{}) {
			t.Errorf("%s: drawn on %v", name, img.At(2, 2))
		}
		if to := os.Getenv("PEEL_SCREENSHOT"); to != "" {
			if err := os.WriteFile(filepath.Join(to, "status-"+name+".png"), text, 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	var seen string
	if err := p.Eval("document.body.innerText", &seen); err != nil || !strings.Contains(seen, "<b>Fennel</b>") || !strings.Contains(seen, "another <script>") {
		t.Errorf("words of a node became markup: %v\n%s", err, seen)
	}
	// The other span, and the plots by keyboard.
	p.Eval(`document.querySelector("[data-span=days]").focus()`, nil)
	p.Press("Enter")
	p.Until(t.Context(), `document.querySelector("[data-span=days]").getAttribute("aria-pressed") === "true"`)
	p.Until(t.Context(), browser.Inked(".plot canvas")+".every((n) => n > 500)")
	p.Until(t.Context(), browser.Whole(".plot canvas"))
	if to := os.Getenv("PEEL_SCREENSHOT"); to != "" {
		text, _ := p.Draw()
		if err := os.WriteFile(filepath.Join(to, "status-days.png"), text, 0o600); err != nil {
			t.Error(err)
		}
	}
	p.Eval(`document.querySelector("[data-span=hour]").click()`, nil)
	p.Until(t.Context(), browser.Inked(".plot canvas")+".every((n) => n > 500)")
	p.Eval(`document.querySelector(".draw").focus()`, nil)
	p.Press("ArrowLeft")
	p.Press("ArrowLeft")
	p.Until(t.Context(), `!document.querySelector(".draw").getAttribute("aria-label").includes(", now.")`)
	p.Eval(`document.querySelector(".plot details").open = true`, nil)
	p.Until(t.Context(), `document.querySelectorAll(".plot tbody tr").length > 5`)
	var unnamed int
	if err := p.Eval(`[...document.querySelectorAll("button, [tabindex='0'], section, table")].filter((e) => !(e.textContent.trim() || e.getAttribute("aria-label"))).length`, &unnamed); err != nil || unnamed > 0 {
		t.Errorf("%d parts have no name for who cannot see: %v", unnamed, err)
	}
	if c := p.Complaints(); len(c) > 0 {
		t.Errorf("the browser complains:\n%s", strings.Join(c, "\n"))
	}
}

// hostile is what a page of another origin does to get at a node's: %s is the address of that, with a slash at its end.
const hostile = `<!doctype html><title>hostile</title><script>
const at = "%s", read = [];
let tries = 0;
const note = (what) => (x) => read.push(what + ": " + x);
const all = [];
for (const path of ["", "page.js", "status", "history", "metrics", "page", "healthz", "readyz", "reload", "circuits"])
  for (const method of ["GET", "POST", "PUT", "DELETE"])
    for (const mode of ["cors", "no-cors"]) {
      if (mode === "no-cors" && method !== "GET" && method !== "POST") continue;
      for (const headers of [{}, { Authorization: "Bearer guess" }, { "Content-Type": "text/plain" }]) {
        tries++;
        all.push(fetch(at + path, { method, mode, headers, credentials: "include" }).then((r) => r.text()).then((t) => t && note(method + " " + mode + " /" + path)(t.slice(0, 60))).catch(() => {}));
      }
    }
const loads = (tag, attribute, path) => all.push(new Promise((done) => {
  tries++;
  const e = document.createElement(tag);
  e.onload = () => { if (tag !== "iframe") note(tag)(path); else try { if (e.contentDocument.body.innerText) note(tag)(path); } catch {} done(); };
  e.onerror = done;
  if (tag === "link") e.rel = "stylesheet";
  e[attribute] = at + path;
  document.head.append(e);
}));
for (const path of ["page.js", "shared/peel.js", "shared/uplot/uPlot.iife.min.js", "status"]) loads("script", "src", path);
for (const path of ["page.css", "shared/base.css", "status"]) loads("link", "href", path);
for (const path of ["mark.svg", "status"]) loads("img", "src", path);
for (const path of ["", "status", "page"]) loads("iframe", "src", path);
for (const kind of ["ws", "events"]) all.push(new Promise((done) => {
  tries++;
  const s = kind === "ws" ? new WebSocket(at.replace("http", "ws") + "status") : new EventSource(at + "history");
  s.onopen = () => { note(kind)("open"); done(); };
  s.onerror = () => { s.close(); done(); };
}));
const limit = new Promise((done) => setTimeout(done, 20000));
Promise.race([Promise.all(all), limit]).then(() => { window.report = { tries, read }; });
</script>`

// A page of another port of this machine, the nearest that a hostile page comes, reads nothing of a node's and makes it do nothing.
func TestInABrowserAHostilePageLearnsNothing(t *testing.T) {
	if os.Getenv("PEEL_SLOW") != "1" {
		t.Skip("slow: PEEL_SLOW=1 runs it")
	}
	dir := folder(t)
	s := running(t, Config{Dir: dir, Listen: "127.0.0.1:0"}, func(s *Server) {
		s.Section("secret", func() any { return "canary" })
		s.Action("reload", func(context.Context) (string, error) { t.Error("a hostile page did something"); return "", nil })
	})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		at := s.Addr().String()
		if r.URL.RawQuery == "itself" { // and reads all of it, which shows that the test would see it
			at = r.Host
		}
		fmt.Fprintf(w, hostile, "http://"+at+"/")
	}))
	defer web.Close()
	b := browser.Start(t)
	port := web.URL[strings.LastIndex(web.URL, ":"):]
	for from, reads := range map[string]bool{"http://127.0.0.1" + port: false, "http://localhost" + port: false, "http://localhost" + port + "/?itself": true} {
		p := b.Open(t, from, browser.View{Width: 800, Height: 600})
		p.Until(t.Context(), "window.report")
		var report struct {
			Tries int      `json:"tries"`
			Read  []string `json:"read"`
		}
		if err := p.Eval("window.report", &report); err != nil || report.Tries < 150 {
			t.Errorf("%s: %d attempts: %v", from, report.Tries, err)
		}
		if len(report.Read) > 0 != reads {
			t.Errorf("%s: the page could read or load %d things:\n%s", from, len(report.Read), strings.Join(report.Read, "\n"))
		}
	}
}

// A page says so when there is nothing to show yet, when its token is missing, and when the node ends.
func TestInABrowserTheStatusPageSaysWhatIsMissing(t *testing.T) {
	if os.Getenv("PEEL_SLOW") != "1" {
		t.Skip("slow: PEEL_SLOW=1 runs it")
	}
	dir := folder(t)
	s, err := Open(Config{Kind: "relay", Version: "peel-test", Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	on := s.locals[1]
	go func() { ended <- s.serve(ctx, on) }() // and not Run, which would look at the node, so that there were data after a while
	end := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	defer end()
	link := page.Link(on.Addr(), on.token)
	at, _, _ := strings.Cut(link, "#")
	b := browser.Start(t)
	narrow := browser.View{Width: 390, Height: 844}
	keep := func(p *browser.Page, name string) {
		if to := os.Getenv("PEEL_SCREENSHOT"); to != "" {
			text, _ := p.Draw()
			os.WriteFile(filepath.Join(to, "status-"+name+".png"), text, 0o600)
		}
	}
	bare := b.Open(t, at, narrow)
	bare.Until(t.Context(), `document.body.innerText.includes("peel status --page")`)
	keep(bare, "bare")
	p := b.Open(t, link, narrow)
	p.Until(t.Context(), `document.querySelector("#state").textContent === "ready" && document.body.innerText.includes("No data yet")`)
	keep(p, "empty")
	end()
	p.Eval(`dispatchEvent(new Event("hashchange"))`, nil) // asks at once
	p.Until(t.Context(), `document.body.innerText.includes("The node does not answer") && document.querySelector("#state").textContent === "does not answer"`)
	keep(p, "gone")
}
