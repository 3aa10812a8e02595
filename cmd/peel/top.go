package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peel/cell/contain"
	"peel/cmd/peel/internal/admin"
	"peel/cmd/peel/internal/page"
	"peel/cmd/peel/internal/window"
	"peel/testnet/story"
)

// mostStory bounds what top reads of a window.
const mostStory = 64 << 20

func topCommand() *cobra.Command {
	var dir string
	var once bool
	c := &cobra.Command{
		Use: "top [ADDRESS]", Short: "Show a running test network on the terminal", Args: cobra.MaximumNArgs(1),
		Long: `Shows what the window of a running "peel testnet" shows, on the terminal: nodes, circuits, the directory and events, once a second. q ends it.
Without an ADDRESS it finds the network of this user that was started last, or the one in --dir. Where the output is no terminal, or with --once, it
prints one table.`,
		Example: "  peel testnet top\n  peel testnet top --once\n  peel testnet top http://127.0.0.1:43210/#token=...",
		RunE: func(c *cobra.Command, args []string) error {
			var places []string
			switch {
			case len(args) > 0:
				places = args
			case dir != "":
				text, err := os.ReadFile(filepath.Join(dir, windowFile))
				if err != nil {
					return fmt.Errorf("%w: is a peel testnet running with this folder, and with a window?", err)
				}
				places = []string{strings.TrimSpace(string(text))}
			default:
				places = windowsOfOurs(os.TempDir())
			}
			return top(c.Context(), c.InOrStdin(), c.OutOrStdout(), places, once)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "`folder` of the test network (peel testnet --dir)")
	c.Flags().BoolVar(&once, "once", false, "print one table and end")
	return c
}

// windowsOfOurs are the addresses of the windows of this user's test networks, the newest first.
func windowsOfOurs(temp string) (places []string) {
	files, _ := filepath.Glob(filepath.Join(temp, "peel-testnet-*", windowFile))
	times := map[string]time.Time{}
	for _, f := range files {
		if st, err := os.Lstat(f); err == nil && st.Mode().IsRegular() && admin.OwnedByUs(st) {
			times[f] = st.ModTime()
		}
	}
	files = slices.DeleteFunc(files, func(f string) bool { return times[f].IsZero() })
	slices.SortFunc(files, func(a, b string) int { return times[b].Compare(times[a]) })
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil {
			places = append(places, strings.TrimSpace(string(text)))
		}
	}
	return places
}

// looker asks a window.
type looker struct {
	at, token string
	http      http.Client
}

// newLooker reads the address of a window, which must be one of this machine: nobody else gets the token.
func newLooker(link string) (*looker, error) {
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "http" || !strings.HasPrefix(u.Fragment, "token=") {
		return nil, &usageError{errors.New("the address of a window is http://127.0.0.1:PORT/#token=TOKEN, as peel testnet prints it")}
	}
	if err := page.CheckListen(u.Host); err != nil {
		return nil, &usageError{err}
	}
	l := &looker{at: "http://" + u.Host + "/story", token: strings.TrimPrefix(u.Fragment, "token=")}
	l.http.Timeout = 10 * time.Second
	l.http.Transport = &http.Transport{DisableKeepAlives: true} // no proxy: the token is for this machine alone
	l.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return l, nil
}

func (l *looker) look(ctx context.Context) (v story.Snapshot, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.at, nil)
	if err != nil {
		return v, err
	}
	r.Header.Set("Authorization", "Bearer "+l.token)
	a, err := l.http.Do(r)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return v, fmt.Errorf("no test network answers at %s any more", r.URL.Host)
	}
	if err != nil {
		return v, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(io.LimitReader(a.Body, mostStory))
	if err != nil {
		return v, err
	}
	if a.StatusCode != http.StatusOK {
		return v, about(l.at, "%s", a.Status)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return v, about(l.at, "%w", err)
	}
	return v, nil
}

// top shows the first of the windows that answers.
func top(ctx context.Context, in io.Reader, out io.Writer, places []string, once bool) error {
	var l *looker
	var v story.Snapshot
	failed := errors.New("no test network with a window was found: start one with peel testnet, or give the address that it printed")
	for _, place := range places {
		try, err := newLooker(place)
		if err != nil {
			failed = err
			continue
		}
		if v, err = try.look(ctx); err == nil {
			l = try
			break
		}
		failed = err
	}
	if l == nil {
		return failed
	}
	screen, ok := out.(*os.File)
	if !ok || once || !term.IsTerminal(int(screen.Fd())) {
		return window.Top(out, v, window.View{})
	}
	return topLive(ctx, in, screen, l, v)
}

// topLive draws once a second until q, Ctrl-C or the end of the network.
func topLive(ctx context.Context, in io.Reader, screen *os.File, l *looker, v story.Snapshot) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if keys, ok := in.(*os.File); ok && term.IsTerminal(int(keys.Fd())) {
		old, err := term.MakeRaw(int(keys.Fd()))
		if err != nil {
			return err
		}
		defer term.Restore(int(keys.Fd()), old)
		contain.Go(func(*contain.Panic) { cancel() }, func() { // ends with the program: a read of a terminal cannot be ended
			for b := make([]byte, 1); ; {
				n, err := keys.Read(b)
				if err != nil || n == 1 && (b[0] == 'q' || b[0] == 'Q' || b[0] == 3) {
					cancel()
					return
				}
			}
		})
	}
	io.WriteString(screen, "\x1b[?1049h\x1b[?25l")       // another screen, no cursor
	defer io.WriteString(screen, "\x1b[?25h\x1b[?1049l") // and back
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	_, plain := os.LookupEnv("NO_COLOR")
	for {
		width, height, err := term.GetSize(int(screen.Fd()))
		if err != nil {
			return err
		}
		b := bytes.NewBufferString("\x1b[H")
		if err := window.Top(b, v, window.View{Width: width, Height: max(1, height), Colour: !plain}); err != nil {
			return err
		}
		if _, err := b.WriteTo(screen); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if v, err = l.look(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the network has ended: %w", err)
		}
	}
}
