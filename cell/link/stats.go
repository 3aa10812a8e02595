package link

import "sync/atomic"

// Stats count what a link did. They may be read at any time.
type Stats struct {
	CellsIn, CellsOut     atomic.Uint64
	BytesIn, BytesOut     atomic.Uint64 // on the wire, after the handshake
	RecordsIn, RecordsOut atomic.Uint64
	PaddingIn, PaddingOut atomic.Uint64 // PADDING cells
	CreditIn, CreditOut   atomic.Uint64 // CREDIT cells
	Late                  atomic.Uint64 // cells of circuits that we have closed and the peer had not yet heard of
}
