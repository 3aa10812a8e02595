// Package browser runs a headless Chromium for tests that look at web pages: it opens them, runs scripts in them, draws them, and
// hears what they complain of.
//
// It speaks the browser's own protocol (the Chrome DevTools Protocol) over two pipes, so that no port is open meanwhile. What it
// needs of that is less than a library for it would take to compile.
package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// within bounds each wait for the browser: far longer than anything takes on a busy machine.
const within = time.Minute

// Browser is a running Chromium.
type Browser struct {
	out *os.File

	mu      sync.Mutex
	next    int                    // number of the last request; guarded by mu, as all below
	waiting map[int]chan<- message // by number
	pages   map[string]*Page       // by session
	dead    error
}

// message is one of the protocol, either way.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// Start runs a browser until the test ends. Where there is no Chromium the test is skipped, with a notice.
func Start(t testing.TB) *Browser {
	t.Helper()
	return start(t, "--no-proxy-server")
}

// Through runs a browser that goes nowhere but through a SOCKS port, and believes every certificate.
func Through(t testing.TB, door string) *Browser {
	t.Helper()
	return start(t, "--proxy-server=socks5://"+door, "--proxy-bypass-list=<-loopback>", "--ignore-certificate-errors")
}

func start(t testing.TB, flags ...string) *Browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("notice: chromium is not installed: the page is not looked at")
	}
	args := []string{"--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(), "--remote-debugging-pipe"}
	if os.Getuid() == 0 {
		args = append(args, "--no-sandbox")
	}
	theirIn, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	heard, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(chromium, append(append(args, flags...), "about:blank")...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	// A pipe to a writer of ours: all processes of the browser hold it, so that Wait returns when the last has ended and nobody
	// writes in its folders any more.
	var said tail
	cmd.Stderr, cmd.WaitDelay = &said, within
	err = cmd.Start()
	theirIn.Close()
	theirOut.Close()
	if err != nil {
		t.Fatal(err)
	}
	b := &Browser{out: ours, waiting: make(map[int]chan<- message), pages: make(map[string]*Page)}
	var wg sync.WaitGroup
	wg.Go(func() { b.hear(heard) })
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		ours.Close()
		wg.Wait()
		heard.Close()
		if t.Failed() {
			t.Logf("the browser said:\n%s", said.String())
		}
	})
	return b
}

// tail keeps the end of what was written.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (w *tail) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b...)
	w.text = w.text[max(0, len(w.text)-4096):]
	return len(b), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.text)
}

// hear reads what the browser says until it ends.
func (b *Browser) hear(from *os.File) {
	r := bufio.NewReaderSize(from, 64<<10)
	for {
		text, err := r.ReadBytes(0) // a message ends with a zero byte
		if err != nil {
			b.mu.Lock()
			b.dead = fmt.Errorf("the browser has ended: %w", err)
			for id, c := range b.waiting {
				delete(b.waiting, id)
				close(c)
			}
			b.mu.Unlock()
			return
		}
		var m message
		var params json.RawMessage
		m.Params = &params
		if json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &m) != nil {
			continue
		}
		b.mu.Lock()
		answer, page := b.waiting[m.ID], b.pages[m.Session]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		switch {
		case answer != nil:
			answer <- m
		case page != nil && m.Method != "":
			page.event(m.Method, params)
		}
	}
}

// call asks for something and reads the result into into, if that is not nil.
func (b *Browser) call(session, method string, params, into any) error {
	answer := make(chan message, 1)
	b.mu.Lock()
	if b.dead != nil {
		b.mu.Unlock()
		return b.dead
	}
	b.next++
	id := b.next
	text, err := json.Marshal(message{ID: id, Session: session, Method: method, Params: params})
	if err == nil {
		b.waiting[id] = answer
		_, err = b.out.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return fmt.Errorf("%s: the browser has ended", method)
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case into != nil:
			return json.Unmarshal(m.Result, into)
		}
		return nil
	case <-time.After(within):
		return fmt.Errorf("%s: no answer within %v", method, within)
	}
}

// View is how a page is looked at.
type View struct {
	Width, Height int
	Dark          bool
}

// Page is one tab.
type Page struct {
	t       testing.TB
	b       *Browser
	target  string
	session string

	mu         sync.Mutex
	complaints []string // guarded by mu
}

// Open opens an address in a tab of its own. What the page complains of from then on is kept.
func (b *Browser) Open(t testing.TB, url string, v View) *Page {
	t.Helper()
	var made struct {
		Target string `json:"targetId"`
	}
	var joined struct {
		Session string `json:"sessionId"`
	}
	p := &Page{t: t, b: b}
	type o = map[string]any
	err := b.call("", "Target.createTarget", o{"url": "about:blank"}, &made)
	if err == nil {
		err = b.call("", "Target.attachToTarget", o{"targetId": made.Target, "flatten": true}, &joined)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.target, p.session = made.Target, joined.Session
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		p.call(domain+".enable", o{}, nil)
	}
	p.Look(v)
	var gone struct {
		Error string `json:"errorText"`
	}
	p.call("Page.navigate", o{"url": url}, &gone)
	if gone.Error != "" {
		t.Fatalf("%s: %s", strings.SplitN(url, "#", 2)[0], gone.Error)
	}
	return p
}

// Close closes the tab.
func (p *Page) Close() {
	p.t.Helper()
	if err := p.b.call("", "Target.closeTarget", map[string]any{"targetId": p.target}, nil); err != nil {
		p.t.Fatal(err)
	}
}

// Look changes how the page is looked at.
func (p *Page) Look(v View) {
	p.t.Helper()
	type o = map[string]any
	scheme := "light"
	if v.Dark {
		scheme = "dark"
	}
	p.call("Emulation.setDeviceMetricsOverride", o{"width": v.Width, "height": v.Height, "deviceScaleFactor": 1, "mobile": false}, nil)
	p.call("Emulation.setEmulatedMedia", o{"features": []o{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

func (p *Page) call(method string, params, into any) {
	p.t.Helper()
	if err := p.b.call(p.session, method, params, into); err != nil {
		p.t.Fatal(err)
	}
}

// event keeps what a page complains of: errors and warnings of scripts, and what the browser refused or could not load.
func (p *Page) event(method string, params json.RawMessage) {
	var e struct {
		Type string `json:"type"`
		Args []struct {
			Value any    `json:"value"`
			Text  string `json:"description"`
		} `json:"args"`
		Entry struct {
			Level string `json:"level"`
			Text  string `json:"text"`
			URL   string `json:"url"`
		} `json:"entry"`
		Details struct {
			Text      string `json:"text"`
			Exception struct {
				Text string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	if json.Unmarshal(params, &e) != nil {
		return
	}
	complaint := ""
	switch {
	case method == "Runtime.exceptionThrown":
		complaint = e.Details.Text + " " + e.Details.Exception.Text
	case method == "Runtime.consoleAPICalled" && (e.Type == "error" || e.Type == "warning" || e.Type == "assert"):
		for _, a := range e.Args {
			complaint += fmt.Sprint(a.Value, a.Text, " ")
		}
	case method == "Log.entryAdded" && (e.Entry.Level == "error" || e.Entry.Level == "warning"):
		complaint = e.Entry.Text + " " + e.Entry.URL
	}
	if complaint != "" {
		p.mu.Lock()
		p.complaints = append(p.complaints, method+": "+complaint)
		p.mu.Unlock()
	}
}

// Complaints are what the page and the browser complained of so far.
func (p *Page) Complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.complaints...)
}

// Eval runs an expression in the page, waits for it if it is a promise, and reads its value, as JSON, into into if that is not nil.
func (p *Page) Eval(expression string, into any) error {
	var r struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Details *struct {
			Text      string `json:"text"`
			Exception struct {
				Text string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	err := p.b.call(p.session, "Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &r)
	switch {
	case err != nil:
		return err
	case r.Details != nil:
		return errors.New(r.Details.Text + " " + r.Details.Exception.Text)
	case into == nil:
		return nil
	case r.Result.Value == nil:
		return fmt.Errorf("%s has no value", expression)
	}
	return json.Unmarshal(r.Result.Value, into)
}

// Until waits until an expression is true in the page, and fails the test if it never is.
func (p *Page) Until(ctx context.Context, expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var last error
	for {
		is := false
		if last = p.Eval("!!("+expression+")", &is); is {
			return
		}
		select {
		case <-ctx.Done():
			var text string
			p.Eval("document.body.innerText", &text)
			p.t.Fatalf("never: %s (%v)\n%s\n%s", expression, last, strings.Join(p.Complaints(), "\n"), text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Inked is an expression: how many pixels of each canvas that a selector finds are drawn on.
func Inked(selector string) string {
	s, _ := json.Marshal(selector)
	return `[...document.querySelectorAll(` + string(s) + `)].map((c) => {
		if (!c.width || !c.height) return 0;
		const copy = new OffscreenCanvas(c.width, c.height).getContext("2d", { willReadFrequently: true });
		copy.drawImage(c, 0, 0);
		const d = copy.getImageData(0, 0, c.width, c.height).data;
		let n = 0;
		for (let i = 3; i < d.length; i += 4) n += d[i] > 0;
		return n;
	})`
}

// Whole is an expression: whether nothing that is drawn on each canvas that a selector finds reaches its right edge, where it would be cut.
func Whole(selector string) string {
	s, _ := json.Marshal(selector)
	return `[...document.querySelectorAll(` + string(s) + `)].every((c) => {
		if (!c.width || !c.height) return false;
		const copy = new OffscreenCanvas(1, c.height).getContext("2d", { willReadFrequently: true });
		copy.drawImage(c, 1 - c.width, 0);
		return copy.getImageData(0, 0, 1, c.height).data.every((v) => v === 0);
	})`
}

// Press presses and releases a key, such as "Tab" or "Enter".
func (p *Page) Press(key string) {
	p.t.Helper()
	code := map[string]int{"Tab": 9, "Enter": 13, " ": 32, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}[key]
	text := map[string]string{"Enter": "\r", " ": " "}[key]
	press := map[string]any{"type": "keyDown", "key": key, "windowsVirtualKeyCode": code}
	if text != "" {
		press["text"] = text
	}
	p.call("Input.dispatchKeyEvent", press, nil)
	p.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}, nil)
}

// Draw draws the whole page, also what is below the window, as a PNG and as the picture in it.
func (p *Page) Draw() ([]byte, image.Image) {
	p.t.Helper()
	var shot struct {
		Data string `json:"data"`
	}
	p.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	text, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		p.t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(text))
	if err != nil {
		p.t.Fatal(err)
	}
	return text, img
}
