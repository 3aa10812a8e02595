package link

import "peel/cell"

// NearRatchet makes both ends of a link move their keys on after n more records in either direction. Neither is served yet.
func NearRatchet(n uint64, conns ...*Conn) {
	for _, c := range conns {
		c.in.records, c.out.records = ratchetRecords-n, ratchetRecords-n
	}
}

// Records is how many records went under the present keys. The link has ended.
func Records(c *Conn) (in, out uint64) { return c.in.records, c.out.records }

// A Raw is a link that a test speaks over by hand, after a proper handshake.
type Raw struct {
	c   *Conn
	box inbox
}

// NewRaw takes over c, which nobody serves.
func NewRaw(c *Conn) *Raw { return &Raw{c: c} }

// Send writes cells as one record.
func (r *Raw) Send(cells ...cell.Cell) error {
	wire := make([]byte, maxRecord)
	copy(space(wire), cells)
	record, err := r.c.out.seal(wire, len(cells))
	if err == nil {
		_, err = r.c.nc.Write(record)
	}
	return err
}

// SendSize writes a record of n bytes, well sealed, whatever n is.
func (r *Raw) SendSize(n int) error {
	head := []byte{byte((n + tagSize) >> 8), byte(n + tagSize)}
	_, err := r.c.nc.Write(r.c.out.aead.Seal(head, r.c.out.nonce[:], make([]byte, n), head))
	return err
}

// Receive reads the cells of the next record.
func (r *Raw) Receive() ([]cell.Cell, error) {
	for {
		if r.box.buf != nil {
			record, err := r.box.record()
			if err != nil {
				return nil, err
			}
			if record != nil {
				return r.c.in.open(record)
			}
		}
		if err := r.box.fill(r.c.nc); err != nil {
			return nil, err
		}
	}
}

// RaceEnabled says that the race detector is at work.
const RaceEnabled = raceEnabled
