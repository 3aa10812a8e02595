package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// download asks for n bytes of a relay's directory and reads them slowly, so that it takes about so long; it returns how many came.
func download(conn net.Conn, n int, takes time.Duration) (int, error) {
	if _, err := fmt.Fprintf(conn, "GET %s%d HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n", measurePath, n); err != nil {
		return 0, err
	}
	const pieces = 20
	got, b := 0, make([]byte, n/pieces)
	for {
		m, err := io.ReadFull(conn, b)
		got += m
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		time.Sleep(takes / pieces)
	}
}

// An operator who ends relays cuts off no transfer that ends within the time he gives, and nothing new begins.
func TestTransfersThatEndWithinTheDrainAreWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		const size = 8 << 20
		var wg sync.WaitGroup
		c, before := w.mustBuild(0, 1, 2), w.connect(0)
		begun := time.Now()
		for i := range 4 {
			conn, err := c.DialDir(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				defer conn.Close()
				got, err := download(conn, size, time.Duration(i+1)*4*time.Second)
				if err != nil || got <= size {
					t.Errorf("transfer %d: %d bytes came: %v", i, got, err)
				}
			})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for i := range 3 {
			wg.Go(func() {
				if err := w.relays[i].Drain(ctx); err != nil {
					t.Errorf("relay %d: %v", i, err)
				}
				if took := time.Since(begun); took < 15*time.Second || took > 29*time.Second {
					t.Errorf("relay %d had drained after %v", i, took)
				}
				w.stop[i]()
			})
		}
		synctest.Wait()
		if _, err := w.buildOver(t.Context(), before, w.hops[:1]); err == nil {
			t.Error("a new circuit was made")
		}
		if _, err := c.DialDir(t.Context()); err == nil {
			t.Error("a new stream was taken")
		}
		wg.Wait()
	})
}

// What does not end holds a relay up for the time its operator gives, and no longer.
func TestADrainHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.mustBuild(0)
		conn, err := c.DialDir(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { download(conn, 32<<20, time.Hour) })
		synctest.Wait()
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := w.relays[0].Drain(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 30*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		conn.Close()
		c.Close()
		time.Sleep(time.Second)
		if err := w.relays[0].Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
