package circuit

import (
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/hybrid"
	"peel/circuit/layer"
)

// KeyLabel is what the keys of a hop are expanded under: 80 bytes for the forward layer, 80 for the backward one, 32 of
// binding (spec/circuit.md, section 2).
const KeyLabel = "peel circuit v1"

const keySize = 2*layer.KeySize + 32

// Prologue is what both ends of a circuit handshake must agree on before it: network, relay, its onion key, and the
// suite of the layers.
func Prologue(network cell.NetworkID, node cell.NodeID, key cell.KeyID, suite uint8) []byte {
	b := append([]byte(KeyLabel), network[:]...)
	b = append(b, node[:]...)
	b = append(b, key[:]...)
	return append(b, suite)
}

// A hop is one relay of a circuit as its client sees it.
type hop struct {
	forward  *layer.Layer // used with Circuit.send held
	backward *layer.Layer // used with Circuit.recv held
	asked    atomic.Bool  // a REKEY went and its answer has not come
}

func newHop(s *hybrid.Secrets) *hop {
	k := s.Expand(KeyLabel, keySize)
	s.Erase()
	h := &hop{
		forward:  layer.NewClient((*[layer.KeySize]byte)(k[:layer.KeySize]), cell.BodySize),
		backward: layer.NewClient((*[layer.KeySize]byte)(k[layer.KeySize:2*layer.KeySize]), cell.BodySize),
	}
	clear(k)
	return h
}

const (
	rekeyCells = 1024 // either way
	rekeyTime  = 10 * time.Minute
)

// rekeying says when the hops before the last are to move their keys on: cells that pass them do not. It has no timer: on
// a circuit where nothing moves there is nothing to protect that was not there before.
type rekeying struct {
	sent, received uint64    // cells, when the last round began
	began          time.Time // and when that was
	left           int       // hops that are still to be asked in this round
}

// due begins a round if it is time for one.
func (r *rekeying) due(sent, received uint64, now time.Time, hops int) {
	if r.left > 0 || hops < 2 {
		return
	}
	if sent-r.sent < rekeyCells && received-r.received < rekeyCells && now.Sub(r.began) < rekeyTime {
		return
	}
	*r = rekeying{sent: sent, received: received, began: now, left: hops - 1}
}
