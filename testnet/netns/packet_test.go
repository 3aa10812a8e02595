package netns

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// testPacket is one of TCP, with so many bytes of its user.
func testPacket(from, to [4]byte, port uint16, data int) []byte {
	b := make([]byte, ipHeader+tcpHeader+data)
	b[0], b[9] = 0x45, protoTCP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], from[:])
	copy(b[16:], to[:])
	t := b[ipHeader:]
	binary.BigEndian.PutUint16(t, port)
	binary.BigEndian.PutUint16(t[2:], 80)
	binary.BigEndian.PutUint32(t[4:], 0x01020304)
	binary.BigEndian.PutUint32(t[8:], 0x05060708)
	t[12], t[13] = 5<<4, flagACK
	return b
}

var (
	here  = [4]byte{10, 1, 0, 1}
	there = [4]byte{10, 2, 0, 1}
)

func TestHeadersAreRead(t *testing.T) {
	b := testPacket(here, there, 4000, 100)
	h, ok := parse(append(b, 0, 0)) // what follows the packet is none of it
	if !ok || h.to != there || h.size != 140 || !h.data {
		t.Errorf("%+v, %v", h, ok)
	}
	if again, _ := parse(testPacket(here, there, 4000, 0)); again.flow != h.flow || again.data {
		t.Errorf("an acknowledgement: %+v", again)
	}
	seen := make(map[uint32]bool)
	for port := range uint16(100) {
		h, _ := parse(testPacket(here, there, port, 1))
		seen[h.flow%flows] = true
	}
	if len(seen) < 30 {
		t.Errorf("100 connections share %d flows", len(seen))
	}
	for i := range b {
		if h, ok := parse(b[:i]); ok {
			t.Errorf("%d bytes of %d were read as %+v", i, len(b), h)
		}
	}
	for _, bad := range []struct {
		at int
		to byte
	}{{0, 0x65}, {0, 0x44}, {2, 0xff}, {3, 19}} {
		c := testPacket(here, there, 4000, 0)
		c[bad.at] = bad.to
		if h, ok := parse(c); ok {
			t.Errorf("byte %d as %#x: %+v", bad.at, bad.to, h)
		}
	}
}

// A packet that breaks its connection is one that the receiver's kernel takes: of the same connection and place in it, with right checksums.
func TestAResetIsOfItsConnection(t *testing.T) {
	plain := testPacket(here, there, 4000, 100)
	withOptions := append(append(bytes.Clone(plain[:20]), 1, 1, 1, 0), plain[20:]...)
	withOptions[0] = 0x46
	binary.BigEndian.PutUint16(withOptions[2:], uint16(len(withOptions)))
	for _, b := range [][]byte{plain, withOptions} {
		b = b[:reset(b)]
		h, ok := parse(b)
		if !ok || h.size != 40 || h.to != there || h.data {
			t.Fatalf("%+v, %v", h, ok)
		}
		s := b[ipHeader:]
		if !bytes.Equal(s[:12], plain[ipHeader:ipHeader+12]) || s[13] != flagRST|flagACK {
			t.Errorf("%x", s)
		}
		if checksum(0, b[:ipHeader]) != 0 || checksum(sum(protoTCP+tcpHeader, b[12:20]), s) != 0 {
			t.Error("its checksums are wrong")
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(testPacket(here, there, 1, 10))
	f.Add(testPacket(here, there, 1, 0)[:30])
	for _, change := range []func(b []byte){
		func(b []byte) { b[0] = 0x60 },                           // IPv6
		func(b []byte) { b[0] = 0x44 },                           // a header too short
		func(b []byte) { b[0] = 0x46 },                           // with options
		func(b []byte) { b[3] = 19 },                             // shorter than its header
		func(b []byte) { b[3]++ },                                // longer than it is
		func(b []byte) { b[6] = 0x20 },                           // the first fragment
		func(b []byte) { b[7] = 1 },                              // another one
		func(b []byte) { b[9] = protoUDP },                       // UDP
		func(b []byte) { b[9] = 1 },                              // ICMP
		func(b []byte) { b[3] = ipHeader + 3 },                   // without whole ports
		func(b []byte) { b[3] = ipHeader + 19 },                  // without a whole header of TCP
		func(b []byte) { b[3], b[ipHeader+12] = ipHeader+19, 0 }, // and that is said to have none
		func(b []byte) { b[10], b[ipHeader+16] = 0x12, 0x34 },    // with checksums
		func(b []byte) { b[ipHeader+12] = 0 },                    // of TCP, with no header
		func(b []byte) { b[ipHeader+12] = 15 << 4 },              // with a header longer than the packet
		func(b []byte) { b[ipHeader+13] = flagRST },              // a reset
		func(b []byte) { copy(b[12:], "\xff\xff\xff") },          // of sums that carry
	} {
		b := testPacket(here, there, 1, 30)
		change(b)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		b := bytes.Clone(packet) // which reset changes
		h, ok := parse(b)
		if !ok {
			return
		}
		if h.size > len(b) || h.size < ipHeader || h.to != [4]byte(b[16:20]) {
			t.Fatalf("%+v of %d bytes", h, len(b))
		}
		if !h.data {
			return
		}
		b = b[:reset(b)]
		r, ok := parse(b)
		if !ok || r.data || r.size != ipHeader+tcpHeader || r.size > h.size || r.to != h.to || r.flow != h.flow {
			t.Fatalf("%+v became %+v, %v", h, r, ok)
		}
		if s := b[ipHeader:]; checksum(0, b[:ipHeader]) != 0 || checksum(sum(protoTCP+tcpHeader, b[12:20]), s) != 0 || s[13] != flagRST|flagACK {
			t.Fatalf("% x is no reset", b)
		}
	})
}
