package cell

import "fmt"

// A DestroyReason says why a circuit ended. Clients are always told DestroyNone, so that nobody on the way can learn or
// tell anything by it; the others are for the two relays of a link (spec/cell.md, section 6).
type DestroyReason uint8

const (
	DestroyNone          DestroyReason = iota // not told
	DestroyProtocol                           // a breach of protocol
	DestroyInternal                           // a fault of the sender's own
	DestroyRequested                          // an operator's or a client's wish
	DestroyHibernating                        // the relay saves its traffic and takes no new circuits
	DestroyBusy                               // the relay has no room: memory, circuits or handshakes
	DestroyConnectFailed                      // the next relay could not be reached
	DestroyWrongIdentity                      // the next relay was not who the EXTEND named
	DestroyLinkClosed                         // the link the circuit came or went on is gone
	DestroyFinished                           // the circuit has done its work or is too old
	DestroyTimeout                            // the circuit took too long to be built
)

var destroyReasons = [...]string{
	"none", "protocol error", "internal error", "requested", "hibernating", "busy", "connect failed",
	"wrong identity", "link closed", "finished", "timeout",
}

// Valid says whether the reason is known. A DESTROY with another one ends the link.
func (r DestroyReason) Valid() bool { return int(r) < len(destroyReasons) }

func (r DestroyReason) String() string {
	if !r.Valid() {
		return fmt.Sprintf("destroy reason %d", uint8(r))
	}
	return destroyReasons[r]
}

// An EndReason says why a stream ended, or why a RESOLVE found nothing. 0 is none.
type EndReason uint8

const (
	EndDone          EndReason = 1  // no more data from this side
	EndMisc          EndReason = 2  // none of the others
	EndResolveFailed EndReason = 3  // the name could not be looked up now: worth another try
	EndNotFound      EndReason = 4  // there is no such host
	EndRefused       EndReason = 5  // the host refused the connection
	EndPolicy        EndReason = 6  // the exit does not connect there
	EndTimeout       EndReason = 7  // the host did not answer in time, or the client took nothing
	EndUnreachable   EndReason = 8  // there is no way to the host
	EndReset         EndReason = 9  // the connection was reset, or this side wants no more of it
	EndBusy          EndReason = 10 // the relay has no room for the stream: worth another try
	EndNotDirectory  EndReason = 11 // the relay hands out no directory
	EndInternal      EndReason = 12 // a fault of the sender's own
	EndProtocol      EndReason = 13 // a breach of protocol on this stream
)

var endReasons = [...]string{
	"none", "done", "miscellaneous", "name could not be resolved now", "no such host", "connection refused",
	"not allowed by the exit's policy", "timeout", "host unreachable", "connection reset", "relay busy",
	"relay is not a directory", "internal error", "protocol error",
}

// Valid says whether an END may give the reason: it is known and not 0. An END with another one ends the circuit.
func (r EndReason) Valid() bool { return r != 0 && int(r) < len(endReasons) }

func (r EndReason) String() string {
	if int(r) >= len(endReasons) {
		return fmt.Sprintf("end reason %d", uint8(r))
	}
	return endReasons[r]
}
