package cell

import "fmt"

// A Command says what a cell is for (spec/cell.md, section 2).
type Command uint8

const (
	CmdPadding    Command = 0 // nothing; on circuit 0
	CmdCreate     Command = 1 // open a circuit: Create
	CmdCreated    Command = 2 // it is open: Created
	CmdRelay      Command = 3 // a layered message
	CmdRelayEarly Command = 4 // the same, and it may be an EXTEND
	CmdDestroy    Command = 5 // the circuit ends: Destroy
	CmdCredit     Command = 6 // more RELAY cells may come: CreditCell; on circuit 0
)

var commands = [...]string{"PADDING", "CREATE", "CREATED", "RELAY", "RELAY_EARLY", "DESTROY", "CREDIT"}

// Valid says whether the command is known. A cell with another one ends the link.
func (c Command) Valid() bool { return int(c) < len(commands) }

func (c Command) String() string {
	if !c.Valid() {
		return fmt.Sprintf("COMMAND(%d)", uint8(c))
	}
	return commands[c]
}

// ofLink says whether such cells belong to the link, not to a circuit.
func (c Command) ofLink() bool { return c == CmdPadding || c == CmdCredit }

// A MessageType says what a message is for (spec/cell.md, section 4).
type MessageType uint8

const (
	MsgBegin     MessageType = 1  // open a stream to a host: Begin
	MsgConnected MessageType = 2  // it is open: Connected
	MsgData      MessageType = 3  // bytes of the stream
	MsgEnd       MessageType = 4  // this side ends: End
	MsgWindow    MessageType = 5  // more bytes may come: Window
	MsgResolve   MessageType = 6  // look up a name: Resolve
	MsgResolved  MessageType = 7  // the answer: Resolved
	MsgBeginDir  MessageType = 8  // open a stream to the relay's own directory; no data
	MsgExtend    MessageType = 9  // add a hop: Extend
	MsgExtended  MessageType = 10 // it is there: Extended
	MsgRekey     MessageType = 11 // move the keys on; no data, answered by one of its kind
	MsgDatagram  MessageType = 12 // reserved for UDP; refused in version 1
)

var messageTypes = [...]string{
	MsgBegin: "BEGIN", MsgConnected: "CONNECTED", MsgData: "DATA", MsgEnd: "END", MsgWindow: "WINDOW",
	MsgResolve: "RESOLVE", MsgResolved: "RESOLVED", MsgBeginDir: "BEGIN_DIR", MsgExtend: "EXTEND",
	MsgExtended: "EXTENDED", MsgRekey: "REKEY", MsgDatagram: "DATAGRAM",
}

// Valid says whether messages of this type may be sent. A message of another one ends the circuit.
func (t MessageType) Valid() bool { return t >= MsgBegin && t < MsgDatagram }

func (t MessageType) String() string {
	if t == 0 || int(t) >= len(messageTypes) {
		return fmt.Sprintf("MESSAGE(%d)", uint8(t))
	}
	return messageTypes[t]
}

// ofCircuit says whether such messages belong to the circuit (stream 0), not to a stream.
func (t MessageType) ofCircuit() bool { return t == MsgExtend || t == MsgExtended || t == MsgRekey }
