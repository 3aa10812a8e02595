package relay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"peel/cell"
	"peel/cell/link"
)

// extendTimeout is how long the next relay may take to join: its link, if there is none yet, and its CREATED.
const extendTimeout = 10 * time.Second

// extend begins to make the circuit one relay longer. Called by the link's reader, holding fmu: the dialling is done
// elsewhere.
func (t *transit) extend(e cell.Extend) error {
	r := t.relay
	if r.cfg.Directory != nil {
		return errors.New("relay: EXTEND at an authority, where every circuit ends")
	}
	if r.refusing() {
		return errors.New("relay: EXTEND at a relay that takes nothing new")
	}
	if e.To.ID == r.id {
		return errors.New("relay: EXTEND to this relay itself")
	}
	if id, ok := t.prev.Conn().PeerID(); ok && id == e.To.ID {
		return errors.New("relay: EXTEND back to the relay it came from")
	}
	if t.mux.Streams() > 0 {
		return errors.New("relay: EXTEND of a circuit that has streams here")
	}
	if t.grown() {
		return errors.New("relay: EXTEND of a circuit that goes on already")
	}
	peer, ok := r.allow(t.prev.Conn(), ofExtends)
	if !ok {
		return errLimited
	}
	t.mu.Lock()
	t.growing = true
	t.mu.Unlock()
	e.Request = slices.Clone(e.Request)
	if !t.start(r.extensions, newTask("extend", peer, func(ctx context.Context) { t.dialNext(ctx, e) }, func(cell.EndReason) { t.destroy() })) {
		return errors.New("relay: EXTEND of a circuit that has ended, or when too many are being extended")
	}
	return nil
}

// reach says how the node that an EXTEND names is reached: link key and addresses are those in our own directory, never
// what a client says, of whose addresses one must be there too. All of them are dialled, as others may be waiting for the
// same link. A relay that has no directory yet waits for it.
func (r *Relay) reach(ctx context.Context, to cell.LinkSpec) (link.Peer, error) {
	select {
	case <-r.informed:
	case <-ctx.Done():
		return link.Peer{}, errors.New("relay: EXTEND before this relay has a directory")
	}
	known, ok := r.lookup(to.ID)
	if !ok {
		return link.Peer{}, fmt.Errorf("relay: EXTEND to %v, which is not in this relay's directory", to.ID)
	}
	if !slices.ContainsFunc(to.Addrs, func(a netip.AddrPort) bool { return slices.Contains(known.Addrs, a) }) {
		return link.Peer{}, fmt.Errorf("relay: EXTEND to %v at addresses that are not its own", to.ID)
	}
	return known, nil
}

// dialNext gets the link to the next relay, opens the circuit on it, and waits for the answer.
func (t *transit) dialNext(ctx context.Context, e cell.Extend) {
	ctx, cancel := context.WithTimeout(ctx, extendTimeout)
	defer cancel()
	to, err := t.relay.reach(ctx, e.To)
	var conn *link.Conn
	if err == nil {
		conn, err = t.relay.pool.Get(ctx, to)
	}
	if err == nil {
		err = t.join(conn, e)
	}
	if err == nil {
		select {
		case <-t.joined:
			return
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	t.relay.log.Debug("circuit not extended", "to", e.To.ID, "why", err)
	t.destroy()
}

// join opens the circuit's way on over conn; fromNext hears the rest.
func (t *transit) join(conn *link.Conn, e cell.Extend) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return errDestroyed
	}
	next, err := conn.Open(fromNext{t}, cell.Create{Suite: e.Suite, Key: e.Key, Request: e.Request})
	if err != nil {
		return err
	}
	t.next = next
	return nil
}
