package pipe

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestBytesTakeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Options{Delay: 30 * time.Millisecond, Rate: 1000})
		began := time.Now()
		go a.Write(make([]byte, 500))
		if _, err := io.ReadFull(b, make([]byte, 500)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 530*time.Millisecond {
			t.Errorf("500 bytes at 1000 a second took %v, want 530ms", took)
		}
	})
}

func TestWindowHoldsTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Options{Window: 100})
		sent := bytes.Repeat([]byte("abcdefg"), 100)
		done := false
		go func() {
			a.Write(sent)
			done = true
			a.Close()
		}()
		synctest.Wait()
		if done {
			t.Error("700 bytes went into a window of 100")
		}
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	})
}

func TestCloseIsAnEndAfterWhatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Options{Delay: time.Second})
		a.Write([]byte("last words"))
		a.Close()
		if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after Close: %v", err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close: %v", err)
		}
		if _, err := b.Write([]byte("x")); err != nil {
			t.Errorf("Write before the end could be known: %v", err)
		}
		if got, err := io.ReadAll(b); string(got) != "last words" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("Write to who has closed: %v", err)
		}
	})
}

func TestDeadlinesEndReadsAndWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := New(Options{Window: 10})
		began := time.Now()
		a.SetReadDeadline(began.Add(time.Second))
		a.SetWriteDeadline(began.Add(2 * time.Second))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("Read: %v after %v", err, time.Since(began))
		}
		n, err := a.Write(make([]byte, 30))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 2*time.Second || n != 10 {
			t.Errorf("Write: %d, %v after %v", n, err, time.Since(began))
		}
		a.SetDeadline(time.Time{})
		go func() {
			time.Sleep(time.Hour)
			a.SetReadDeadline(time.Now())
		}()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
	})
}

func TestCutLosesWhatWasOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Options{Delay: time.Second})
		a.Write([]byte("lost"))
		go func() { time.Sleep(time.Millisecond); a.Cut() }()
		for _, c := range []*Conn{a, b} {
			if _, err := c.Read(make([]byte, 9)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("Read: %v", err)
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("Write: %v", err)
			}
		}
	})
}

func TestWiretapSeesAndAlters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Options{Wiretap: func(fromA bool, b []byte) []byte {
			if fromA {
				return append(b, '!')
			}
			return nil
		}})
		for _, c := range []*Conn{a, b} {
			if n, err := c.Write([]byte("hello")); n != 5 || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
			c.out.closeWriter()
		}
		if got, _ := io.ReadAll(b); string(got) != "hello!" {
			t.Errorf("read %q", got)
		}
		if got, _ := io.ReadAll(a); len(got) != 0 {
			t.Errorf("read %q", got)
		}
	})
}

func TestLineMayChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Options{Delay: 30 * time.Millisecond, Rate: 1000})
		if a.RTT() != 60*time.Millisecond {
			t.Errorf("RTT %v", a.RTT())
		}
		a.SetDelay(100 * time.Millisecond)
		a.SetRate(100)
		a.Stall(time.Second)
		if b.RTT() != 130*time.Millisecond {
			t.Errorf("RTT %v", b.RTT())
		}
		began := time.Now()
		a.HoldUnsent(100)
		a.Write(make([]byte, 50))
		if took := time.Since(began); took != time.Second/2 { // the stall counts as 100 bytes
			t.Errorf("the first 50 bytes waited %v", took)
		}
		a.Write(make([]byte, 100))
		if took := time.Since(began); took != time.Second {
			t.Errorf("150 bytes went into a buffer of 100 after %v", took)
		}
		a.SetDelay(0)
		a.Write(make([]byte, 1))
		if _, err := io.ReadFull(b, make([]byte, 151)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 2600*time.Millisecond {
			t.Errorf("151 bytes took %v", took)
		}
	})
}

func TestLossDelaysAllBehindIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Options{Delay: 30 * time.Millisecond, Rate: 1000})
		began := time.Now()
		a.Write([]byte("x"))
		a.Lose(60 * time.Millisecond)
		a.Write([]byte("y"))
		a.Write([]byte("z"))
		for _, want := range []time.Duration{31 * time.Millisecond, 91 * time.Millisecond, 91 * time.Millisecond} {
			if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("a byte came after %v, want %v", took, want)
			}
		}
	})
}

func TestAHeldLineDeliversNothingUntilItIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Options{Delay: 10 * time.Millisecond})
		a.Hold(true)
		began := time.Now()
		a.Write([]byte("x"))
		a.Close()
		time.AfterFunc(time.Minute, func() { a.Hold(false) })
		got, err := io.ReadAll(b)
		if string(got) != "x" || err != nil || time.Since(began) != time.Minute {
			t.Errorf("%q, %v after %v, want x after 1m", got, err, time.Since(began))
		}
	})
}

// Two connections of one machine share its card.
func TestACardIsSharedByItsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := NewCard(1000)
		began := time.Now()
		for i := range 2 {
			a, b := New(Options{CardA: card})
			a.Write(make([]byte, 500))
			if _, err := io.ReadFull(b, make([]byte, 500)); err != nil {
				t.Fatal(err)
			}
			if took, want := time.Since(began), time.Duration(i+1)*500*time.Millisecond; took != want {
				t.Errorf("connection %d: %v, want %v", i, took, want)
			}
		}
		card.SetRate(0)
		a, b := New(Options{CardA: card})
		began = time.Now()
		a.Write(make([]byte, 500))
		if _, err := io.ReadFull(b, make([]byte, 500)); err != nil || time.Since(began) != 0 {
			t.Errorf("without a limit: %v after %v", err, time.Since(began))
		}
	})
}
