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
	to, err := r.mayExtend(t.prev, e.To)
	if err != nil {
		return err
	}
	if t.mux.Streams() > 0 {
		return errors.New("relay: EXTEND of a circuit that has streams here")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next != nil || t.growing {
		return errors.New("relay: EXTEND of a circuit that goes on already")
	}
	if t.over {
		return nil
	}
	request := slices.Clone(e.Request)
	t.growing = true
	if !r.start("extend", func(ctx context.Context) { t.dialNext(ctx, to, e.Suite, e.Key, request) }) {
		return errors.New("relay: shutting down")
	}
	return nil
}

// mayExtend says whether a circuit that came from prev may go on to the node named, and how that node is reached: its
// link key is the one in our own directory, never what a client says, and only addresses that stand there are dialled.
func (r *Relay) mayExtend(prev *link.Circ, to cell.LinkSpec) (link.Peer, error) {
	if to.ID == r.id {
		return link.Peer{}, errors.New("relay: EXTEND to this relay itself")
	}
	if id, ok := prev.Conn().PeerID(); ok && id == to.ID {
		return link.Peer{}, errors.New("relay: EXTEND back to the relay it came from")
	}
	known, ok := r.lookup(to.ID)
	if !ok {
		return link.Peer{}, fmt.Errorf("relay: EXTEND to %v, which is not in this relay's directory", to.ID)
	}
	known.Addrs = slices.DeleteFunc(slices.Clone(known.Addrs), func(a netip.AddrPort) bool {
		return !slices.Contains(to.Addrs, a)
	})
	if len(known.Addrs) == 0 {
		return link.Peer{}, fmt.Errorf("relay: EXTEND to %v at addresses that are not its own", to.ID)
	}
	return known, nil
}

// dialNext gets the link to the next relay, opens the circuit on it, and waits for the answer.
func (t *transit) dialNext(ctx context.Context, to link.Peer, suite uint8, key cell.KeyID, request []byte) {
	ctx, cancel := context.WithTimeout(ctx, extendTimeout)
	defer cancel()
	conn, err := t.relay.pool.Get(ctx, to)
	if err == nil {
		err = t.join(conn, suite, key, request)
	}
	if err == nil {
		select {
		case <-t.joined:
			return
		case <-t.done:
			return
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	t.relay.log.Debug("circuit not extended", "to", to.ID, "why", err)
	t.destroy()
}

// join opens the circuit's way on over conn; fromNext hears the rest.
func (t *transit) join(conn *link.Conn, suite uint8, key cell.KeyID, request []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return errDestroyed
	}
	next, err := conn.Open(fromNext{t}, cell.Create{Suite: suite, Key: key, Request: request})
	if err != nil {
		return err
	}
	t.next = next
	return nil
}
