package cell

// Extend is the data of an EXTEND message: add the relay it names to the circuit. It counts only in a RELAY_EARLY cell.
type Extend struct {
	To      LinkSpec
	Suite   uint8  // SuiteCGO
	Key     KeyID  // the onion key of To that Request is for
	Request []byte // the handshake's first message, RequestSize bytes
}

// ParseExtend reads the data of an EXTEND message. Request aliases data.
func ParseExtend(data []byte) (Extend, error) {
	to, rest, err := takeLinkSpec(data)
	if err != nil {
		return Extend{}, err
	}
	const request = 1 + len(KeyID{})
	if len(rest) < request {
		return Extend{}, short(MsgExtend)
	}
	e := Extend{To: to, Suite: rest[0], Key: KeyID(rest[1:request]), Request: rest[request:]}
	if err := e.Check(); err != nil {
		return Extend{}, err
	}
	return e, nil
}

// Check implements Body.
func (e Extend) Check() error {
	if err := e.To.Check(); err != nil {
		return err
	}
	return checkRequest(MsgExtend, e.Suite, e.Request)
}

// Append implements Body.
func (e Extend) Append(b []byte) []byte {
	b = e.To.Append(b)
	b = append(b, e.Suite)
	b = append(b, e.Key[:]...)
	return append(b, e.Request...)
}

// Extended is the data of an EXTENDED message: the relay asked for is now the last hop.
type Extended struct {
	Reply []byte // the handshake's second message, MinReplySize to MaxReplySize bytes
}

// ParseExtended reads the data of an EXTENDED message. Reply aliases data.
func ParseExtended(data []byte) (Extended, error) {
	e := Extended{Reply: data}
	if err := e.Check(); err != nil {
		return Extended{}, err
	}
	return e, nil
}

// Check implements Body.
func (e Extended) Check() error { return checkReply(MsgExtended, len(e.Reply)) }

// Append implements Body.
func (e Extended) Append(b []byte) []byte { return append(b, e.Reply...) }
