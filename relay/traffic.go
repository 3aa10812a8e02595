package relay

import (
	"context"
	"io"
	"time"
)

const (
	quotaLook = time.Second // between two looks at what was sent
	quotaSave = time.Minute // between two writes of the file
)

// pausing is whether the relay takes new circuits, in the way of settled: replaced when that changes.
type pausing struct {
	until    time.Time     // zero: it takes them
	replaced chan struct{} // closed when that is no longer so
}

// refusing says that nothing new is taken: the relay is about to end, or its quota is used up.
func (r *Relay) refusing() bool { return r.draining.Load() || !r.pausing.Load().until.IsZero() }

// pause sets until when nothing new is taken; zero: it is.
func (r *Relay) pause(until time.Time) {
	was := r.pausing.Load()
	if was.until.Equal(until) {
		return
	}
	r.pausing.Store(&pausing{until: until, replaced: make(chan struct{})})
	close(was.replaced)
	if until.IsZero() {
		r.log.Info("a new period of the traffic quota: circuits are taken again")
	} else {
		r.log.Warn("the traffic quota is nearly used up: no circuits are taken until the next period", "until", until)
	}
}

// sent is how many bytes the relay has sent since it began, on links and to hosts. As much comes in.
func (r *Relay) sent() uint64 { return r.pool.Stats().BytesOut + r.toHosts.Load() }

// keepQuota counts what is sent, and pauses the relay when that is enough for the period: nothing new is taken, and when all is used
// up what there is ends.
func (r *Relay) keepQuota(ctx context.Context) {
	if r.quota.most == 0 {
		return
	}
	tick := time.NewTicker(quotaLook)
	defer tick.Stop()
	saved := time.Now()
	save := func() {
		saved = time.Now()
		q := r.used()
		if err := q.save(r.write, r.cfg.Dir); err != nil {
			r.log.Error("cannot write how much of the traffic quota is used: after a restart it counts from less", "why", err)
		}
	}
	defer save()
	before := uint64(0) // all counts begin with the relay
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.count(&before, r.cfg.Now())
			return
		}
		r.guard("quota", func() {
			r.count(&before, r.cfg.Now())
			if time.Since(saved) >= quotaSave {
				save()
			}
		})
	}
}

// count adds what was sent since before, and does what follows from it.
func (r *Relay) count(before *uint64, now time.Time) {
	total := r.sent()
	r.quotaMu.Lock()
	r.quota.at(now)
	r.quota.sent += total - *before
	q := r.quota
	r.quotaMu.Unlock()
	*before = total
	r.pause(q.pause())
	if q.spent() {
		for _, t := range r.all() {
			t.destroy()
		}
	}
}

func (r *Relay) used() quota {
	r.quotaMu.Lock()
	defer r.quotaMu.Unlock()
	return r.quota
}

// Traffic is what of a quota is used.
type Traffic struct {
	Sent, Quota uint64    // bytes; Quota 0: there is none
	Ends        time.Time // the period
	Paused      bool      // nothing new is taken until then
}

// Traffic says how much of its quota the relay has used.
func (r *Relay) Traffic() Traffic {
	q := r.used()
	if q.most == 0 {
		return Traffic{}
	}
	return Traffic{q.sent, q.most, q.ends(), !r.pausing.Load().until.IsZero()}
}

// toHost is a connection to a host to which the relay's rate applies.
type toHost struct {
	io.Writer
	relay *Relay
	turn  chan struct{} // of the circuit's streams, one of which waits for the rate at a time, as one of a link does
	stop  <-chan struct{}
}

// turn is what the streams of a circuit take turns by to wait for the relay's rate.
func (t *transit) turn() chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turns == nil {
		t.turns = make(chan struct{}, 1)
	}
	return t.turns
}

// mostAtOnce is what is written to a host at a time, so that others wait no longer for their turn.
const mostAtOnce = 16 << 10

func (w toHost) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		some := p[n:min(len(p), n+mostAtOnce)]
		select {
		case w.turn <- struct{}{}:
			w.relay.linkCfg.Rate.Wait(len(some), w.stop)
			<-w.turn
		case <-w.stop:
		}
		var m int
		m, err = w.Writer.Write(some)
		n += m
		w.relay.toHosts.Add(uint64(m))
	}
	return n, err
}

// shaped is conn as what goes to a host is written to it.
func (r *Relay) shaped(conn io.Writer, t *transit, stop <-chan struct{}) io.Writer {
	if r.quota.most == 0 && !r.linkCfg.Rate.Bounded() {
		return conn // which can take several pieces at once
	}
	return toHost{conn, r, t.turn(), stop}
}

const overloadTime = 72 * time.Hour // for which a descriptor says that there was overload

// overload notes the hour in which, within one look, more than one in a hundred key exchanges found no place.
type overload struct{ done, refused uint64 }

func (o *overload) look(done, refused uint64) bool {
	d, n := done-o.done, refused-o.refused
	o.done, o.refused = done, refused
	return n > 0 && n*100 > d+n
}

// Overloaded is the hour in which the relay was last overloaded; zero: not in the last three days.
func (r *Relay) Overloaded(now time.Time) time.Time {
	hour := time.Unix(r.overloaded.Load(), 0).UTC()
	if hour.Unix() == 0 || now.Sub(hour) > overloadTime {
		return time.Time{}
	}
	return hour
}
