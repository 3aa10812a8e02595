package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/proxy"
)

// BenchmarkChain is the first byte through four processes that do nothing but pass on cells: a SOCKS port, two relays, and one that dials.
// There is no cryptography in it, no circuit and no queue: it is what any such network of programs in Go takes on this machine, and
// ttfb_warm_ms of `peel testnet bench` is to be seen beside it.
func BenchmarkChain(b *testing.B) {
	w, err := newWeb()
	if err != nil {
		b.Fatal(err)
	}
	defer w.close()
	next := ""
	for _, part := range []string{"exit", "relay", "relay", "front"} {
		next = startPart(b, part, next)
	}
	d, err := proxy.SOCKS5("tcp", next, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	through := func(ctx context.Context) (net.Conn, error) {
		return d.(proxy.ContextDialer).DialContext(ctx, "tcp", w.addr())
	}
	p50 := func(way dial) float64 {
		var ms []float64
		for range 100 {
			took, err := first(b.Context(), way)
			if err != nil {
				b.Fatal(err)
			}
			ms = append(ms, took.Seconds()*1000)
		}
		return Percentile(ms, 0.5)
	}
	p50(through) // everything is there then
	var direct, chain []float64
	for b.Loop() {
		direct = append(direct, p50(w.direct))
		chain = append(chain, p50(through))
	}
	b.ReportMetric(median(direct), "direct-ms")
	b.ReportMetric(median(chain), "chain-ms")
	b.ReportMetric(median(chain)/median(direct), "x-direct")
}

// startPart starts a part of the chain, which ends with the benchmark, and says where it listens.
func startPart(b *testing.B, part, next string) string {
	c := Command{Name: part, Dir: b.TempDir(), Args: []string{"chain", part, next}}
	n := NewNodes([]Command{c})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-ended
	})
	if _, err := n.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	got, err := c.WaitFor(b.Context(), "ready: ", 1)
	if err != nil {
		b.Fatal(err)
	}
	return got[0]
}

const (
	chainCell = 1403
	chainData = chainCell - 8 // behind a number, a kind and a length
)

const (
	chainBegin = iota
	chainBegun
	chainBytes
	chainEnd
)

// chain is one part: it listens, says where, and passes on what comes until it is killed.
type chain struct {
	link  net.Conn // of cells, at the two ends
	mu    sync.Mutex
	conns map[uint32]net.Conn // by the number of the stream
}

func runChain(part, next string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("ready:", l.Addr())
	c := &chain{conns: map[uint32]net.Conn{}}
	if part == "exit" {
		c.link, err = l.Accept()
		if err != nil {
			return err
		}
		return c.cells()
	}
	out, err := net.Dial("tcp", next)
	if err != nil {
		return err
	}
	if part == "front" {
		c.link = out
		go c.cells()
		return c.front(l)
	}
	in, err := l.Accept()
	if err != nil {
		return err
	}
	go io.CopyBuffer(struct{ io.Writer }{in}, struct{ io.Reader }{out}, make([]byte, 64<<10)) // not by splice: a relay must look at what it passes on
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 64<<10))
	return err
}

func (c *chain) send(id uint32, kind uint16, b []byte) {
	var m [chainCell]byte
	binary.BigEndian.PutUint32(m[:], id)
	binary.BigEndian.PutUint16(m[4:], kind)
	binary.BigEndian.PutUint16(m[6:], uint16(len(b)))
	copy(m[8:], b)
	c.link.Write(m[:])
}

// conn is the connection of a stream; a nil one takes nothing.
func (c *chain) conn(id uint32) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conns[id]
}

func (c *chain) keep(id uint32, conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[id] = conn
}

// cells serves what comes over the link.
func (c *chain) cells() error {
	var m [chainCell]byte
	for {
		if _, err := io.ReadFull(c.link, m[:]); err != nil {
			return err
		}
		id, b := binary.BigEndian.Uint32(m[:]), m[8:8+min(int(binary.BigEndian.Uint16(m[6:])), chainData)]
		conn := c.conn(id)
		switch kind := binary.BigEndian.Uint16(m[4:]); {
		case kind == chainBegin:
			go c.begin(id, string(b))
		case conn == nil: // it has ended
		case kind == chainBegun:
			conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		case kind == chainBytes:
			conn.Write(b)
		case kind == chainEnd:
			conn.Close()
		}
	}
}

// begin dials for a stream, and serves it.
func (c *chain) begin(id uint32, addr string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		c.send(id, chainEnd, nil)
		return
	}
	c.keep(id, conn)
	c.send(id, chainBegun, nil)
	c.pass(id, conn)
}

// pass sends what a connection says until it ends.
func (c *chain) pass(id uint32, conn net.Conn) {
	b := make([]byte, chainData)
	for {
		n, err := conn.Read(b)
		if err != nil {
			break
		}
		c.send(id, chainBytes, b[:n])
	}
	c.send(id, chainEnd, nil)
	c.keep(id, nil)
	conn.Close()
}

// front is the SOCKS port, as far as the benchmark's own requests go.
func (c *chain) front(l net.Listener) error {
	for id := uint32(0); ; id++ {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			b := make([]byte, chainData)
			if _, err := conn.Read(b); err != nil { // version and methods
				return
			}
			conn.Write([]byte{5, 0})
			if n, err := conn.Read(b); err != nil || n < 10 { // CONNECT to an IPv4 address
				return
			}
			c.keep(id, conn)
			c.send(id, chainBegin, fmt.Appendf(nil, "%s:%d", net.IP(b[4:8]), binary.BigEndian.Uint16(b[8:])))
			c.pass(id, conn)
		}()
	}
}
