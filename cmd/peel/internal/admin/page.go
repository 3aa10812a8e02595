package admin

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"

	"peel/cmd/peel/internal/page"
)

//go:embed page
var pageFiles embed.FS

// newSite is the status page's files.
func newSite() *page.Site {
	own, err := fs.Sub(pageFiles, "page")
	if err == nil {
		var s *page.Site
		if s, err = page.NewSite(own); err == nil {
			return s
		}
	}
	panic(err) // cannot be: the files are in the program
}

// pageRoutes adds the status page.
func (s *Server) pageRoutes() {
	for _, p := range s.site.Paths() {
		if p == "/" {
			p = "/{$}" // and not all below
		}
		s.mux.Handle("GET "+p, s.site)
	}
	// Where the page is, for who asks on the socket: with the token, which is as safe with him as with the file it is in.
	s.mux.HandleFunc("GET /page", func(w http.ResponseWriter, _ *http.Request) {
		link := ""
		for _, l := range s.locals {
			if l.token != "" {
				link = page.Link(l.Addr(), l.token)
			}
		}
		page.Answer(w, http.StatusOK, map[string]string{"link": link})
	})
}

// PageLink asks a node for the address of its status page, with the token; "": the node shows it on its socket alone.
func (a *Asker) PageLink(ctx context.Context) (string, error) {
	text, err := a.Get(ctx, "/page")
	if err != nil {
		return "", err
	}
	var told struct {
		Link string `json:"link"`
	}
	err = json.Unmarshal(text, &told)
	return told.Link, err
}

// readable are the paths that ServePage hands on, beside the page's files: what can be read, and changes nothing.
var readable = []string{"/status", "/history", "/healthz", "/readyz"}

// ServePage shows the status page of the node at the socket on an address of loopback, behind a token of its own, until ctx ends:
// for nodes that listen on their socket alone. Ready is told the address.
func (a *Asker) ServePage(ctx context.Context, listen string, ready func(link string)) error {
	l, hosts, err := page.Listen(listen)
	if err != nil {
		return err
	}
	site := newSite()
	d := page.Door{Hosts: hosts, Token: page.NewToken(), Open: site.Has, Refused: page.Fail}
	ready(page.Link(l.Addr(), d.Token))
	return page.Serve(ctx, l, d.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(readable, r.URL.Path) || r.Method != http.MethodGet {
			site.ServeHTTP(w, r)
			return
		}
		a.handOn(w, r)
	})), nil, slog.New(slog.DiscardHandler))
}

// handOn asks the node what was asked here, and answers what it answers.
func (a *Asker) handOn(w http.ResponseWriter, r *http.Request) {
	ask, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+socketHost+r.URL.Path+"?"+r.URL.RawQuery, nil)
	if err != nil {
		page.Fail(w, http.StatusBadRequest, "this cannot be asked")
		return
	}
	got, err := a.http.Do(ask)
	if err != nil {
		page.Fail(w, http.StatusBadGateway, "the node does not answer: is it running?")
		return
	}
	defer got.Body.Close()
	text, err := readAll(got.Body, mostAnswer)
	if err != nil {
		page.Fail(w, http.StatusBadGateway, "the node's answer broke off")
		return
	}
	w.Header().Set("Content-Type", got.Header.Get("Content-Type"))
	w.WriteHeader(got.StatusCode)
	w.Write(text)
}
