package authority

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"peel/cell"
	"peel/directory"
)

// A reader is a request whose body is being read.
type reader struct {
	by   source
	stop func() // ends the reading; it does not wait
	lost bool   // its place went to another
}

// source is whom places are shared by: the link key that was proved, and the network that calls.
type source struct {
	key cell.Key
	net netip.Prefix
}

func sourceOf(r *http.Request) source {
	c := CallerOf(r)
	return source{c.Key, directory.SourceOf(c.Addr)}
}

// readers are the places for short requests that are being read. When all are taken, one more takes the place of whoever has been at it for longest, of
// the source with most: a document that is sent at once is read before that, and one that is sent byte by byte keeps nobody out.
type readers struct {
	most int

	mu  sync.Mutex
	all []*reader // the eldest first; guarded by mu
}

// enter takes a place.
func (p *readers) enter(by source, stop func()) *reader {
	me := &reader{by: by, stop: stop}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, me)
	if len(p.all) <= p.most {
		return me
	}
	of := make(map[source]int)
	most := 0
	for _, x := range p.all {
		of[x.by]++
		most = max(most, of[x.by])
	}
	for _, x := range p.all {
		if of[x.by] == most {
			x.lost = true
			p.drop(x)
			x.stop()
			break
		}
	}
	return me
}

// leave gives a place back, if it was kept up to now.
func (p *readers) leave(x *reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !x.lost {
		p.drop(x)
	}
}

func (p *readers) lost(x *reader) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return x.lost
}

// drop forgets a reader. The caller holds mu.
func (p *readers) drop(x *reader) {
	for i := range p.all {
		if p.all[i] == x {
			p.all = append(p.all[:i], p.all[i+1:]...)
			return
		}
	}
}

// whileRead takes a place in which the body of a request is read.
func (p *readers) whileRead(w http.ResponseWriter, r *http.Request) place {
	to := http.NewResponseController(w)
	me := p.enter(sourceOf(r), func() { _ = to.SetReadDeadline(time.Now()) }) // under mu: not after the request is over
	return place{func() { p.leave(me) }, func() bool { return p.lost(me) }}
}
