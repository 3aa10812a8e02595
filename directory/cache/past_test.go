package cache

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

// A history is what a network said period after period.
type history struct {
	*dirtest.Net
	all   []*directory.Consensus
	texts [][]byte
}

func newHistory(t *testing.T, relays, periods int, at time.Time) *history {
	t.Helper()
	h := &history{Net: dirtest.New(1, relays, dirtest.At(at))}
	c, text := h.Consensus, h.Text
	for i := range periods {
		h.all, h.texts = append(h.all, c), append(h.texts, text)
		c, text = h.Churn(uint64(i), c, 1e-9) // one relay leaves, one joins, one changes
	}
	return h
}

// put gives a cache the first so many periods.
func (h *history) put(t *testing.T, c *Cache, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if changed, err := c.Put(h.texts[i], h.all[i].ValidAfter); !changed || err != nil {
			t.Fatalf("period %d: %v, %v", i, changed, err)
		}
	}
}

// ask asks a handler.
func ask(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestADiffFromEachOfTheLastThreeDays(t *testing.T) {
	h := newHistory(t, 90, 80, dirtest.ValidAfter)
	for _, dir := range []string{"", t.TempDir()} {
		c := serving(t, h.Net, dir)
		h.put(t, c, 0, 80)
		for _, i := range []int{0, 6, 7, 8, 40, 78, 79} {
			base := h.all[i]
			w := ask(c, pathDiff+base.Header.Digest().String(), "Accept-Encoding", "gzip")
			if i < 7 || i == 79 { // more than 72 hours before the newest, or the newest
				if w.Code != http.StatusNotFound {
					t.Errorf("from period %d: status %d", i, w.Code)
				}
				continue
			}
			text, err := gunzip(w.Body, directory.MaxConsensus)
			if err != nil {
				t.Fatalf("from period %d: status %d, %v", i, w.Code, err)
			}
			d, err := directory.ParseDiff(text)
			if err != nil {
				t.Fatalf("from period %d: %v", i, err)
			}
			got, err := d.Apply(base)
			if err != nil || !bytes.Equal(got.Append(nil), h.texts[79]) {
				t.Fatalf("from period %d: %v", i, err)
			}
		}
		if w := ask(c, pathDiff+strings.Repeat("0", 64), "Accept-Encoding", "gzip"); w.Code != http.StatusNotFound {
			t.Errorf("from nowhere: status %d", w.Code)
		}
		if w := ask(c, pathDiff+"x"); w.Code != http.StatusBadRequest {
			t.Errorf("from nonsense: status %d", w.Code)
		}
	}
}

func TestPastConsensusesAreBoundedInBytes(t *testing.T) {
	h := newHistory(t, 20, 30, dirtest.ValidAfter)
	for _, dir := range []string{"", t.TempDir()} {
		c, err := New(Config{Network: h.Network, Dir: dir, Past: 50_000})
		if err != nil {
			t.Fatal(err)
		}
		h.put(t, c, 0, 30)
		n := 0
		for i, base := range h.all[:29] {
			if ask(c, pathDiff+base.Header.Digest().String(), "Accept-Encoding", "gzip").Code == http.StatusOK {
				n++
			} else if n > 0 {
				t.Errorf("period %d is forgotten, an older one is not", i)
			}
		}
		if n < 5 || n > 20 || c.past.size > 50_000 {
			t.Errorf("%d of 29 are kept, %d bytes", n, c.past.size)
		}
		if dir == "" {
			continue
		}
		var size int64
		files, err := filepath.Glob(filepath.Join(dir, "past", "*"))
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			size += info.Size()
		}
		if err != nil || size > 50_000 || len(files) != n+1 {
			t.Errorf("%d files of %d bytes, %v", len(files), size, err)
		}
	}
}

func TestTheNextStartStillHasThePast(t *testing.T) {
	h := newHistory(t, 20, 4, time.Now().Add(-3*time.Hour).Truncate(time.Second))
	dir := t.TempDir()
	h.put(t, serving(t, h.Net, dir), 0, 4)
	leftover := filepath.Join(dir, "past", ".1-a.gz.peel-1234")
	if err := os.WriteFile(leftover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	paths := func(i int) string { return pathDiff + h.all[i].Header.Digest().String() }
	name := func(i int) string {
		it := item{digest: h.all[i].Header.Digest(), validAfter: h.all[i].ValidAfter}
		return filepath.Join(dir, "past", it.name())
	}
	again := serving(t, h.Net, dir)
	if w := ask(again, paths(1), "Accept-Encoding", "gzip"); w.Code != http.StatusOK {
		t.Errorf("after a start: status %d", w.Code)
	}
	if _, err := os.Stat(leftover); err == nil {
		t.Error("what a crash left was not removed")
	}
	// What the disk has spoilt is not handed out.
	whole, err := os.ReadFile(name(0))
	if err != nil {
		t.Fatal(err)
	}
	for _, spoilt := range [][]byte{nil, whole[:len(whole)/2], append(bytes.Clone(whole), 0), zeros(directory.MaxConsensus + 1)} {
		if err := os.WriteFile(name(0), spoilt, 0o600); err != nil {
			t.Fatal(err)
		}
		if w := ask(again, paths(0), "Accept-Encoding", "gzip"); w.Code != http.StatusNotFound {
			t.Errorf("a spoilt file of %d bytes: status %d", len(spoilt), w.Code)
		}
	}
	other, err := os.ReadFile(name(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name(0), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if w := ask(again, paths(0), "Accept-Encoding", "gzip"); w.Code != http.StatusNotFound {
		t.Errorf("another consensus in its file: status %d", w.Code)
	}
}

// All who ask for a diff at once get the one that is made for the first of them.
func TestADiffIsMadeOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory(t, 20, 2, time.Now())
		c := serving(t, h.Net, "")
		h.put(t, c, 0, 2)
		c.past.making <- struct{}{} // nothing can be made for now
		k, base := c.kept.Load(), h.all[0].Header.Digest()
		got := make([][]byte, 50)
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() {
				var err error
				if got[i], err = c.past.diff(context.Background(), base, k); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if len(c.past.diffs) != 1 {
			t.Errorf("%d diffs are being made", len(c.past.diffs))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.past.diff(ctx, base, k); !errors.Is(err, context.Canceled) {
			t.Errorf("one who has gone: %v", err)
		}
		<-c.past.making
		wg.Wait()
		for _, z := range got {
			if &z[0] != &got[0][0] {
				t.Fatal("a second diff was made")
			}
		}
		if c.past.total != len(got[0]) {
			t.Errorf("%d bytes are counted of %d", c.past.total, len(got[0]))
		}
		// A new consensus makes it useless.
		next := newHistory(t, 20, 3, h.all[0].ValidAfter)
		next.put(t, c, 2, 3)
		if len(c.past.diffs) != 0 || len(c.past.order) != 0 || c.past.total != 0 {
			t.Errorf("kept: %d diffs, %d in order, %d bytes", len(c.past.diffs), len(c.past.order), c.past.total)
		}
	})
}

func TestMadeDiffsAreBoundedInBytes(t *testing.T) {
	c := serving(t, dirtest.New(1, 3), "")
	p := c.past
	for i := range byte(40) {
		s := span{base: directory.Digest{i}}
		d := &diff{done: make(chan struct{}), gzip: make([]byte, 1<<20)}
		p.diffs[s], p.order = d, append(p.order, s)
		p.mu.Lock()
		p.account(s, d)
		p.mu.Unlock()
	}
	if p.total != mostDiffs || len(p.diffs) != mostDiffs>>20 || p.diffs[span{base: directory.Digest{39}}] == nil {
		t.Errorf("%d bytes in %d diffs", p.total, len(p.diffs))
	}
}

func TestAClientAsksForWhatHasChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory(t, 50, 6, time.Now())
		server, dir := serving(t, h.Net, ""), t.TempDir()
		client := open(t, h.Net, dir)
		var asked []string
		var sent int
		dial := to(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, pathDiff) {
				asked = append(asked, "diff")
			} else {
				asked = append(asked, strings.TrimPrefix(r.URL.Path, "/peel/"))
			}
			rec := httptest.NewRecorder()
			server.ServeHTTP(rec, r)
			sent = rec.Body.Len()
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			w.Write(rec.Body.Bytes())
		}))
		fetch := func(want string) {
			t.Helper()
			asked = nil
			changed, err := client.Fetch(t.Context(), dial)
			if got := strings.Join(asked, " "); err != nil || got != want {
				t.Fatalf("asked for %q, want %q: %v, %v", got, want, changed, err)
			}
		}
		h.put(t, server, 0, 1)
		fetch("consensus")
		whole := sent
		fetch("diff") // not modified
		for i := 1; i < 6; i++ {
			time.Sleep(time.Hour)
			h.put(t, server, i, i+1)
			if i%2 == 0 {
				continue // it sleeps for a period now and then
			}
			fetch("diff")
			if sent > whole*2/3 {
				t.Errorf("the diff has %d bytes, the whole %d", sent, whole)
			}
			if !bytes.Equal(client.Consensus().Append(nil), h.texts[i]) {
				t.Fatal("another text")
			}
			kept, err := os.ReadFile(filepath.Join(dir, fileName))
			if err != nil || !bytes.Equal(kept, h.texts[i]) {
				t.Fatalf("another text in its folder: %v", err)
			}
		}
	})
}

func TestAClientTakesTheWholeWhenTheDiffIsOfNoUse(t *testing.T) {
	h := newHistory(t, 20, 3, time.Now().Add(-2*time.Hour).Truncate(time.Second))
	good, err := directory.MakeDiff(h.texts[0], h.texts[2])
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := directory.MakeDiff(h.texts[1], h.texts[2])
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"not there":         nil,
		"garbage":           []byte("garbage\n"),
		"cut off":           good[:len(good)-1],
		"of another base":   elsewhere,
		"to another root":   bytes.Replace(good, []byte("\ndrop "), []byte("\ndrop 0\ndrop "), 1),
		"without signature": bytes.Replace(good, []byte("header-signature "), []byte("header-signature A"), 1),
	} {
		client, server := open(t, h.Net, ""), open(t, h.Net, "")
		h.put(t, client, 0, 1)
		h.put(t, server, 2, 3)
		changed, err := client.Fetch(t.Context(), to(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, pathDiff) && text != nil {
				w.Write(text)
				return
			}
			server.ServeHTTP(w, r)
		})))
		if !changed || err != nil || !bytes.Equal(client.Consensus().Append(nil), h.texts[2]) {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
	}
}

func TestSingleRelaysAreFetchedWithProofs(t *testing.T) {
	h := newHistory(t, 50, 3, time.Now().Add(-2*time.Hour).Truncate(time.Second))
	server := serving(t, h.Net, "")
	h.put(t, server, 0, 2)
	ctx := t.Context()
	head, err := Header(ctx, to(server), h.Network)
	if err != nil || head.Header.Digest() != h.all[1].Header.Digest() {
		t.Fatalf("the header: %v", err)
	}
	there, gone := h.all[1].Entries[7], h.all[1].Entries[20].ID
	gone[31]++
	ids := []cell.NodeID{gone, there.ID}
	got, err := Relays(ctx, to(server), &head.Header, ids...)
	if err != nil || got[0] != nil || got[1] == nil || !bytes.Equal(got[1].Append(nil), there.Append(nil)) {
		t.Fatalf("%v, %v", got, err)
	}
	h.put(t, server, 2, 3)
	if _, err := Relays(ctx, to(server), &head.Header, ids...); err != nil {
		t.Errorf("of the consensus before: %v", err)
	}
	var status *StatusError
	if _, err := Relays(ctx, to(server), &h.all[0].Header, ids...); !errors.As(err, &status) || status.Code != 404 {
		t.Errorf("of one before that: %v", err)
	}
	if _, err := Relays(ctx, to(server), &head.Header, make([]cell.NodeID, directory.MaxAsked+1)...); err == nil {
		t.Error("too many at a time")
	}
	path := pathRelays + head.Header.Digest().String() + "/"
	for _, bad := range []string{"", "x", strings.Repeat(gone.String()+"+", directory.MaxAsked) + gone.String()} {
		if w := ask(server, path+bad); w.Code != http.StatusBadRequest {
			t.Errorf("asked for %.60q: status %d", bad, w.Code)
		}
	}
	// One that lies is found out.
	liar := serving(t, h.Net, "")
	forged := h.all[1]
	forged.Entries[7].OnionKey[0]++
	liar.kept.Store(keep(forged))
	if _, err := Relays(ctx, to(liar), &head.Header, there.ID); !errors.Is(err, directory.ErrRoot) {
		t.Errorf("a forged entry: %v", err)
	}
	if _, err := Relays(ctx, func(context.Context) (net.Conn, error) { return nil, net.ErrClosed }, &head.Header, there.ID); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
