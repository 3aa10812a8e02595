package authority

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/directory"
)

// askedOf asks a handler as a caller.
func askedOf(ctx context.Context, h http.Handler, method string, who Caller, body string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, PathReach, strings.NewReader(body)).WithContext(WithCaller(ctx, who)))
	return w.Code, strings.TrimSpace(w.Body.String())
}

// An authority looks for the key of whoever asks alone, where a descriptor may say it is, unless a list refuses it, and does not tell what
// else is there.
func TestAnAuthorityTriesOnlyWhoAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lists := filepath.Join(t.TempDir(), "lists")
		if err := os.WriteFile(lists, []byte("[[reject]]\naddress = \"11.66.0.0/16\"\nreason = \"floods\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, 1, 1, 1)
		n := w.nodes[0]
		var at []netip.AddrPort
		n.cfg.Lists = []string{lists}
		n.cfg.Reach = func(_ context.Context, _ *directory.Descriptor, to netip.AddrPort) error {
			at = append(at, to)
			if to.Port() == 22 {
				return errors.New("refused")
			}
			return nil
		}
		a, err := newAuthority(n.cfg, n.keep, true)
		if err != nil {
			t.Fatal(err)
		}
		d := w.net.Relays[0].Descriptor
		me := Caller{netip.MustParseAddr("11.1.0.1"), d.LinkKey}
		ask := func(to string) string {
			q := directory.ReachRequest{ID: d.ID, LinkKey: d.LinkKey, Addr: netip.MustParseAddrPort(to)}
			return string(q.Append(nil))
		}
		for _, c := range []struct {
			name, method string
			who          Caller
			body         string
			code         int
			says         string
			tries        int
		}{
			{"itself", "POST", me, ask("11.1.0.1:9001"), 204, "", 1},
			{"where it is not", "POST", me, ask("11.2.0.1:22"), 424, "not", 1},
			{"another's key", "POST", Caller{me.Addr, cell.Key{1}}, ask("11.1.0.1:9001"), 403, "only the link key", 0},
			{"a client", "POST", Caller{Addr: me.Addr}, ask("11.1.0.1:9001"), 403, "only the link key", 0},
			{"a private address", "POST", me, ask("10.0.0.1:9001"), 403, "does not route", 0},
			{"a rejected address", "POST", me, ask("11.66.0.1:9001"), 403, "floods", 0},
			{"too long", "POST", me, strings.Repeat("x", directory.MaxReach+1), 413, "too large", 0},
			{"malformed", "POST", me, "peel-reach 1\n", 400, "", 0},
			{"another method", "GET", me, "", 405, "POST", 0},
		} {
			at = nil
			code, says := askedOf(t.Context(), a, c.method, c.who, c.body)
			if code != c.code || !strings.Contains(says, c.says) || len(at) != c.tries {
				t.Errorf("%s: %d %q, %d tries", c.name, code, says, len(at))
			}
			time.Sleep(heldAfter)
		}
		a.store.lists.Load().name([]cell.NodeID{{1}})
		if code, _ := askedOf(t.Context(), a, "POST", me, ask("11.1.0.1:9001")); code != 403 {
			t.Errorf("on a network with a list of relays, one that is not on it: %d", code)
		}
	})
}

// One source of callers has two places, for some time after a try too, and all have sixteen at a time.
func TestPlacesForTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := make(chan struct{})
		h := TryFor(func(context.Context, *directory.Descriptor, netip.AddrPort) error { <-under; return nil },
			func(*http.Request, *directory.ReachRequest) error { return nil }, WhyNot)
		q := directory.ReachRequest{ID: cell.NodeID{1}, LinkKey: cell.Key{1}, Addr: netip.MustParseAddrPort("11.1.0.1:1")}
		ask := func(from ...byte) int {
			a, _ := netip.AddrFromSlice(from)
			code, _ := askedOf(t.Context(), h, "POST", Caller{Addr: a}, string(q.Append(nil)))
			return code
		}
		six := []byte{0x26, 15: 1}
		went := make(chan int, triesAtATime)
		for i := range triesAtATime {
			go func() {
				if i < triesOfOne {
					six := append([]byte(nil), six...)
					six[15] = byte(i) // of the same /64
					went <- ask(six...)
					return
				}
				went <- ask(11, 1, 0, byte(i))
			}()
		}
		synctest.Wait()
		if code := ask(11, 1, 1, 1); code != 503 {
			t.Errorf("the 17th: %d", code)
		}
		close(under)
		for range triesAtATime {
			if code := <-went; code != 204 {
				t.Errorf("one of the first: %d", code)
			}
		}
		if code := ask(11, 1, 1, 1); code != 204 {
			t.Errorf("when they are through: %d", code)
		}
		if code := ask(six...); code != 503 {
			t.Errorf("a third of one source: %d", code)
		}
		time.Sleep(heldAfter)
		if code := ask(six...); code != 204 {
			t.Errorf("a while later: %d", code)
		}
	})
}

// What is remembered of callers is bounded.
func TestHeldPlacesAreBounded(t *testing.T) {
	var k turns
	now := time.Now()
	for i := range mostHeld + 1 {
		of := netip.PrefixFrom(netip.AddrFrom4([4]byte{11, 1, byte(i >> 8), byte(i)}), 32)
		mine := k.take(of, now)
		if (mine == nil) != (i == mostHeld) {
			t.Fatalf("caller %d", i)
		}
		if mine != nil {
			k.give(mine, now.Add(heldAfter))
		}
	}
	if k.take(netip.Prefix{}, now.Add(heldAfter)) == nil || len(k.all) != 1 {
		t.Errorf("%d are left", len(k.all))
	}
}
