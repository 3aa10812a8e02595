package testnet

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/websocket"

	"peel/testnet/browser"
)

// talking is a page that does what pages of today do: WebSockets, server-sent events, many requests at a time over HTTP/2, an upload, a
// download that it gives up, and, once all that is over, some that stay open as long as the tab.
const talking = `<!doctype html><title>t</title><script>
const done = {};
const step = (name, f) => f().then((v) => done[name] = v, (e) => done[name] = "failed: " + e);
const echo = (text) => new Promise((ok, no) => {
	const w = new WebSocket("wss://" + location.host + "/echo");
	w.onopen = () => w.send(text);
	let back = "";
	w.onmessage = (m) => { back += m.data; if (back === text) { ok(back.length); if (text !== "stays") w.close(); } };
	w.onerror = () => no("closed");
});
const events = (last) => new Promise((ok, no) => {
	const e = new EventSource("/events"), got = [];
	e.onmessage = (m) => { got.push(m.data); if (got.length === 3) { ok(got.join(" ")); if (!last) e.close(); } };
	e.onerror = () => no("closed");
});
const download = async (giveUp) => {
	const stop = new AbortController();
	const r = (await fetch("/endless", { signal: stop.signal })).body.getReader();
	let n = 0;
	while (n < 1e6) n += (await r.read()).value.length;
	if (giveUp) stop.abort(); else window.kept = r;
	return "a megabyte";
};
Promise.all([
	step("echo", () => echo([...Array(100000).keys()].join(" "))),
	step("events", () => events(false)),
	step("requests", async () => (await Promise.all([...Array(50).keys()].map((i) => fetch("/proto?" + i).then((r) => r.text())))).filter((t) => t === "HTTP/2.0").length),
	step("upload", async () => (await fetch("/sum", { method: "POST", body: new Uint8Array(4 << 20) })).text()),
	step("download", () => download(true)),
]).then(() => Promise.all([step("stays1", () => echo("stays")), step("stays2", () => events(true)), step("stays3", () => download(false))])).then(() => done.all = true);
</script>`

// What long-lived pages do goes through the network, and ends at the host, which the exit has to tell, when the page gives it up or its tab is closed.
func TestInABrowserPagesTalkUntilTheirTabIsClosed(t *testing.T) {
	if os.Getenv("PEEL_SLOW") != "1" {
		t.Skip("slow: PEEL_SLOW=1 runs it")
	}
	n := share(t)
	var open, ended atomic.Int64 // of what has no end of its own, at the host
	lasting := func(h func(http.ResponseWriter, *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			open.Add(1)
			defer func() { open.Add(-1); ended.Add(1) }()
			h(w, r)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, talking) })
	mux.HandleFunc("/echo", lasting(websocket.Handler(func(c *websocket.Conn) { io.Copy(c, c) }).ServeHTTP))
	mux.HandleFunc("/events", lasting(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	}))
	mux.HandleFunc("/endless", lasting(func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, endless{}) }))
	mux.HandleFunc("/proto", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	mux.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		io.Copy(h, r.Body)
		fmt.Fprintf(w, "%x", h.Sum(nil))
	})
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	var conns atomic.Int64 // at the host
	s.Listener = &counted{s.Listener, &conns}
	s.StartTLS()
	defer s.Close()
	t.Run("browser", func(t *testing.T) {
		b := browser.Through(t, newHouse(t, n, "127.0.0.1", "0").door)
		p := b.Open(t, url(s, here, "/"), browser.View{Width: 300, Height: 300})
		p.Until(t.Context(), "done.all")
		var done map[string]any
		if err := p.Eval("done", &done); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"echo": 588889, "events": "0 1 2", "requests": 50, "upload": fmt.Sprintf("%x", sha256.Sum256(make([]byte, 4<<20))),
			"download": "a megabyte", "stays1": 5, "stays2": "0 1 2", "stays3": "a megabyte", "all": true}
		for what, v := range want {
			if fmt.Sprint(done[what]) != fmt.Sprint(v) {
				t.Errorf("%s: %v, want %v", what, done[what], v)
			}
		}
		until(t, "what was given up has ended", func() bool { return open.Load() == 3 && ended.Load() == 3 })
		p.Close()
		until(t, "what was of the tab has ended", func() bool { return open.Load() == 0 })
	})
	until(t, "no connection of the browser is left", func() bool { return conns.Load() == 0 })
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// counted counts the connections of a listener that are open.
type counted struct {
	net.Listener
	open *atomic.Int64
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &countedConn{Conn: c, closed: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
