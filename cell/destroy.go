package cell

import "fmt"

// Destroy is the body of a DESTROY cell: the circuit is over on this link. Each side sends exactly one a circuit.
type Destroy struct {
	Reason DestroyReason
}

// ParseDestroy reads the body of a DESTROY cell.
func ParseDestroy(body []byte) (Destroy, error) {
	if err := cellBody(CmdDestroy, body); err != nil {
		return Destroy{}, err
	}
	d := Destroy{Reason: DestroyReason(body[0])}
	if err := d.Check(); err != nil {
		return Destroy{}, err
	}
	return d, padding(CmdDestroy, body[1:])
}

// Check implements Body.
func (d Destroy) Check() error {
	if !d.Reason.Valid() {
		return fmt.Errorf("cell: DESTROY: unknown reason %d", uint8(d.Reason))
	}
	return nil
}

// Append implements Body.
func (d Destroy) Append(b []byte) []byte { return append(b, byte(d.Reason)) }
