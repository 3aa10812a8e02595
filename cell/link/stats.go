package link

import (
	"errors"
	"fmt"
	"net"
)

// A Reason says why a link ended. Those up to ReasonIdle are nobody's fault, and ReasonBug is ours; of the others the
// peer, or somebody on the way, is to blame.
type Reason uint8

const (
	ReasonClosed    Reason = iota // closed at this end
	ReasonLost                    // the peer went away, or the connection broke
	ReasonLeft                    // the peer closed it while no circuit used it
	ReasonIdle                    // no circuit used it for long
	ReasonHandshake               // the handshake failed
	ReasonRecord                  // a record was altered, repeated, dropped or moved on its way
	ReasonLength                  // a record was not 1 to 46 whole cells
	ReasonCell                    // a cell that does not parse
	ReasonCircuit                 // a cell of a circuit that is not there
	ReasonCreate                  // a CREATE where none may come: its number is wrong or in use, or it comes from a server
	ReasonOrder                   // a cell that may not come yet, or no longer
	ReasonOverrun                 // a RELAY cell without credit
	ReasonCredit                  // credit given back that was not there, or granted beyond measure
	ReasonFlood                   // more circuits at once than any peer needs
	ReasonBug                     // this program's own code for the link panicked
	reasons
)

var reasonNames = [reasons]string{
	"closed", "connection lost", "closed by the peer", "idle", "handshake", "record", "record length", "cell", "unknown circuit", "create",
	"order", "credit overrun", "credit", "flood", "bug",
}

func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// An Error ends a link, or keeps it from coming to be.
type Error struct {
	Reason Reason
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// fault makes an Error; the format begins with what is wrong, without "link: ". What the system says of a connection names its ends, of which
// one may be a client's, and goes into logs: they are left out.
func fault(r Reason, format string, args ...any) *Error {
	for i, a := range args {
		if e, ok := a.(*net.OpError); ok && e.Err != nil {
			args[i] = e.Err
		}
	}
	return &Error{r, fmt.Errorf("link: "+format, args...)}
}

// Errors that Open, Send, Forward and Reply return.
var (
	ErrClosed = errors.New("link: closed")                                                // the circuit, or the link it is on, is gone
	ErrBusy   = errors.New("link: no room for another circuit; use or dial another link") // Config.MaxCircuits are there
	ErrRoom   = errors.New("link: more cells than there is room for")                     // see Circ.Room
)

// Stats counts what went over a link, or over all links of a pool, since it began.
type Stats struct {
	CellsIn, CellsOut     uint64 // cells of every kind
	BytesIn, BytesOut     uint64 // bytes of records; the handshake is not counted
	RecordsIn, RecordsOut uint64
	PaddingIn, PaddingOut uint64          // cells
	Circuits              int             // circuits there now, those that are closing included
	Errors                [reasons]uint64 // links that ended, by Reason
}

// Add adds the counts of o.
func (s *Stats) Add(o Stats) {
	s.CellsIn += o.CellsIn
	s.CellsOut += o.CellsOut
	s.BytesIn += o.BytesIn
	s.BytesOut += o.BytesOut
	s.RecordsIn += o.RecordsIn
	s.RecordsOut += o.RecordsOut
	s.PaddingIn += o.PaddingIn
	s.PaddingOut += o.PaddingOut
	s.Circuits += o.Circuits
	for i, n := range o.Errors {
		s.Errors[i] += n
	}
}
