package relay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/circuit"
	"peel/directory"
)

func TestPeriodsOfAQuota(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(quotaTime, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		daily             bool
		began, now, begin string
		kept              bool
		ends              string
	}{
		{false, "2026-11-01T00:00:00Z", "2026-11-30T23:59:59Z", "2026-11-01T00:00:00Z", true, "2026-12-01T00:00:00Z"},
		{false, "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z", false, "2027-01-01T00:00:00Z"},
		{false, "2026-11-01T00:00:00Z", "2026-10-31T00:00:00Z", "2026-11-01T00:00:00Z", true, "2026-12-01T00:00:00Z"}, // the clock went back
		{true, "2099-01-01T00:00:00Z", "2026-11-25T09:00:00Z", "2026-11-25T00:00:00Z", true, "2026-11-26T00:00:00Z"},  // from far ahead
		{true, "2026-11-25T00:00:00Z", "2026-11-25T23:59:59Z", "2026-11-25T00:00:00Z", true, "2026-11-26T00:00:00Z"},
		{true, "2026-11-25T00:00:00Z", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z", false, "2027-01-02T00:00:00Z"},
		{false, "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z", "2026-11-25T00:00:00Z", true, "2026-12-25T00:00:00Z"}, // it was a quota a day
	} {
		q := quota{most: 100, daily: c.daily, began: at(c.began), sent: 7}
		q.at(at(c.now))
		if !q.began.Equal(at(c.begin)) || (q.sent == 7) != c.kept || !q.ends().Equal(at(c.ends)) {
			t.Errorf("%+v: %+v, ends %v", c, q, q.ends())
		}
	}
}

// A machine without a battery starts with a clock that is years behind, until it has asked others: what it sent in this period counts still, unless
// that is over.
func TestAQuotaOutlivesAClockThatStartsFarBehind(t *testing.T) {
	november, december := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC), time.Date(2026, 12, 2, 8, 0, 0, 0, time.UTC)
	for _, then := range []time.Time{november, december} {
		q := quota{most: 100, began: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), sent: 70}
		for range 3 {
			q.at(time.Date(2024, 2, 3, 0, 0, 0, 0, time.UTC))
		}
		q.sent += 5
		q.at(then)
		want := uint64(75)
		if then.Equal(december) {
			want = 0
		}
		if q.sent != want || !q.began.Equal(q.periodOf(then)) {
			t.Errorf("in %v: %d sent since %v, want %d", then.Month(), q.sent, q.began, want)
		}
		if q.at(december.AddDate(0, 1, 0)); q.sent != 0 {
			t.Errorf("a month later: %d", q.sent)
		}
	}
}

func TestAQuotaKeepsSomethingForWhatIsThere(t *testing.T) {
	for _, c := range []struct {
		most, sent uint64
		low, spent bool
	}{{0, 1 << 60, false, false}, {1000, 949, false, false}, {1000, 950, true, false}, {1000, 1000, true, true}, {1e12, 1e12 - 500e6 - 1, false, false}, {1e12, 1e12 - 500e6, true, false}} {
		q := quota{most: c.most, sent: c.sent}
		if q.low() != c.low || q.spent() != c.spent {
			t.Errorf("%d of %d: low %v, spent %v", c.sent, c.most, q.low(), q.spent())
		}
	}
}

func TestFilesOfAQuota(t *testing.T) {
	q := quota{most: 5, began: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), sent: 12345}
	text := q.encode()
	if want := "peel-quota 1\nbegan 2026-11-01T00:00:00Z\nsent 12345\n"; string(text) != want {
		t.Errorf("%q, want %q", text, want)
	}
	got := quota{most: 5}
	if err := got.parse(text); err != nil || got != q {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range text {
		if err := new(quota).parse(text[:n]); err == nil {
			t.Errorf("%q was taken", text[:n])
		}
	}
	for _, bad := range []string{"sent 012345", "sent +1", "sent -1", "sent 99999999999999999999", "sent 1e3", "sent 1\n"} {
		b := strings.Replace(string(text), "sent 12345", bad, 1)
		if err := new(quota).parse([]byte(b)); err == nil {
			t.Errorf("%q was taken", b)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, quotaFile)
	if err := os.WriteFile(path, text[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := got.load(dir, time.Now()); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a damaged file: %v", err)
	}
}

// haul fetches so much from a relay's directory over a circuit.
func haul(ctx context.Context, c *circuit.Circuit, n int) error {
	s, err := c.DialDir(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Fprintf(s, "GET /peel/measure/%d HTTP/1.0\r\n\r\n", n)
	a, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	got, err := io.Copy(io.Discard, a.Body)
	if err == nil && got != int64(n) {
		err = fmt.Errorf("%d of %d bytes", got, n)
	}
	return err
}

// A relay whose quota is used up takes nothing new, says so, and ends what there is when nothing is left; a restart changes nothing,
// and the next day it is there again.
func TestARelayPausesWhenItsQuotaIsUsedUp(t *testing.T) {
	dir := t.TempDir()
	world := func(t *testing.T) *world {
		return newWorld(t, 1, func(_ int, cfg *Config) { cfg.Quota, cfg.QuotaDaily, cfg.Dir = 40<<20, true, dir })
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(23 * time.Hour) // so that the next day is near
		w := world(t)
		r, c := w.relays[0], w.mustBuild(0)
		says := func() *directory.Descriptor {
			text, err := r.describe(&r.settled.Load().Settings, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			d, err := directory.ParseDescriptor(text)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		for range 3 {
			if err := haul(t.Context(), c, 12<<20); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(quotaLook)
		synctest.Wait()
		if p := says().Paused; !p.IsZero() || r.refusing() {
			t.Fatalf("paused until %v with a fifteenth of the quota left", p)
		}
		posted := w.descriptors()
		if err := haul(t.Context(), c, 1<<20); err != nil { // some of the rest
			t.Fatal(err)
		}
		time.Sleep(quotaLook)
		synctest.Wait()
		end := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 1)
		if p := says().Paused; !p.Equal(end) || w.descriptors() == posted {
			t.Errorf("it says it is paused until %v, want %v; %d descriptors went out", p, end, w.descriptors()-posted)
		}
		if x := r.Traffic(); !x.Paused || x.Quota != 40<<20 || x.Sent < 38<<20 || !x.Ends.Equal(end) || !strings.Contains(r.Summary(), "paused until 2000-01-02") {
			t.Errorf("%+v, %s", x, r.Summary())
		}
		if _, err := w.build(0); err == nil {
			t.Error("a new circuit")
		}
		if c.Err() != nil {
			t.Errorf("the circuit there was ended while some of the quota is left: %v", c.Err())
		}
		r.toHosts.Add(10 << 20)
		time.Sleep(quotaLook)
		synctest.Wait()
		if c.Err() == nil {
			t.Error("the circuit goes on though nothing is left")
		}
		time.Sleep(time.Until(end) + quotaLook)
		synctest.Wait()
		if p := says().Paused; !p.IsZero() {
			t.Errorf("the next day it is paused until %v", p)
		}
		w.mustBuild(0)
		w.stop[0]()
	})
	synctest.Test(t, func(t *testing.T) { // time is back, which changes nothing
		w := world(t)
		if x := w.relays[0].Traffic(); x.Sent == 0 || x.Sent > 20<<20 || x.Paused || x.Ends.Day() != 3 {
			t.Errorf("after a restart: %+v", x)
		}
		w.relays[0].toHosts.Add(39 << 20)
		time.Sleep(2 * quotaLook)
		w.stop[0]()
	})
	synctest.Test(t, func(t *testing.T) {
		w := startWorld(t, 1, func(_ int, cfg *Config) { cfg.Quota, cfg.QuotaDaily, cfg.Dir = 40<<20, true, dir })
		if x := w.relays[0].Traffic(); !x.Paused || x.Sent < 39<<20 {
			t.Errorf("after another: %+v", x)
		}
	})
}

// With a rate, what a relay sends comes to that; without, it is as fast as it can be; and it can be changed.
func TestARelayKeepsToItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.Rate, cfg.Burst = 1<<20, 64<<10 })
		r, c := w.relays[0], w.mustBuild(0)
		took := func() time.Duration {
			began := time.Now()
			if err := haul(t.Context(), c, 4<<20); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		if d := took(); d < 4*time.Second || d > 4500*time.Millisecond {
			t.Errorf("4 MiB at 1 MiB a second took %v", d)
		}
		s := r.settled.Load().Settings
		s.Rate = 0
		if err := r.Change(s); err != nil {
			t.Fatal(err)
		}
		if d := took(); d > time.Second {
			t.Errorf("without a rate it took %v", d)
		}
	})
}

// A descriptor tells of overload by the hour, for three days.
func TestOverloadIsTold(t *testing.T) {
	var o overload
	for _, c := range []struct {
		done, refused uint64
		want          bool
	}{{0, 0, false}, {1000, 0, false}, {2000, 10, false}, {2100, 15, true}, {2100, 15, false}, {2100, 16, true}} {
		if got := o.look(c.done, c.refused); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		r := w.relays[0]
		time.Sleep(90 * time.Minute)
		r.stats.Crowded.Add(1000)
		time.Sleep(observeSpan)
		synctest.Wait()
		hour := time.Now().UTC().Truncate(time.Hour)
		for _, c := range []struct {
			after time.Duration
			want  time.Time
		}{{0, hour}, {overloadTime - time.Hour, hour}, {overloadTime, time.Time{}}} {
			text, err := r.describe(&r.settled.Load().Settings, time.Now().Add(c.after))
			if err != nil {
				t.Fatal(err)
			}
			if d, err := directory.ParseDescriptor(text); err != nil || !d.Overloaded.Equal(c.want) {
				t.Errorf("after %v it says %v, %v; want %v", c.after, d.Overloaded, err, c.want)
			}
		}
	})
}
