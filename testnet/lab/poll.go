package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"peel/cell/link"
	"peel/directory"
	"peel/directory/authority"
	"peel/testnet/story"
)

// What is waited for from a process that is asked how it is (spec/queues.md, section 7).
const (
	askTime    = 3 * time.Second  // all its answers of one round; who has given none for as long is shown as silent
	tellTime   = 10 * time.Second // without an answer, before that is told: a busy machine is silent for some seconds as a whole
	lookTime   = time.Second      // the answers of all, before what is known is shown
	mostPage   = 4 << 20          // bytes of one answer
	mostListed = 512              // circuits of one client
)

// look is what is known of a process from outside.
type look struct {
	counts    counts
	consensus *directory.Consensus
	status    *authority.Status
	circuits  []circuitSeen   // of a client, the oldest: mostListed at most
	open      map[uint64]bool // all that it has
}

// circuitSeen is a circuit of a client, as its window shows it.
type circuitSeen struct {
	ID       uint64 `json:"id"`
	Age      int    `json:"age_seconds"`
	Purpose  string `json:"purpose"`
	Closing  bool   `json:"closing"`
	Streams  int    `json:"streams"`
	Sent     uint64 `json:"cells_sent"`
	Received uint64 `json:"cells_received"`
	Path     []struct {
		Nickname string `json:"nickname"`
	} `json:"path"`
}

// refresh asks all processes how they are, all at once, and waits for the answers, but for no more than wait. Who is slower has until askTime, and
// is not asked again meanwhile: there is one goroutine for each process at most, which running waits for.
func (l *Lab) refresh(wait time.Duration) {
	var asking []<-chan struct{}
	for _, p := range l.programs() {
		if c := p.begin(); c != nil {
			asking = append(asking, c)
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	within(t, asking)
}

// settle waits until what is being asked now has been answered, but for no more than wait. What is asked after that tells of all that was before.
func (l *Lab) settle(wait time.Duration) {
	t := time.NewTimer(wait)
	defer t.Stop()
	var asking []<-chan struct{}
	for _, p := range l.programs() {
		p.mu.Lock()
		if p.asking != nil {
			asking = append(asking, p.asking)
		}
		p.mu.Unlock()
	}
	within(t, asking)
}

// within waits for all, but only until the timer ends.
func within(t *time.Timer, all []<-chan struct{}) {
	for _, c := range all {
		select {
		case <-c:
		case <-t.C:
			return
		}
	}
}

// begin has the process asked, if it can answer and is not being asked; the channel is closed when that is done. nil: it cannot answer.
func (p *program) begin() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asking != nil {
		return p.asking
	}
	if p.cmd == nil || p.frozen || p.gone {
		return nil
	}
	done := make(chan struct{})
	p.asking = done
	cmd, seen, age := p.cmd, p.seen, p.age
	p.lab.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(p.lab.ctx), askTime) // how it stood at the end is asked when all else is over
		age, err := p.look(ctx, &seen, age)
		cancel()
		p.mu.Lock()
		news := ""
		if p.cmd == cmd && !p.gone { // else what it said is of one that is gone
			p.seen, p.age = seen, age
			news = p.hearOf(err)
		}
		p.asking = nil
		p.mu.Unlock()
		if news != "" {
			p.lab.say(story.OfNode, p.name, "%s", news)
		}
		close(done)
	})
	return done
}

// hearOf notes whether the process answered; the text says that this has changed. The caller holds mu.
func (p *program) hearOf(err error) (news string) {
	now, state := time.Now(), story.Silent
	switch {
	case err == nil:
		p.heard = now
		if !p.silent {
			return ""
		}
		state = story.Up
		if p.missed {
			p.missed, news = false, "says again how it is"
		}
	case p.heard.IsZero() || p.told || p.frozen || now.Sub(p.heard) < askTime: // it starts, ends, is held up by us, or may just be slow
		return ""
	case !p.missed && now.Sub(p.heard) >= tellTime:
		p.missed = true
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("nothing came for %v", now.Sub(p.heard).Round(time.Second))
		}
		news = story.Sayf("does not say how it is: %v: what is shown of it is old", err)
	}
	p.silent = state == story.Silent
	p.lab.story.Change(p.name, func(n *story.Node) {
		if n.State == story.Up || n.State == story.Silent {
			n.State = state
		}
	})
	return news
}

// look asks what there is to know of the process, for s, and returns of when the consensus in its folder is. The error is of the first page that did not come.
func (p *program) look(ctx context.Context, s *look, age time.Time) (time.Time, error) {
	text, err := p.ask(ctx, "/metrics")
	if err == nil {
		var c counts
		if c, err = metrics(text); err == nil {
			c.again = s.counts.again
			s.counts = c
		}
	}
	if err != nil {
		return age, err
	}
	switch p.on.Role {
	case roleAuthority:
		status := new(authority.Status)
		if err = p.read(ctx, "/authority", status); err == nil {
			s.status = status
		}
	case roleClient:
		var status struct {
			Use struct {
				Again uint64 `json:"asked_again"`
			} `json:"use"`
		}
		if err = p.read(ctx, "/status", &status); err != nil {
			break
		}
		s.counts.again = status.Use.Again
		var page struct {
			Circuits []circuitSeen `json:"circuits"`
		}
		if err = p.read(ctx, "/circuits", &page); err == nil {
			s.circuits = slices.Clone(page.Circuits[:min(len(page.Circuits), mostListed)])
			s.open = make(map[uint64]bool, len(page.Circuits))
			for i := range page.Circuits {
				s.open[page.Circuits[i].ID] = true
			}
		}
	}
	if err != nil {
		return age, err
	}
	if c, at := p.kept(age); c != nil {
		s.consensus, age = c, at
	}
	return age, nil
}

func (p *program) ask(ctx context.Context, page string) ([]byte, error) {
	return p.lab.cfg.Processes.Ask(ctx, p.dir, page, mostPage)
}

// read asks for a page of JSON.
func (p *program) read(ctx context.Context, page string, into any) error {
	text, err := p.ask(ctx, page)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return nil
}

// kept is the consensus that the node keeps in its folder, if it is newer than the file was at a time; nil: it is not.
func (p *program) kept(since time.Time) (*directory.Consensus, time.Time) {
	file := filepath.Join(p.dir, "state", "consensus")
	st, err := os.Stat(file)
	if err != nil || !st.ModTime().After(since) {
		return nil, since
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, since
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, directory.MaxConsensus+1)) // which refuses what is longer
	if err != nil {
		return nil, since
	}
	c, err := directory.ParseConsensus(text)
	if err != nil {
		p.lab.broken("what nodes keep can be read", "%s: %s: %v", p.name, file, err)
		return nil, st.ModTime()
	}
	return c, st.ModTime()
}

// known is what was seen last, and what it counted in all its lives.
func (p *program) known() (look, counts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.past
	all.plus(p.seen.counts)
	return p.seen, all
}

// list is the consensus that it has, as was seen last, and how often it was started; nil: none is known.
func (p *program) list() (*directory.Consensus, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.consensus, p.born
}

// faultLines count links that ended by the other end's fault.
var faultLines = func() map[string]bool {
	all := make(map[string]bool)
	for r := link.ReasonRecord; r <= link.ReasonFlood; r++ {
		all[`peel_links_ended_total{reason="`+r.String()+`"}`] = true
	}
	return all
}()

// metrics reads counts out of a node's metrics, which are rounded down: few breaches are not seen from outside.
func metrics(text []byte) (c counts, err error) {
	err = errors.New("/metrics: none of ours are there")
	for line := range bytes.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		f, wrong := strconv.ParseFloat(value, 64)
		if wrong != nil || !(f >= 0 && f < math.MaxInt64) {
			continue
		}
		if strings.HasPrefix(name, "peel_") {
			err = nil
		}
		switch name {
		case "peel_relay_panics_total", "peel_client_panics_total":
			c.panics = uint64(f)
		case `peel_relay_drops_total{reason="breach"}`:
			c.breaches = uint64(f)
		case "peel_relay_cells_total":
			c.cells = uint64(f)
		case "peel_villain_deeds_total":
			c.deeds = uint64(f)
		}
		if faultLines[name] {
			c.faults += uint64(f)
		}
	}
	return c, err
}
