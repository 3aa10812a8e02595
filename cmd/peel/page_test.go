package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"peel/cmd/peel/internal/admin"
	"peel/testnet/browser"
)

// Each kind of node has a page that shows all its parts. PEEL_SCREENSHOT names a folder to keep what was drawn.
func TestInABrowserEveryKindOfNodeHasAPage(t *testing.T) {
	if os.Getenv("PEEL_SLOW") != "1" {
		t.Skip("slow: PEEL_SLOW=1 runs it")
	}
	b := browser.Start(t)
	dir, err := os.MkdirTemp("", "peel") // short: the path of a socket has a bound
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	all := windowsOf(t, func(kind string) admin.Config {
		nickname := map[string]string{"relay": "Fennel", "authority": "Boss"}[kind]
		return admin.Config{Kind: kind, Nickname: nickname, Version: version(), Dir: filepath.Join(dir, kind), Listen: "127.0.0.1:0"}
	})
	for kind, s := range all {
		t.Run(kind, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}()
			a, err := admin.NewAsker(admin.Find(filepath.Join(dir, kind)))
			if err != nil {
				t.Fatal(err)
			}
			link, err := a.PageLink(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if u, err := url.Parse(link); err != nil || !strings.HasPrefix(u.Host, "127.0.0.1:") {
				t.Fatalf("the page is at %v: %v", u.Host, err)
			}
			p := b.Open(t, link, browser.View{Width: 390, Height: 844})
			parts := map[string]string{"relay": "What it offers", "authority": "Authority", "client": "Guards"}[kind]
			title := map[string]string{"relay": "Fennel, a Peel relay", "authority": "Boss, a Peel authority", "client": "Peel client at 127.0.0.1:"}[kind]
			p.Until(t.Context(), `document.title.includes("`+title+`") && document.querySelector("main").innerText.includes("`+parts+`")`)
			var over int
			if err := p.Eval("document.documentElement.scrollWidth - innerWidth", &over); err != nil || over > 0 {
				t.Errorf("%d pixels wider than the screen: %v", over, err)
			}
			if to := os.Getenv("PEEL_SCREENSHOT"); to != "" {
				text, _ := p.Draw()
				if err := os.WriteFile(filepath.Join(to, kind+".png"), text, 0o600); err != nil {
					t.Error(err)
				}
			}
			if c := p.Complaints(); len(c) > 0 {
				t.Errorf("the browser complains:\n%s", strings.Join(c, "\n"))
			}
		})
	}
}

// The verb prints the address of the page, or shows it itself for as long as it runs.
func TestStatusPrintsWhereThePageIs(t *testing.T) {
	for name, listen := range map[string]string{"a node with an address": "127.0.0.1:0", "a node without": ""} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "peel") // short: the path of a socket has a bound
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			s, err := admin.Open(admin.Config{Kind: "relay", Dir: dir, Listen: listen})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			wg.Go(func() {
				if err := s.Run(ctx); err != nil {
					t.Error(err)
				}
			})
			c := statusCommand()
			from, to := io.Pipe()
			c.SetOut(to)
			c.SetErr(io.Discard)
			c.SetArgs([]string{"--dir", dir, "--page"})
			wg.Go(func() {
				if err := c.ExecuteContext(ctx); err != nil {
					t.Error(err)
				}
				to.Close()
			})
			line, err := bufio.NewReader(from).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			at, token, ok := strings.Cut(strings.TrimSpace(line), "#token=")
			if !ok || !strings.HasPrefix(at, "http://127.0.0.1:") {
				t.Fatalf("%d bytes were printed that are no address of a page", len(line))
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at+"status", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			r.Close = true
			w, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Body.Close()
			if text, err := io.ReadAll(w.Body); err != nil || w.StatusCode != http.StatusOK || !strings.Contains(string(text), `"kind": "relay"`) {
				t.Errorf("%s: %s, %v", w.Status, text, err)
			}
		})
	}
}
