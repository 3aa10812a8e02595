package testnet

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"peel/client"
)

// A relay of a circuit is killed: the stream on it ends with an error within 5 s, and the next one comes about within 3 s; nobody but
// who is killed closes a connection. The time is virtual, so that a busy machine changes nothing.
func TestAfterAKillTheNextConnectionComesSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newInMemory(t, make([]harm, 4), make([]harm, 12))
		m.serve("20.0.0.7:443", func(c net.Conn) { c.Write([]byte("hello")) }) // and no more
		c := m.client()
		time.Sleep(5 * time.Minute)
		open := func() net.Conn {
			conn, err := c.DialContext(t.Context(), "tcp", "20.0.0.7:443")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			return conn
		}
		for hop := range 3 {
			conn := open()
			victim := client.PathOf(conn)[hop]
			killed := time.Now()
			m.internet.Cut(victim.Addrs[0].Addr())
			conn.SetReadDeadline(killed.Add(5 * time.Second))
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("hop %d, %s: %v", hop, victim.Nickname, err)
			}
			ended := time.Since(killed)
			conn.Close()
			next := open()
			t.Logf("hop %d: the stream ended after %v, the next was there after %v", hop, ended, time.Since(killed))
			if took := time.Since(killed); took > 3*time.Second {
				t.Errorf("hop %d: the next connection took %v", hop, took)
			}
			next.Close()
		}
	})
}
