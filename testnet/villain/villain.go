// Package villain is how nodes of a test network misbehave: what a relay does to the cells it sends on, and what a node hands out
// instead of the directory. It is bytes and chance only; relay.Villain puts it to work.
package villain

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
)

const (
	innocent = 24                     // RELAY cells that a link carries before the first misdeed, so that circuits come to be
	seldom   = 20                     // RELAY cells from one misdeed to the next
	pause    = 400 * time.Millisecond // of a script of delays, before each record
	mostKept = 64                     // cells that a script remembers
)

// A Mind is what decides whether, and how, a node misbehaves now. Its methods may be called from any goroutine.
type Mind struct {
	script atomic.Pointer[string]
	seed   uint64
	links  atomic.Uint64
	sleep  func(time.Duration)
	Deeds  atomic.Uint64 // misdeeds so far
}

// NewMind makes an honest one, for Set to corrupt. sleep lets time pass for a node that delays.
func NewMind(seed uint64, sleep func(time.Duration)) *Mind {
	m := &Mind{seed: seed, sleep: sleep}
	m.Set("")
	return m
}

// Set changes the script; "": the node is honest from now on.
func (m *Mind) Set(script string) { m.script.Store(&script) }

// Script is what it does now.
func (m *Mind) Script() string { return *m.script.Load() }

// Cells is relay.Villain.Cells.
func (m *Mind) Cells() func(room []cell.Cell, n int) int {
	l := &bend{mind: m, rng: rand.New(rand.NewPCG(m.seed, m.links.Add(1)))}
	return l.write
}

// bend is what a villain does on one link.
type bend struct {
	mind *Mind
	rng  *rand.Rand
	seen int         // RELAY cells
	kept []cell.Cell // some of those that went by
}

func carried(c *cell.Cell) bool {
	return c.Command() == cell.CmdRelay || c.Command() == cell.CmdRelayEarly
}

// write bends a record: the first n cells of room; it returns how many are sent.
func (l *bend) write(room []cell.Cell, n int) int {
	script := l.mind.Script()
	if script == "" {
		return n
	}
	if script == "delay" {
		if slices.ContainsFunc(room[:n], func(c cell.Cell) bool { return carried(&c) }) {
			l.mind.Deeds.Add(1)
			l.mind.sleep(pause)
		}
		return n
	}
	if script == "reorder" {
		return l.reorder(room, n)
	}
	for i := 0; i < n; i++ {
		c := &room[i]
		if !carried(c) {
			continue
		}
		l.seen++
		if len(l.kept) < mostKept {
			l.kept = append(l.kept, *c)
		}
		if l.seen <= innocent || script != "stall" && l.seen%seldom != 0 {
			continue
		}
		switch script {
		case "tag":
			c.Body()[l.rng.IntN(len(c.Body()))] ^= 1 << l.rng.IntN(8)
		case "drop", "stall":
			copy(room[i:n], room[i+1:n])
			n--
			i--
		case "replay":
			n = add(room, n, l.kept[l.rng.IntN(len(l.kept))])
		case "inject":
			bad := *c
			for j := range bad.Body() {
				bad.Body()[j] = byte(l.rng.Uint32())
			}
			n = add(room, n, bad)
		case "flood":
			same := *c
			for n < len(room) {
				n = add(room, n, same)
			}
			l.mind.Deeds.Add(1)
			return n
		default:
			continue
		}
		l.mind.Deeds.Add(1)
	}
	if n == 0 { // something must be sent
		room[0] = cell.Cell{}
		n = 1
	}
	return n
}

// reorder changes the places of two cells of one circuit.
func (l *bend) reorder(room []cell.Cell, n int) int {
	for i := 1; i < n; i++ {
		a, b := &room[i-1], &room[i]
		if !carried(a) || !carried(b) || a.Circ() != b.Circ() {
			continue
		}
		if l.seen++; l.seen > innocent && l.seen%seldom == 0 {
			*a, *b = *b, *a
			l.mind.Deeds.Add(1)
		}
	}
	return n
}

// add puts a cell behind the others, if there is room.
func add(room []cell.Cell, n int, c cell.Cell) int {
	if n == len(room) {
		return n
	}
	room[n] = c
	return n + 1
}

// Directory is relay.Villain.Directory.
func (m *Mind) Directory(honest http.Handler) http.Handler {
	d := &directory{mind: m, honest: honest}
	return d
}

// directory hands out what a villain wants of it.
type directory struct {
	mind   *Mind
	honest http.Handler
	mu     sync.Mutex
	old    *kept // the first relay list; nil: there was none yet
}

type kept struct {
	status int
	header http.Header
	body   bytes.Buffer
}

// Header, WriteHeader and Write implement http.ResponseWriter.
func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }

func (d *directory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	script := d.mind.Script()
	if r.Method != http.MethodGet && script != "mute" {
		script = ""
	}
	switch script {
	case "mute":
		d.mind.Deeds.Add(1)
		io.Copy(io.Discard, r.Body) // before that the server does not notice when the other end goes away
		<-r.Context().Done()
	case "lie":
		w.Write(d.mind.lie(d.honestly(r)))
	case "stale":
		d.stale(w, r)
	default:
		d.honest.ServeHTTP(w, r)
	}
}

// honestly is what an honest node would hand out whole, and not compressed.
func (d *directory) honestly(r *http.Request) *kept {
	r = r.Clone(r.Context())
	r.Header.Del("Accept-Encoding")
	r.Header.Del("If-None-Match")
	k := &kept{status: http.StatusOK, header: make(http.Header)}
	d.honest.ServeHTTP(k, r)
	return k
}

// lie is handed out instead of an answer: by turns the same list in which the first relay is faster, the same that holds for years longer, so
// that nobody asks for another, and what is no list at all. The signatures are below neither.
func (m *Mind) lie(answer *kept) []byte {
	deed := m.Deeds.Add(1)
	if text := answer.body.Bytes(); answer.status == http.StatusOK && deed%3 != 0 {
		from, to := "\nbandwidth ", "\nbandwidth 9"
		if deed%3 == 2 {
			from, to = "\nvalid-until 2", "\nvalid-until 3"
		}
		return bytes.Replace(text, []byte(from), []byte(to), 1)
	}
	return []byte("peel network status 1\nwhatever\n")
}

// consensusPath is that of the relay list; below it are its parts, and what has changed in it (spec/directory.md, section 9).
const consensusPath = "/peel/consensus"

// stale hands out the first relay list there was, to whoever asks for one or for what has changed; all else as others do.
func (d *directory) stale(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, consensusPath) {
		d.honest.ServeHTTP(w, r)
		return
	}
	if r.URL.Path != consensusPath {
		d.mind.Deeds.Add(1)
		http.Error(w, "take the whole", http.StatusNotFound)
		return
	}
	d.mu.Lock()
	k := d.old
	d.mu.Unlock()
	if k != nil {
		d.mind.Deeds.Add(1)
	} else if k = d.honestly(r); k.status == http.StatusOK {
		d.mu.Lock()
		d.old = k
		d.mu.Unlock()
	}
	for name, values := range k.header {
		w.Header()[name] = values
	}
	w.WriteHeader(k.status)
	w.Write(k.body.Bytes())
}

// Claim is relay.Villain.Observed.
func (m *Mind) Claim(observed uint64) uint64 {
	if m.Script() == "claim" {
		return boast
	}
	return observed
}

// Offer is what a relay with a script offers, bytes a second, that would honestly offer so much.
func Offer(script string, bandwidth uint64) uint64 {
	if script == "boast" || script == "claim" {
		return boast
	}
	return bandwidth
}

const boast = 1_000_000_000
