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
	fresh    mark         // when it last did; used with Circuit.send held
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

// erase overwrites the keys.
func (h *hop) erase() {
	h.forward.Erase()
	h.backward.Erase()
}

const (
	rekeyCells = 1024 // either way
	rekeyTime  = 10 * time.Minute
)

// A mark is a moment in the life of a circuit.
type mark struct {
	sent, received uint64 // cells
	at             time.Time
}

// stale says whether the keys of a hop before the last, which cells that pass it do not move, are to be moved on now.
// There is no timer: on a circuit where nothing moves there is nothing to protect that was not there before.
func (m mark) stale(now mark) bool {
	return now.sent-m.sent >= rekeyCells || now.received-m.received >= rekeyCells || now.at.Sub(m.at) >= rekeyTime
}
