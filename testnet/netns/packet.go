package netns

import "encoding/binary"

// mtu is how long a packet may be: that of Ethernet, as on most of the internet.
const mtu = 1500

const (
	ipHeader, tcpHeader = 20, 20
	protoTCP, protoUDP  = 6, 17

	flagRST, flagACK = 1 << 2, 1 << 4
)

// header is what the emulator looks at in a packet.
type header struct {
	to   [4]byte
	size int
	flow uint32 // the same for all packets of a connection in one direction
	data bool   // of TCP, with bytes of its user
}

// parse reads the headers of a packet; false: it is no whole packet of IPv4.
func parse(b []byte) (h header, ok bool) {
	if len(b) < ipHeader || b[0]>>4 != 4 {
		return h, false
	}
	own, all := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if own < ipHeader || all < own || all > len(b) {
		return h, false
	}
	h.to, h.size = [4]byte(b[16:20]), all
	proto, first := b[9], binary.BigEndian.Uint16(b[6:])&0x1fff == 0 // of its fragments
	h.flow = uint32(proto)
	rest := b[own:all]
	if (proto == protoTCP || proto == protoUDP) && first && len(rest) >= 4 {
		h.flow = (binary.BigEndian.Uint32(rest) ^ h.flow) * 0x9e3779b1 >> 16 // both ports
	}
	if proto == protoTCP && first && len(rest) >= tcpHeader {
		h.data = len(rest) > int(rest[12]>>4)*4
	}
	return h, true
}

// reset makes of a packet that parse says has data of a TCP connection the one that breaks it, and says how long it is. A receiver that has all
// before it takes it for the sender's; another asks the sender, and nothing but the packet is lost.
func reset(b []byte) int {
	own := int(b[0]&15) * 4
	copy(b[ipHeader:], b[own:own+tcpHeader])
	b[0] = 4<<4 | ipHeader/4
	binary.BigEndian.PutUint16(b[2:], ipHeader+tcpHeader)
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], checksum(0, b[:ipHeader]))
	t := b[ipHeader : ipHeader+tcpHeader]
	t[12], t[13] = tcpHeader/4<<4, flagRST|flagACK
	clear(t[14:]) // window, checksum, urgent
	binary.BigEndian.PutUint16(t[16:], checksum(sum(protoTCP+tcpHeader, b[12:20]), t))
	return ipHeader + tcpHeader
}

// sum adds words of 16 bits.
func sum(s uint32, b []byte) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	return s
}

// checksum is that of the internet's headers (RFC 1071).
func checksum(s uint32, b []byte) uint16 {
	s = sum(s, b)
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
