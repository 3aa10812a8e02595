package cache

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"peel/directory"
	"peel/directory/dirtest"
)

// writes keeps what is written to it as it is, as a stream does whose reader takes nothing.
type writes struct {
	head http.Header
	code int
	all  [][]byte
}

func (w *writes) Header() http.Header  { return w.head }
func (w *writes) WriteHeader(code int) { w.code = code }
func (w *writes) Write(b []byte) (int, error) {
	w.all = append(w.all, b)
	return len(b), nil
}

// Thousands may ask for the directory and read nothing: what each of them has held beyond what all share must be small.
func TestReadersWhoReadNothingShareWhatIsHeldForThem(t *testing.T) {
	const most = 4 << 10 // what a stream is counted with is a multiple of this (spec/queues.md, section 6)
	h := newHistory(t, 300, 1, dirtest.ValidAfter)
	next, text := h.Churn(1, h.all[0], 0.5)
	h.all, h.texts = append(h.all, next), append(h.texts, text)
	c := serving(t, h.Net, "")
	h.put(t, c, 0, 2)
	newest := h.all[1]
	gone := make([]string, directory.MaxAsked) // relays that are not there: each takes the two beside it to prove
	for i := range gone {
		id := newest.Entries[9*i].ID
		id[31]++
		gone[i] = id.String()
	}
	for _, path := range []string{
		Path, pathHeader, pathDiff + h.all[0].Header.Digest().String(),
		pathRelays + newest.Header.Digest().String() + "/" + strings.Join(gone, "+"),
	} {
		for _, accept := range []string{"", "gzip"} {
			var seen [2]writes
			sent := 0
			for i := range seen {
				r := httptest.NewRequest("GET", path, nil)
				r.Header.Set("Accept-Encoding", accept)
				seen[i].head = make(http.Header)
				c.ServeHTTP(&seen[i], r)
			}
			for i, b := range seen[0].all {
				sent += len(b)
				if other := seen[1].all[i]; len(b) > most && &other[0] != &b[0] {
					t.Errorf("GET %.40s, accepting %q: %d bytes are held for one reader alone", path, accept, len(b))
				}
			}
			refused := strings.HasPrefix(path, pathDiff) && accept == ""
			if refused != (seen[0].code == http.StatusNotAcceptable) || !refused && path != pathHeader && sent <= 4*most {
				t.Errorf("GET %.40s, accepting %q: status %d, %d bytes", path, accept, seen[0].code, sent)
			}
		}
	}
}
