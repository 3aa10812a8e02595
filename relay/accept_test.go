package relay

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"peel/directory/dirtest"
)

// failing is a listener that fails as often as it is asked.
type failing struct {
	listens
	err   error
	asked atomic.Int32
}

func (l *failing) Accept() (net.Conn, error) {
	l.asked.Add(1)
	return nil, l.err
}

// runs lets a relay with such a listener work for ten minutes, and returns what it says.
func (l *failing) runs(t *testing.T) (log string, err error) {
	t.Helper()
	var b bytes.Buffer
	r, err := New(Config{
		Network: dirtest.New(1, 0).Network, Keys: someKeys(t), Listeners: []net.Listener{l}, Nickname: "me",
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("offline") },
		Log:  slog.New(slog.NewTextHandler(&b, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	err = r.Run(ctx)
	return b.String(), err
}

func TestAListenerThatFailsForAWhileIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &failing{listens: "198.51.100.1:9001", err: &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}}
		log, err := l.runs(t)
		if err != nil {
			t.Errorf("the relay ended with %v", err)
		}
		if n := strings.Count(log, "cannot accept links"); n < 10 || n > 11 {
			t.Errorf("it warned %d times in ten minutes", n)
		}
		if n := l.asked.Load(); n < 5000 || n > 6010 {
			t.Errorf("the listener was asked %d times in ten minutes", n)
		}
	})
}

func TestAListenerThatIsBrokenEndsTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, why := range []error{syscall.EINVAL, net.ErrClosed} { // the latter: somebody else closed it
			l := &failing{listens: "198.51.100.1:9001", err: &net.OpError{Op: "accept", Net: "tcp", Err: why}}
			began := time.Now()
			_, err := l.runs(t)
			if !errors.Is(err, why) || !strings.HasPrefix(err.Error(), "relay: ") || !strings.Contains(err.Error(), "198.51.100.1:9001") {
				t.Errorf("%v: the relay ended with %v", why, err)
			}
			if took := time.Since(began); took > time.Minute || l.asked.Load() != 1 {
				t.Errorf("%v: after %v and %d tries", why, took, l.asked.Load())
			}
		}
	})
}
