package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"peel/cell"
	"peel/circuit"
	"peel/circuit/stream"
	"peel/client/guard"
	"peel/client/path"
	"peel/directory"
)

const (
	guardsKept  = time.Hour // between writes of what is counted only
	guardsTried = 20        // guards that a path is sought with
)

// GuardsFile is the name of the file, in a client's folder, that holds its guards for a network (spec/guard.md, section 5).
func GuardsFile(id cell.NetworkID) string { return "guards-" + id.String()[:16] + ".toml" }

// guardFile is where a client's guards are kept.
type guardFile struct {
	name    string // "": nowhere
	turn    chan struct{}
	written []byte    // by whom has the turn
	next    time.Time // when it is to be written at the latest; under the pool's mu
}

// loadGuards reads the guards of earlier runs. A file that is broken is put aside and told of, so that new guards are
// never chosen in silence.
func loadGuards(dir string, id cell.NetworkID) (*guard.Set, *guardFile, error) {
	f := &guardFile{turn: make(chan struct{}, 1)}
	if dir == "" {
		return guard.New(id), f, nil
	}
	f.name = filepath.Join(dir, GuardsFile(id))
	text, err := readGuards(f.name)
	if errors.Is(err, fs.ErrNotExist) {
		return guard.New(id), f, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("client: the guards of earlier runs cannot be read: %w", err)
	}
	set, err := guard.Parse(text, id)
	switch {
	case err == nil:
		f.written = text
		return set, f, nil
	case errors.Is(err, guard.ErrNewer), errors.Is(err, guard.ErrForeign):
		return nil, nil, fmt.Errorf("client: %s: %w: give the client a folder of its own, or move the file away; then it chooses new guards", f.name, err)
	}
	aside, err2 := putAside(f.name)
	if err2 != nil {
		return nil, nil, fmt.Errorf("client: %s: %w; it could not be put aside (%v): do that, or put a good copy in its place", f.name, err, err2)
	}
	return nil, nil, fmt.Errorf("client: %s is broken and was renamed to %s: %w. Put a good copy in its place; or start again, and new guards are chosen, which is a risk to take seldom (spec/guard.md)", f.name, filepath.Base(aside), err)
}

func readGuards(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > 2*guard.MaxFile:
		return nil, fmt.Errorf("%s: not a file of at most %d bytes", name, guard.MaxFile)
	}
	return os.ReadFile(name)
}

// putAside renames a file to one that is not there yet.
func putAside(name string) (string, error) {
	for i := 1; i < 1000; i++ {
		aside := fmt.Sprintf("%s.broken-%d", name, i)
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			return aside, os.Rename(name, aside)
		}
	}
	return "", errors.New("there are too many broken ones: look why")
}

// keepGuards writes the guards to disk if they are not there as they are now. It may be called from any goroutine that
// holds no lock.
func (p *pool) keepGuards() {
	f := p.guardFile
	if f.name == "" {
		return
	}
	f.turn <- struct{}{} // one after the other, so that the last to write has the newest
	defer func() { <-f.turn }()
	text := p.encodeGuards()
	if bytes.Equal(text, f.written) {
		return
	}
	if err := p.core.write(f.name, text); err != nil {
		p.core.log.Warn("the guards could not be kept for the next start: it would choose others", "why", err)
		p.mu.Lock()
		f.next = time.Now().Add(time.Minute)
		p.mu.Unlock()
		return
	}
	f.written = text
}

// encodeGuards is the guards as they are written.
func (p *pool) encodeGuards() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.guards.Encode()
}

// tendGuards writes what has changed, at once if it matters.
func (p *pool) tendGuards(now time.Time) {
	if p.guardsDue(now) {
		p.keepGuards()
	}
}

// guardsDue says whether the guards are to be written now.
func (p *pool) guardsDue(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := p.guards.Changed() || !now.Before(p.guardFile.next)
	if due {
		p.guardFile.next = now.Add(guardsKept)
	}
	return due
}

// updateGuards makes the guards follow a consensus; they are on disk before any that was drawn is used.
func (p *pool) updateGuards(x *path.Index) {
	if p.drawGuards(x, during(x.Consensus(), p.core.cfg.Now())) {
		p.core.log.Warn("no guard is left that the configuration allows: excluded ones are used, as it says they may")
	}
	p.keepGuards()
}

// during is now, or, where no consensus may be used by that as the clock is wrong, the time that is next to it of those by which this one may.
func during(d *directory.Consensus, now time.Time) time.Time {
	if first := d.ValidAfter.Add(-directory.MaxSkew); now.Before(first) {
		return first
	}
	if last := d.ValidUntil.Add(directory.Grace); now.After(last) {
		return last
	}
	return now
}

// drawGuards has the guards follow a consensus, and says whether that took excluded ones.
func (p *pool) drawGuards(x *path.Index, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, lenient := range []bool{false, true} {
		guards := x.Guards(lenient)
		relays, excluded := make([]guard.Relay, len(guards)), map[cell.NodeID]bool{}
		for i, g := range guards {
			relays[i] = guard.Relay{ID: g.ID, Weight: g.Weight}
			if g.Excluded {
				excluded[g.ID] = true
			}
		}
		p.guards.Update(guard.NewList(relays), func(id cell.NodeID) bool { return !excluded[id] }, now, p.core.chance.guards)
		if _, err := p.guards.Pick(nil, now); err == nil {
			return lenient
		}
	}
	return false
}

// choose draws a path that begins with the guard to be used now. not would not do as exits. The guards that no path can
// begin with come back as well. The caller holds mu.
func (p *pool) choose(r *relays, u path.Usage, not []cell.NodeID, now time.Time) (path.Path, map[cell.NodeID]bool, error) {
	var skipped map[cell.NodeID]bool
	skip := func(id cell.NodeID) bool { return skipped[id] }
	var last error
	for range guardsTried {
		g, err := p.guards.Pick(skip, p.core.cfg.Now())
		if err != nil {
			if last == nil {
				last = err
			}
			break
		}
		u.Guard = g
		way, err := p.faults.choose(r, u, not, now, p.core.chance.paths)
		if err == nil || !errors.Is(err, path.ErrGuard) {
			return way, skipped, err
		}
		if last == nil {
			last = err
		}
		if skipped == nil {
			skipped = map[cell.NodeID]bool{}
		}
		skipped[g] = true
	}
	return nil, nil, last
}

// errBetter is why a circuit that was built is not used.
var errBetter = errors.New("client: a guard that is preferred is to be tried again first")

// guardBuilt tells the guards of a circuit that was built; it fails if that is not to be used. The caller holds mu.
func (p *pool) guardBuilt(h *held) error {
	id := h.path[0].ID
	delete(p.cut, id)
	err := p.guardServes(h)
	p.guards.Note(id, true, true, false, false)
	p.warn(id)
	return err
}

// guardServes tells the guards that one answers; it fails if others are to be tried first. The caller holds mu.
func (p *pool) guardServes(h *held) error {
	skip := func(id cell.NodeID) bool { return h.skipped[id] }
	if p.guards.Succeeded(h.path[0].ID, skip, p.core.cfg.Now(), p.core.chance.guards) == guard.Better {
		return errBetter
	}
	return nil
}

// guardFailed tells the guards of a circuit that could not be built. The caller holds mu.
func (p *pool) guardFailed(h *held, err error, now time.Time) {
	var at *circuit.BuildError
	id := h.path[0].ID
	switch {
	case !errors.As(err, &at): // it was built, and carried nothing
		p.guards.Note(id, true, true, false, false)
		if p.cutOff(id, err) {
			break
		}
		p.judge(h.path, guard.Built, now)
		p.judge(h.path, guard.Broken, now)
	case at.Hop == 0:
		p.guards.Failed(id, p.core.cfg.Now(), p.core.chance.guards)
	default:
		p.guards.Note(id, true, false, false, false)
		if p.cutOff(id, err) {
			break
		}
		p.judge(h.path, unbuilt(at.Hop), now)
		p.askGuard(h.path, now)
	}
	p.warn(id)
}

// cutOff says whether a circuit that was begun at a guard failed since its link was lost. That puts no guard in doubt, for others can cut a
// link; but where it happens again before any circuit has come about, others are tried first, as if there had been no link. The caller holds mu.
func (p *pool) cutOff(id cell.NodeID, err error) bool {
	if !linkLost(err) {
		return false
	}
	if p.cut[id] {
		p.guards.Failed(id, p.core.cfg.Now(), p.core.chance.guards)
	}
	p.cut[id] = true
	return true
}

// unbuilt is the outcome of a circuit that failed at a hop after the first.
func unbuilt(hop int) guard.Outcome {
	if hop == 1 {
		return guard.NotExtended
	}
	return guard.NotBuilt
}

// carried notes what the first stream of a circuit came to, and that a later one was not answered.
func (p *pool) carried(h *held, err error) {
	var end *stream.EndError
	yes, now := err == nil || errors.As(err, &end), time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(h.path) == 0 {
		return
	}
	p.speaks(h, yes, errors.Is(err, context.DeadlineExceeded), now)
	if h.noted {
		return
	}
	h.noted = true
	p.guards.Note(h.path[0].ID, false, false, true, yes)
	p.warn(h.path[0].ID)
}

// warn says when too many circuits of a guard fail. The caller holds mu.
func (p *pool) warn(id cell.NodeID) {
	switch text, serious := p.guards.Warning(id); {
	case text == "":
	case serious:
		p.core.log.Warn("many circuits through a guard fail: it is overloaded, or drops those that it does not like", "counted", text)
	default:
		p.core.log.Info("more circuits through a guard fail than usual", "counted", text)
	}
}

// GuardInfo describes one guard of a client.
type GuardInfo struct {
	guard.Info
	Nickname string // as the consensus has it; "": it is not in there
}

// Guards lists the client's guards, the preferred ones first. There are none before there is a consensus.
func (c *Client) Guards() []GuardInfo {
	c.pool.mu.Lock()
	infos := c.pool.guards.List(c.cfg.Now())
	c.pool.mu.Unlock()
	all := make([]GuardInfo, len(infos))
	r := c.pool.relays.Load()
	for i, g := range infos {
		all[i].Info = g
		if r != nil {
			all[i].Nickname = r.index.Nickname(g.ID)
		}
	}
	return all
}
