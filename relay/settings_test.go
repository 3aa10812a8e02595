package relay

import (
	"errors"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit/stream"
	"peel/directory"
)

func (w *world) descriptors() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.posted
}

// An operator who gives a running relay another configuration gets all of it or none, and breaks no stream.
func TestSettingsChangeWhileStreamsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		r, c := w.relays[0], w.mustBuild(0)
		refused := func() bool {
			_, err := c.Dial(t.Context(), cell.Begin{Host: "192.0.2.1", Port: 80})
			return errors.Is(err, &stream.EndError{Reason: cell.EndPolicy})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		before := w.descriptors()

		s := r.settled.Load().Settings
		s.Contact = "somebody else"
		s.Exit = directory.Policy{{Accept: true, Prefix: netip.MustParsePrefix("127.0.0.0/8"), Lo: 1, Hi: 65535}}
		if err := r.Change(s); err != nil {
			t.Fatal(err)
		}
		if r.settled.Load().exit == nil || !refused() {
			t.Error("the policy does not hold")
		}
		time.Sleep(leastBetween)
		synctest.Wait()
		if n := w.descriptors() - before; n != 1 {
			t.Errorf("%d descriptors went out after a change, want one", n)
		}
		if err := r.Change(s); err != nil {
			t.Error(err)
		}

		bad := s
		bad.Contact = "a third"
		bad.Exit = directory.Policy{{Accept: true, Lo: 80, Hi: 79}}
		if err := r.Change(bad); err == nil {
			t.Error("ports the wrong way round were taken")
		}
		if got := r.settled.Load(); got.Contact != "somebody else" || got.exit == nil {
			t.Errorf("a part of what was refused is in use: %+v", got.Settings)
		}
		time.Sleep(leastBetween)
		synctest.Wait()
		if n := w.descriptors() - before; n != 1 {
			t.Errorf("%d descriptors after changes that changed nothing", n)
		}

		dir, err := c.DialDir(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1000 { // told to the authority in a few
			s.Bandwidth = uint64(1e6 + i)
			if err := r.Change(s); err != nil {
				t.Fatal(err)
			}
		}
		s.Exit = nil
		if err := r.Change(s); err != nil {
			t.Fatal(err)
		}
		if r.settled.Load().exit != nil || !refused() {
			t.Error("it is still an exit")
		}
		if _, err := io.WriteString(dir, "GET /none HTTP/1.0\r\n\r\n"); err != nil {
			t.Error(err)
		}
		if b, err := io.ReadAll(dir); err != nil || len(b) == 0 {
			t.Errorf("a stream that was there before: %d bytes, %v", len(b), err)
		}
		time.Sleep(3 * leastBetween)
		synctest.Wait()
		if n := w.descriptors() - before; n < 2 || n > 3 {
			t.Errorf("%d descriptors went out for a change and a thousand changes at once", n)
		}
		if err := w.relays[w.authority()].Change(s); err == nil {
			t.Error("an authority's node took settings")
		}
	})
}
