// Package window shows a test network to the person who runs it: as a live page in a browser, as a report in one file, and on a
// terminal (docs/window.md). What it shows is a story.Story, told by whoever runs the network.
package window

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"

	"peel/cmd/peel/internal/page"
	"peel/testnet/story"
)

//go:embed assets
var embedded embed.FS

// assets are the files of the page.
func assets() fs.FS {
	sub, err := fs.Sub(embedded, "assets")
	if err != nil {
		panic(err) // cannot be: it was embedded
	}
	return sub
}

// Bounds beside those of every page (spec/queues.md, section 7).
const (
	mostLooks   = 8 // snapshots made at a time; one more is told to come back
	mostActions = 1
)

// Window is a page and where it listens. It is made by Open and works while Run runs.
type Window struct {
	shown atomic.Pointer[shown]
	log   *slog.Logger
	l     net.Listener
	door  page.Door
	mux   *http.ServeMux
	looks chan struct{}
	acts  chan struct{}
}

// shown is the run that a window shows.
type shown struct {
	story   *story.Story
	actions story.Actions
	run     int
}

// Open listens on an address of loopback, to show one run, or several, one after the other; Run or Close gives it back. Log, which is told at Info what is done to the network, may be nil.
func Open(addr string, s *story.Story, a story.Actions, log *slog.Logger) (*Window, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	site, err := page.NewSite(assets())
	if err != nil {
		return nil, err
	}
	w := &Window{log: log, mux: http.NewServeMux(), looks: make(chan struct{}, mostLooks), acts: make(chan struct{}, mostActions)}
	w.Show(s, a)
	if w.l, w.door.Hosts, err = page.Listen(addr); err != nil {
		return nil, err
	}
	w.door.Token, w.door.Open, w.door.Refused = page.NewToken(), site.Has, page.Fail
	w.mux.Handle("/", site)
	w.mux.HandleFunc("GET /story", w.snapshot)
	w.mux.HandleFunc("GET /lines", w.lines)
	w.action("kill", "node", func(a story.Actions) func(string) error { return a.Kill })
	w.action("freeze", "node", func(a story.Actions) func(string) error { return a.Freeze })
	w.action("restore", "node", func(a story.Actions) func(string) error { return a.Restore })
	w.action("weather", "name", func(a story.Actions) func(string) error { return a.SetWeather })
	w.action("pace", "name", func(a story.Actions) func(string) error { return a.SetPace })
	w.action("fetch", "", func(a story.Actions) func(string) error {
		if a.Fetch == nil {
			return nil
		}
		return func(string) error { return a.Fetch() }
	})
	return w, nil
}

// Show has the window show another run from now on.
func (w *Window) Show(s *story.Story, a story.Actions) {
	next := &shown{story: s, actions: a, run: 1}
	if last := w.shown.Load(); last != nil {
		next.run = last.run + 1
	}
	w.shown.Store(next)
}

// Port is where the window listens.
func (w *Window) Port() uint16 { return uint16(w.l.Addr().(*net.TCPAddr).Port) }

// Link is the address that opens the page. It is a secret: whoever has it can do to the network what the page can.
func (w *Window) Link() string { return page.Link(w.l.Addr(), w.door.Token) }

// Close gives back what Open took, where Run is never called.
func (w *Window) Close() { w.l.Close() }

// Run answers until ctx ends and returns when the last goroutine is gone.
func (w *Window) Run(ctx context.Context) error {
	if err := page.Serve(ctx, w.l, w.door.Guard(w.mux), nil, w.log); err != nil {
		return fmt.Errorf("window: %w", err)
	}
	return nil
}

// taken takes a place; false: there is none, and it has been said.
func taken(places chan struct{}, rw http.ResponseWriter) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		page.Fail(rw, http.StatusTooManyRequests, "others are being answered: try again in a moment")
		return false
	}
}

// snapshot answers GET /story?after=SEQ.
func (w *Window) snapshot(rw http.ResponseWriter, r *http.Request) {
	after := uint64(0)
	if text := r.URL.Query().Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			page.Fail(rw, http.StatusBadRequest, "after: the number of an event")
			return
		}
	}
	if !taken(w.looks, rw) {
		return
	}
	defer func() { <-w.looks }()
	answer(rw, w.look(after))
}

func (w *Window) look(after uint64) story.Snapshot {
	s := w.shown.Load()
	v := s.story.Snapshot(after)
	v.Run, v.Can, v.Paces = s.run, s.actions.Can(), s.actions.Paces
	v.Weathers = append(v.Weathers, s.actions.Weathers...)
	if s.actions.Pace != nil {
		v.Pace = s.actions.Pace()
	}
	return v
}

// answer writes JSON without white space: it goes out every second.
func answer(rw http.ResponseWriter, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		page.Fail(rw, http.StatusInternalServerError, err.Error())
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.Write(text)
}

// lines answers GET /lines?node=NAME and GET /lines?circuit=KEY.
func (w *Window) lines(rw http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var l story.Lines
	var ok bool
	if q.Has("node") {
		l, ok = w.shown.Load().story.OfNode(q.Get("node"))
	} else {
		l, ok = w.shown.Load().story.OfCircuit(q.Get("circuit"))
	}
	if !ok {
		page.Fail(rw, http.StatusNotFound, "there is none of this name, or no longer")
		return
	}
	answer(rw, l)
}

// action answers POST /NAME?KEY=what, by one of the actions of what is shown; nil: this network cannot.
func (w *Window) action(name, key string, of func(story.Actions) func(string) error) {
	w.mux.HandleFunc("/"+name, func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			rw.Header().Set("Allow", "POST")
			page.Fail(rw, http.StatusMethodNotAllowed, "this is done with POST")
			return
		}
		do := of(w.shown.Load().actions)
		if do == nil {
			page.Fail(rw, http.StatusNotFound, "this network has no "+name)
			return
		}
		what := ""
		if key != "" {
			if what = r.URL.Query().Get(key); what == "" {
				page.Fail(rw, http.StatusBadRequest, "say which "+key)
				return
			}
		}
		if !taken(w.acts, rw) {
			return
		}
		defer func() { <-w.acts }()
		if err := do(what); err != nil {
			page.Fail(rw, http.StatusConflict, story.Words(err))
			return
		}
		w.log.Info("asked by the window", "action", name, key, what)
		answer(rw, map[string]string{"done": name})
	})
}
