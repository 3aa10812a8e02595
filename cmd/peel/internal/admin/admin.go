// Package admin is the window into a running node: a small web server on a unix socket in the node's state folder and, by
// option, on loopback behind a token (spec/admin.md).
//
// A node opens a Server, hands it funcs (Section, Ready, Metric, Action) and runs it. Metrics go to other programs and machines:
// they name no peer, circuit, stream or person, and what people do is rounded in them. The status is for the operator alone.
package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"peel/cell/contain"
	"peel/cmd/peel/internal/page"
)

// Config says where a node's server listens.
type Config struct {
	Kind     string // "authority", "relay" or "client"
	Nickname string // "": it has none
	Version  string

	// Dir is the node's state folder: the socket is SocketFile in it. "": no socket, and no token.
	Dir string
	// Runtime is another folder with a socket of the same name, such as a service manager gives; "": none.
	Runtime string
	// Listen is an address of loopback and a port to listen on as well; "": none. It needs Dir, where TokenFile is.
	Listen string

	Log *slog.Logger // nil: silent
}

// The files of a state folder.
const (
	SocketFile = "admin.sock"
	TokenFile  = "admin.token"
	lockFile   = "admin.lock"
)

const mostActions = 1 // at a time; one more is told to come back (spec/admin.md, section 3)

// Server is made by Open, told what to show, and works while Run runs.
type Server struct {
	cfg     Config
	log     *slog.Logger
	started time.Time
	mux     *http.ServeMux
	locals  []*local
	actions chan struct{}
	release func() // of the sockets' locks

	mu       sync.Mutex
	sections []section // guarded by mu, as all below
	metrics  []Metric
	ready    []func() error
	warnings []func() string

	site       *page.Site
	remembered sync.Mutex // of history
	history    *history
}

// local is one address listened on.
type local struct {
	net.Listener
	hosts []string // what a request may call it
	token string   // that a request must bring; "": none
}

type section struct {
	name string
	show func() any
}

// Open makes the folder if it is missing and listens; Run or Close gives everything back. Where the socket cannot be, or the
// folder is not safe, the error says what to do.
func Open(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, log: cfg.Log, started: time.Now(), mux: http.NewServeMux(), actions: make(chan struct{}, mostActions), release: func() {}, history: newHistory(), site: newSite()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.routes()
	s.Metric(processMetrics(s.started)...)
	if cfg.Dir == "" && cfg.Listen != "" {
		return nil, errors.New("admin: an address needs a state folder, where its token is kept: set state, or leave admin out")
	}
	for i, dir := range []string{cfg.Dir, cfg.Runtime} {
		if dir == "" || i > 0 && filepath.Clean(dir) == filepath.Clean(cfg.Dir) {
			continue
		}
		if err := s.openSocket(dir); err != nil {
			s.Close()
			return nil, err
		}
	}
	if cfg.Listen == "" {
		return s, nil
	}
	t, err := listenLoopback(cfg.Listen, cfg.Dir)
	if err != nil {
		s.Close()
		return nil, err
	}
	s.locals = append(s.locals, t)
	return s, nil
}

// openSocket listens in a folder.
func (s *Server) openSocket(dir string) error {
	if err := safeFolder(dir); err != nil {
		return err
	}
	l, release, err := listenSocket(dir)
	if err != nil {
		return err
	}
	before := s.release
	s.release = func() { release(); before() }
	s.locals = append(s.locals, &local{Listener: l, hosts: []string{socketHost, "localhost"}})
	return nil
}

// Close gives back what Open took, where Run is never called.
func (s *Server) Close() {
	for _, l := range s.locals {
		l.Close()
	}
	s.release()
	s.release = func() {}
}

// Addr is the address on loopback; nil: there is none.
func (s *Server) Addr() net.Addr {
	for _, l := range s.locals {
		if l.token != "" {
			return l.Addr()
		}
	}
	return nil
}

// Section adds a part of /status: show returns a value that encoding/json can write, and is called by many goroutines at any time.
// A name is a word in lower case; a later one of the same name takes its place.
func (s *Server) Section(name string, show func() any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.sections {
		if s.sections[i].name == name {
			s.sections[i].show = show
			return
		}
	}
	s.sections = append(s.sections, section{name, show})
}

// Ready adds a condition of /readyz: an error says what the node is waiting for.
func (s *Server) Ready(is func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = append(s.ready, is)
}

// Warning adds what may have to be said at the head of the status: what its operator should do something about. "": nothing.
func (s *Server) Warning(why func() string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warnings = append(s.warnings, why)
}

// Action adds a POST, such as "reload": the user reads what do says, or its error. One runs at a time.
func (s *Server) Action(name string, do func(context.Context) (said string, err error)) {
	s.mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.actions <- struct{}{}:
			defer func() { <-s.actions }()
		default:
			page.Fail(w, http.StatusTooManyRequests, "another action is under way: try again in a moment")
			return
		}
		said, err := do(r.Context())
		if err != nil {
			s.log.Warn("asked by the admin socket, and it failed: " + name) // why, the one who asked is told, in lines
			page.Fail(w, http.StatusInternalServerError, err.Error())
			return
		}
		s.log.Info("asked by the admin socket: " + name)
		page.Answer(w, http.StatusOK, map[string]any{"done": name, "said": said})
	})
}

// Page adds a GET that answers with what show returns, as JSON.
func (s *Server) Page(name string, show func() any) {
	s.mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) { page.Answer(w, http.StatusOK, show()) })
}

// Handle adds a handler behind the same checks as all others. The pattern is one of http.ServeMux.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

func (s *Server) routes() {
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		page.Answer(w, http.StatusOK, map[string]any{"healthy": true})
	})
	s.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := s.waiting(); why != nil {
			page.Answer(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "why": why.Error()})
			return
		}
		page.Answer(w, http.StatusOK, map[string]any{"ready": true})
	})
	s.mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { page.Answer(w, http.StatusOK, s.status()) })
	s.mux.Handle("GET /metrics", s.metricsHandler())
	s.mux.HandleFunc("GET /history", s.historyHandler)
	s.pageRoutes()
}

// waiting says what the node is not ready for; nil: it is.
func (s *Server) waiting() error {
	s.mu.Lock()
	all := slices.Clone(s.ready)
	s.mu.Unlock()
	for _, is := range all {
		if err := is(); err != nil {
			return err
		}
	}
	return nil
}

// Node is the first section of every status.
type Node struct {
	Kind    string    `json:"kind"`
	Name    string    `json:"nickname,omitempty"`
	Version string    `json:"version"`
	Now     time.Time `json:"now"`
	Started time.Time `json:"started"`
	Ready   bool      `json:"ready"`
	Waiting string    `json:"waiting_for,omitempty"`

	Warnings []string `json:"warnings,omitempty"`
}

// status is all sections in the order they were added.
func (s *Server) status() any {
	n := Node{Kind: s.cfg.Kind, Name: s.cfg.Nickname, Version: s.cfg.Version, Now: time.Now().UTC().Truncate(time.Second), Started: s.started.UTC().Truncate(time.Second)}
	if why := s.waiting(); why != nil {
		n.Waiting = why.Error()
	} else {
		n.Ready = true
	}
	s.mu.Lock()
	all, warnings := slices.Clone(s.sections), slices.Clone(s.warnings)
	s.mu.Unlock()
	for _, why := range warnings {
		if w := why(); w != "" {
			n.Warnings = append(n.Warnings, w)
		}
	}
	o := object{{"node", n}}
	for _, x := range all {
		o = append(o, member{x.name, x.show()})
	}
	return o
}

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, fmt.Errorf("section %s: %w", m.name, err)
		}
		b = append(append(append(b, name...), ':'), value...)
	}
	return append(b, '}'), nil
}

// Run serves until ctx ends and returns when the last goroutine of the server is gone. A listener that fails is an error.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	var wg contain.Group
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	for _, l := range s.locals {
		wg.Go(func(p *contain.Panic) { stop(fmt.Errorf("admin: %w", p)) }, func() {
			if err := s.serve(ctx, l); err != nil {
				stop(fmt.Errorf("admin: %v: %w", l.Addr(), err))
			}
		})
	}
	if len(s.locals) > 0 { // else nobody can ask
		wg.Go(func(p *contain.Panic) { stop(fmt.Errorf("admin: %w", p)) }, func() { s.remember(ctx) })
	}
	<-ctx.Done()
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (s *Server) serve(ctx context.Context, l *local) error {
	return page.Serve(ctx, l.Listener, s.guarded(l), ofOurs, s.log)
}

// readAll reads at most so much; more is an error.
func readAll(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if int64(len(b)) > most {
		err = cmp.Or(err, fmt.Errorf("more than %d bytes", most))
	}
	return b, err
}
