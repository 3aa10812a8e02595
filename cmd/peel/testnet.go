package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"peel/cell/contain"
	"peel/client"
	"peel/client/path"
	"peel/directory"
	"peel/testnet"
	"peel/testnet/story"
)

// pageSize is what the demonstration fetches: long enough to measure, short enough not to wait for.
const pageSize = 8 << 20

func testnetCommand() *cobra.Command {
	t := &localnet{size: testnet.Size{Authorities: 5, Relays: 12, Exits: 4}}
	c := &cobra.Command{
		Use:   "testnet [flags] [-- COMMAND ARGS...]",
		Short: "Start a whole network on this machine and fetch a page through it",
		Long: `Starts directory authorities, relays and a client in this process, joined over
loopback with the formats and keys of a real network; waits for the authorities to
agree; fetches a page from a web server of its own through three relays; and stays,
with a port for your programs (SOCKS, HTTP CONNECT), until Ctrl-C.

With a COMMAND, runs it with ALL_PROXY, HTTP_PROXY, HTTPS_PROXY and PEEL_SOCKS set
(with --dns also PEEL_DNS), and ends with its exit status.`,
		Example: `  peel testnet
  peel testnet --relays 20 --exits 5 --socks 127.0.0.1:0
  peel testnet -- curl -sS http://127.0.0.1:8000/file`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 && c.ArgsLenAtDash() != 0 {
				return &usageError{fmt.Errorf("there is nothing to do with %q%s (a command to run comes after --, as in: peel testnet -- curl URL)", args[0], meantVerb(c, args[0]))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 && c.ArgsLenAtDash() == 0 {
				return &usageError{errors.New("after -- there is no command to run: give one, or leave -- out")}
			}
			if len(args) > 0 {
				if _, err := exec.LookPath(args[0]); err != nil {
					return commandStatus(args[0], err) // better now than when the network is there
				}
				t.command = args
			}
			t.stderr, t.screen = c.ErrOrStderr(), newScreen(c.OutOrStdout())
			if t.command != nil {
				t.screen = newScreen(t.stderr)
			}
			defer t.screen.end()
			ctx, cancel := context.WithCancel(c.Context())
			defer cancel()
			out := untilNobodyReads(t.screen.w, cancel)
			t.screen.w = out
			return errors.Join(t.run(ctx), out.broken())
		},
	}
	f := c.Flags()
	f.IntVar(&t.size.Authorities, "authorities", t.size.Authorities, "directory authorities")
	f.IntVar(&t.size.Relays, "relays", t.size.Relays, "relays, exits included")
	f.IntVar(&t.size.Exits, "exits", t.size.Exits, "relays that are exits")
	checkedVar(f, &t.socks, "socks", "127.0.0.1:9250", "`address` of the port for SOCKS and HTTP CONNECT; port 0 picks a free one", anAddress("127.0.0.1:9250"))
	checkedVar(f, &t.dns, "dns", "", "`address` of a DNS port; port 0 picks a free one (default: none)", orNone(anAddress("127.0.0.1:9253"), ""))
	checkedVar(f, &t.web, "web", "127.0.0.1:0", "`address` of the window, a web page that shows the network; port 0 picks a free one, off: none", orNone(aPage, "", "off"))
	f.StringVar(&t.report, "report", "", "write what happened, with plots, into this `file` at the end: one page of HTML")
	f.StringVar(&t.dir, "dir", "", "`folder` for keys, documents and logs (default: a temporary one, removed at the end)")
	f.DurationVar(&t.duration, "duration", 0, "end by itself after this `time`, such as 30s; 0: stay until Ctrl-C")
	checkedVar(f, &t.log, "log", "info", "how much the nodes' logs tell, a `level`: error, warn, info or debug", oneOf("error", "warn", "info", "debug"))
	f.BoolVar(&t.json, "json", false, "print events as lines of JSON")
	t.trouble.add(c)
	c.AddCommand(benchCommand(), testnetRunCommand(), topCommand(), exportCommand())
	return c
}

// localnet is the testnet verb at work.
type localnet struct {
	size       testnet.Size
	trouble    trouble
	socks, dns string
	dir        string
	web        string
	report     string
	log        string
	duration   time.Duration
	json       bool
	command    []string
	stderr     io.Writer
	screen     *screen // for events: where a command has the standard output, the error output

	story  *story.Story
	voting atomic.Int64 // a time.Duration: what authorities have to agree since they began anew; 0: they did not

	mu      sync.Mutex // of output
	started time.Time
}

// event is one line of --json.
type event struct {
	Event   string  `json:"event"` // window, bootstrap, anew, fetch, ready, node, report
	Seconds float64 `json:"seconds"`
	Percent int     `json:"percent,omitempty"`
	Stage   string  `json:"stage,omitempty"`
	Text    string  `json:"text,omitempty"`
	Path    []hop   `json:"path,omitempty"`
	Bytes   int64   `json:"bytes,omitempty"`
	TTFB    float64 `json:"ttfb_ms,omitempty"`
	Rate    float64 `json:"MBps,omitempty"`
	SOCKS   string  `json:"socks,omitempty"`
	DNS     string  `json:"dns,omitempty"`
	Dir     string  `json:"dir,omitempty"`
	Window  string  `json:"window,omitempty"` // with the token
}

type hop struct {
	Role     string `json:"role"`
	Nickname string `json:"nickname"`
	Addr     string `json:"address"`
	ID       string `json:"id"`
}

// thousandths is a number without digits that nobody reads.
func thousandths(x float64) float64 { return math.Round(x*1000) / 1000 }

// say prints an event: as JSON, or as the text of it.
func (t *localnet) say(e event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.Seconds = thousandths(time.Since(t.started).Seconds())
	if t.json {
		e.TTFB, e.Rate = thousandths(e.TTFB), thousandths(e.Rate)
		e.Text, _, _ = strings.Cut(e.Text, "\n") // what follows is in keys of its own
		lines := json.NewEncoder(t.screen)
		lines.SetEscapeHTML(false)
		lines.Encode(e)
	} else {
		fmt.Fprintln(t.screen, e.Text)
	}
}

func (t *localnet) run(ctx context.Context) (end error) {
	t.started = time.Now()
	if err := t.size.Check(); err != nil {
		return &usageError{err}
	}
	if t.duration < 0 {
		return &usageError{errors.New("--duration: must not be negative")}
	}
	trouble, err := t.trouble.plan(t.size)
	if err != nil {
		return &usageError{err}
	}
	if t.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.duration)
		defer cancel()
	}
	d := new(doors)
	defer d.close()
	if err := t.listen(d); err != nil {
		return err
	}
	remove, err := t.folder()
	if err != nil {
		return err
	}
	defer remove()
	logs := &logFiles{dir: t.dir}
	if err := logs.level.UnmarshalText([]byte(t.log)); err != nil {
		return err // cannot be: the flag was checked
	}
	defer logs.close()

	late := false
	if trouble == nil && !noWindow(t.web) { // the window has weather, which costs nothing until somebody asks for it
		trouble = calm(t.size)
		late = trouble != nil
	}
	t.story = story.New("local", "in one process", t.started)
	if t.report != "" {
		if err := writeReport(t.report, t.story); err != nil { // better now than at the end
			return err
		}
		defer func() {
			err := writeReport(t.report, t.story)
			if err == nil {
				t.say(event{Event: "report", Text: "report written to " + t.report})
			}
			end = cmp.Or(end, err)
		}()
	}
	n, err := testnet.New(testnet.Config{
		Size: t.size, Plan: trouble, Late: late, Dir: t.dir, Log: logs.open, Story: t.story,
		Progress: func(p client.Progress) {
			if t.json || !t.screen.show(p) {
				t.say(event{Event: "bootstrap", Percent: p.Percent, Stage: p.Stage, Text: p.String()})
			}
		},
		Anew: t.anew,
		Befell: func(at time.Duration, text string) {
			if !t.json {
				text = fmt.Sprintf("%9s  %s", at.Round(100*time.Millisecond), text)
			}
			t.say(event{Event: "node", Text: text})
		},
	})
	if err != nil {
		return err
	}
	web, err := newWebServer(t.pageSize())
	if err != nil {
		return err
	}
	defer web.close()
	look := &fetcher{places: make(chan struct{}, mostFetches), do: func(ctx context.Context) error {
		_, err := fetchPage(ctx, n.Client(), web.url, t.pageSize(), t.story)
		return err
	}}
	can := n.Actions()
	can.Fetch = look.begin
	w, forget, err := openWindow(t.web, t.dir, t.story, can)
	if err != nil {
		return err
	}
	defer forget()
	servers := append(d.servers(n.Client(), logs.open("socks")), web.run)
	if w != nil {
		defer w.Close()
		servers = append(servers, w.Run)
		t.say(event{Event: "window", Window: w.Link(), Text: "window: " + w.Link()})
	}
	if logs.err != nil {
		return fmt.Errorf("testnet: %w", logs.err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg contain.Group
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func(p *contain.Panic) { cancel(p) }, func() {
		if err := n.Run(ctx); err != nil {
			cancel(err)
		}
	})
	for _, serve := range servers {
		wg.Go(func(p *contain.Panic) { cancel(p) }, func() {
			if err := serve(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Go(func(p *contain.Panic) { cancel(p) }, func() { look.run(ctx) })
	return endOf(ctx, t.use(ctx, n, d, web.url))
}

// listen opens the ports at which applications find the network.
func (t *localnet) listen(d *doors) error {
	l, err := listenSOCKS(t.socks, "--socks")
	if err != nil {
		return err
	}
	d.ports = []port{{Listener: l}}
	if openToOthers(l.Addr()) {
		fmt.Fprintf(t.stderr, "peel: warning: --socks %s is open to other machines: whoever reaches it can use it\n", t.socks)
	}
	if t.dns == "" {
		return nil
	}
	if d.udp, d.tcp, err = listenDNS(t.dns); err != nil {
		return fmt.Errorf("--%w", err)
	}
	if openToOthers(d.udp.LocalAddr()) {
		fmt.Fprintf(t.stderr, "peel: warning: --dns %s is open to other machines: whoever reaches it can use it\n", t.dns)
	}
	return nil
}

// endOf is how a run ends whose context has ended, or whose use of the network did, with err.
func endOf(ctx context.Context, err error) error {
	var status *exitError
	switch cause := context.Cause(ctx); {
	case errors.As(err, &status): // the command's, whatever ended it
		return err
	case cause == nil, errors.Is(cause, context.DeadlineExceeded): // --duration is over: it should have been ready by then
		return err
	case errors.Is(cause, context.Canceled): // Ctrl-C
		return nil
	default: // a part of the network failed
		return cause
	}
}

// anew tells that the authorities had too little time.
func (t *localnet) anew(s directory.Schedule) {
	t.voting.Store(int64(s.Voting))
	why := "" // with trouble it may be that
	if !t.trouble.any() {
		why = ", as this machine is slow or has much else to do"
	}
	due := max(time.Until(s.Start), 0).Round(time.Second)
	t.say(event{Event: "anew", Text: fmt.Sprintf("the authorities could not agree in time%s: they begin anew, with %v for it; a relay list is due in %v", why, s.Voting, due)})
}

// use waits for the network, shows that it works, and runs the command or stays.
func (t *localnet) use(ctx context.Context, n *testnet.Net, d *doors, web string) error {
	if err := n.Ready(ctx); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			come := "starting"
			if at, _ := n.Client().Bootstrap(); at.Percent > 0 {
				come = at.Text
			}
			slow := ""
			if v := time.Duration(t.voting.Load()); v > 0 {
				slow = fmt.Sprintf(", and %v for the authorities to agree were too little or not over yet", v)
			}
			return fmt.Errorf("--duration %v was over before the network was ready: it had come to %q%s; give it more, such as --duration %s", t.duration, come, slow, t.enough())
		}
		return err
	}
	err := t.fetch(ctx, n.Client(), web)
	for tries := 1; err != nil && t.trouble.any() && tries < 10 && ctx.Err() == nil; tries++ { // a relay may have been killed meanwhile
		t.say(event{Event: "fetch", Text: story.Sayf("fetching a page: %v; trying again", err)})
		err = t.fetch(ctx, n.Client(), web)
	}
	switch {
	case err != nil && ctx.Err() != nil && t.trouble.any():
		return errors.New("testnet: the time was over before a page came: with a villain as the client's guard none may come; give more time, or another --seed")
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("--duration %v was over before a page came, though the network was ready: give it more, such as --duration %s", t.duration, t.enough())
	case err != nil:
		return fmt.Errorf("testnet: fetching a page through the network: %w", err)
	}
	ready := event{Event: "ready", SOCKS: d.ports[0].Addr().String(), Dir: t.dir}
	if d.udp != nil {
		ready.DNS = d.udp.LocalAddr().String()
	}
	var text strings.Builder
	d.announce(&text)
	ready.Text = strings.TrimSuffix(text.String(), "\n")
	t.say(ready)
	if t.command != nil {
		return runCommand(ctx, t.command, ready.SOCKS, ready.DNS)
	}
	<-ctx.Done()
	return nil
}

// enough is a time in which the network gets ready, even where much befalls it or the machine is busy: a value of --duration.
func (t *localnet) enough() string {
	switch {
	case t.duration >= time.Minute:
		return fmt.Sprintf("%dm", int(math.Ceil(2*t.duration.Minutes())))
	case t.trouble.any(), t.duration >= 30*time.Second, t.voting.Load() > 0:
		return "2m"
	}
	return "30s"
}

// fetch gets a page from the web server through three relays and shows how it went.
func (t *localnet) fetch(ctx context.Context, c *client.Client, addr string) error {
	f, err := fetchPage(ctx, c, addr, t.pageSize(), t.story)
	if err != nil {
		return err
	}
	e := event{Event: "fetch", Bytes: t.pageSize(), TTFB: f.first.Seconds() * 1000, Rate: f.rate, Path: f.path}
	size := fmt.Sprintf("%d MiB", e.Bytes>>20)
	if e.Bytes < 1<<20 {
		size = fmt.Sprintf("%d KiB", e.Bytes>>10)
	}
	e.Text = fmt.Sprintf("fetched %s from http://%s: first byte after %.1f ms", size, addr, e.TTFB)
	if e.Rate > 0 {
		e.Text += fmt.Sprintf(", then %.1f MB/s", e.Rate)
	}
	e.Text += "\npath: this client"
	for _, h := range e.Path {
		e.Text += fmt.Sprintf("\n   -> %-7s %-10s %s", h.Role, h.Nickname, h.Addr)
	}
	e.Text += "\n   -> the web server"
	t.say(e)
	return nil
}

// pageSize is how much is fetched: less where much befalls it on the way.
func (t *localnet) pageSize() int64 {
	if t.trouble.any() {
		return pageSize / 32
	}
	return pageSize
}

func hops(p path.Path) []hop {
	roles := []string{"guard", "middle", "exit"}
	var hs []hop
	for i, e := range p {
		hs = append(hs, hop{Role: roles[i], Nickname: e.Nickname, Addr: e.Addrs[0].String(), ID: e.ID.String()})
	}
	return hs
}

// runCommand runs a program that finds the network in its environment; its status becomes ours.
func runCommand(ctx context.Context, args []string, socks, dns string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "PEEL_SOCKS="+socks)
	for _, v := range proxyVariables(socks, "") {
		cmd.Env = append(cmd.Env, v[0]+"="+v[1])
	}
	if dns != "" {
		cmd.Env = append(cmd.Env, "PEEL_DNS="+dns)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	return commandStatus(args[0], cmd.Run())
}

// commandStatus makes what became of a command our own end, as a shell would: its status; 128 and the signal that ended it;
// 127 if there is no such program, 126 if it cannot be run.
func commandStatus(name string, err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return &exitError{code: exit.ExitCode()}
	case errors.As(err, &exit):
		err = fmt.Errorf("testnet: %s: %w", name, err)
		if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			return &exitError{code: 128 + int(w.Signal()), err: err}
		}
		return err
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return &exitError{code: 127, err: fmt.Errorf("testnet: %s: there is no such program", name)}
	}
	return &exitError{code: 126, err: fmt.Errorf("testnet: running %s: %w", name, err)}
}

// folder makes the folder for keys, documents and logs; remove takes a temporary one away again.
func (t *localnet) folder() (remove func(), err error) {
	if t.dir != "" {
		t.dir, err = filepath.Abs(t.dir)
		if err == nil {
			err = os.MkdirAll(t.dir, 0o700)
		}
		if err != nil {
			err = fmt.Errorf("--dir: %w", err)
		}
		return func() {}, err
	}
	t.dir, err = os.MkdirTemp("", "peel-testnet-")
	return func() { os.RemoveAll(t.dir) }, err
}

// logFiles are the logs of the nodes, a file each.
type logFiles struct {
	dir   string
	level slog.Level
	mu    sync.Mutex
	err   error // why some could not be opened
	files []*os.File
}

func (l *logFiles) open(node string) *slog.Logger {
	l.mu.Lock()
	defer l.mu.Unlock()
	dir := filepath.Join(l.dir, node)
	err := os.MkdirAll(dir, 0o700)
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	}
	if err != nil {
		l.err = errors.Join(l.err, err)
		return slog.New(slog.DiscardHandler)
	}
	l.files = append(l.files, f)
	return slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: l.level, ReplaceAttr: inPlainWords}))
}

func (l *logFiles) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.files {
		f.Close()
	}
}
