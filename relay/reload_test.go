package relay

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"

	"peel/cell"
	"peel/directory"
)

// Another resolver, given to a running relay, is asked from then on; streams that are there run on.
func TestAnotherResolverIsAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("1.1.1.1")
		answers := func(a netip.Addr) names {
			return names{func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{a}, nil }}
		}
		w := newWorld(t, 1, exits(0), func(_ int, cfg *Config) { cfg.Resolver = &resolverOf{answers(first)} })
		c := w.mustBuild(0)
		asked := func() string {
			r, err := c.Resolve(t.Context(), cell.Resolve{Name: "name.example"})
			if err != nil || len(r.Answers) == 0 {
				t.Fatalf("%+v, %v", r, err)
			}
			return r.Answers[0].Addr.String()
		}
		if a := asked(); a != first.String() {
			t.Errorf("the first said %s", a)
		}
		s := w.relays[0].settled.Load().Settings
		s.Resolver = &resolverOf{answers(second)}
		if err := w.relays[0].Change(s); err != nil {
			t.Fatal(err)
		}
		if a := asked(); a != second.String() {
			t.Errorf("the second said %s", a)
		}
		if c.Err() != nil {
			t.Error(c.Err())
		}
	})
}

// resolverOf can be compared, as resolvers are.
type resolverOf struct{ names }

// Reloads of good and bad settings, over and over while streams carry bytes, drop none of them; what is bad is never in force.
func TestReloadsDropNoStream(t *testing.T) {
	reloads := 60
	if os.Getenv("PEEL_SLOW") == "1" {
		reloads = 1000
	} else {
		t.Logf("%d reloads: PEEL_SLOW=1 makes it 1000", reloads)
	}
	port := hostOf(t, echo).Port
	w := newWorld(t, 3, exits(2))
	r := w.relays[2]
	text := make([]byte, 64<<10)
	for i := range text {
		text[i] = byte(i * 31)
	}
	began := make(chan struct{})
	close(began)
	stop := make(chan struct{})
	var load sync.WaitGroup
	var mu sync.Mutex
	done, failed := 0, []error(nil)
	some := make(chan struct{}, 1)
	for range 3 {
		c := w.mustBuild(0, 1, 2)
		load.Go(func() {
			for {
				err := echoed(t.Context(), c, port, text, func() {}, began)
				mu.Lock()
				done++
				if err != nil {
					failed = append(failed, err)
				}
				mu.Unlock()
				select {
				case some <- struct{}{}:
				default:
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	good := r.settled.Load().Settings
	for i := range reloads {
		s := good
		s.Contact = []string{"one", "another"}[i%2]
		switch i % 3 {
		case 1:
			s.Exit = directory.Policy{{Accept: true, Lo: 80, Hi: 79}} // no policy
		case 2:
			s.Contact = "a\nb" // no contact
		}
		err := r.Change(s)
		if bad := i%3 != 0; bad != (err != nil) {
			t.Errorf("reload %d: %v", i, err)
		}
		if now := r.settled.Load(); now.exit == nil || i%3 == 0 && now.Contact != s.Contact || len(now.Exit) != len(good.Exit) {
			t.Fatalf("reload %d: in force is %+v", i, now.Settings)
		}
		if i%10 == 0 {
			<-some // a transfer has ended meanwhile
		}
	}
	close(stop)
	load.Wait()
	if err := errors.Join(failed...); err != nil {
		t.Errorf("%d of %d streams were lost: %v", len(failed), done, err)
	}
	t.Logf("%d reloads, %d transfers of %d KiB", reloads, done, len(text)>>10)
}
