package relay

import (
	"bytes"
	"crypto/ecdh"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/link/linktest"
	"peel/directory/cache"
)

const day = 24 * time.Hour

func TestOnionKeysTurnEverySevenDays(t *testing.T) {
	start := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	fresh := func() (*ecdh.PrivateKey, error) { return newOnionKey() }
	first, err := newOnionKey()
	if err != nil {
		t.Fatal(err)
	}
	o := onionKeys{current: first, since: start}
	was := map[string]time.Duration{} // key → when it was seen first
	for at := time.Duration(0); at < 40*day; at += time.Hour {
		next, changed, err := o.at(start.Add(at), witness{sure: true}, fresh)
		if err != nil {
			t.Fatal(err)
		}
		if changed != (at > 0 && at%(7*day) == 0) {
			t.Fatalf("after %v: changed %v", at, changed)
		}
		if changed && next.previous != o.current {
			t.Fatalf("after %v: the key before is not honoured", at)
		}
		o = next
		for _, k := range []*ecdh.PrivateKey{o.current, o.previous} {
			if k == nil {
				continue
			}
			name := string(k.PublicKey().Bytes())
			if _, known := was[name]; !known {
				was[name] = at
			}
			if age := at - was[name]; age >= 14*day {
				t.Fatalf("a key is honoured for %v", age)
			}
		}
		if w := o.wait(start.Add(at)); w <= 0 || w > time.Hour {
			t.Fatalf("after %v: wait %v", at, w)
		}
	}
	if len(was) != 6 {
		t.Errorf("%d keys in 40 days", len(was))
	}
}

func TestOnionKeysAfterAnAbsenceOrAWrongClock(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	key, err := newOnionKey()
	if err != nil {
		t.Fatal(err)
	}
	sure := witness{sure: true}
	for name, c := range map[string]struct {
		made    time.Duration // from now
		w       witness
		changed bool // so that they are written
		stays   bool
		honours bool          // the old one, where it does not stay
		since   time.Duration // from now
	}{
		"just made":                            {0, sure, false, true, false, 0},
		"a clock an hour behind":               {time.Hour, sure, false, true, false, time.Hour},
		"almost a week":                        {-7*day + time.Second, sure, false, true, false, -7*day + time.Second},
		"a week":                               {-7 * day, sure, true, false, true, 0},
		"away for ten days":                    {-10 * day, sure, true, false, true, 0},
		"away for two weeks":                   {-14 * day, sure, true, false, false, 0},
		"away for a year":                      {-365 * day, sure, true, false, false, 0},
		"made by a clock far behind":           {-365 * day, witness{sure: true, named: true}, true, false, true, 0},
		"made by a clock far ahead":            {365 * day, sure, true, true, false, 0},
		"and three days ago":                   {365 * day, witness{sure: true, ran: 3 * day}, true, true, false, -3 * day},
		"and a week ago":                       {365 * day, witness{sure: true, ran: 7 * day}, true, false, true, 0},
		"who knows whether the clock is right": {-30 * 365 * day, witness{ran: 9 * day}, false, true, false, -30 * 365 * day},
		"or else":                              {30 * 365 * day, witness{ran: 9 * day, unaware: 7*day - time.Second}, false, true, false, 30 * 365 * day},
		"but for a week":                       {-30 * 365 * day, witness{ran: 7 * day, unaware: 7 * day}, true, false, false, 0},
		"or else, but for a week":              {30 * 365 * day, witness{ran: 9 * day, unaware: 7 * day}, true, false, false, 0},
	} {
		o := onionKeys{current: key, since: now.Add(c.made)}
		next, changed, err := o.at(now, c.w, newOnionKey)
		if err != nil || changed != c.changed || (next.current == key) != c.stays || (next.previous == key) != c.honours {
			t.Errorf("%s: changed %v, stays %v, honoured %v, %v", name, changed, next.current == key, next.previous == key, err)
		}
		if !next.since.Equal(now.Add(c.since)) {
			t.Errorf("%s: made %v", name, next.since)
		}
		if w := next.wait(now); w < time.Second || w > onionLook {
			t.Errorf("%s: wait %v", name, w)
		}
	}
	failing := errors.New("no chance")
	o := onionKeys{current: key, since: now.Add(-8 * day)}
	if next, changed, err := o.at(now, sure, func() (*ecdh.PrivateKey, error) { return nil, failing }); !errors.Is(err, failing) || changed || next != o {
		t.Errorf("%v, %v", changed, err)
	}
}

func someOnion(t testing.TB, previous bool) onionKeys {
	t.Helper()
	o := onionKeys{since: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)}
	var err error
	if o.current, err = newOnionKey(); err != nil {
		t.Fatal(err)
	}
	if previous {
		if o.previous, err = newOnionKey(); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func sameOnion(a, b onionKeys) bool {
	return a.current.Equal(b.current) && a.since.Equal(b.since) && (a.previous == nil) == (b.previous == nil) && (a.previous == nil || a.previous.Equal(b.previous))
}

func TestTheFileOfOnionKeysCutAnywhereIsRefused(t *testing.T) {
	for _, previous := range []bool{false, true} {
		o := someOnion(t, previous)
		text, err := o.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseOnionKeys(text); err != nil || !sameOnion(got, o) {
			t.Fatalf("%v", err)
		}
		one, err := onionKeys{current: o.current, since: o.since}.encode()
		if err != nil {
			t.Fatal(err)
		}
		for n := range text {
			if _, err := parseOnionKeys(text[:n]); err == nil && n != len(one) { // whole without the one before
				t.Errorf("%d of %d bytes are keys", n, len(text))
			}
		}
		for _, bad := range [][]byte{append(bytes.Clone(text), '\n'), append(bytes.Clone(text), text...), bytes.Replace(text, []byte("\n-"), []byte("\nx\n-"), 1), bytes.Replace(text, []byte("made"), []byte("Made"), 1)} {
			if _, err := parseOnionKeys(bad); err == nil {
				t.Errorf("taken:\n%s", bad)
			}
		}
	}
}

func FuzzOnionKeys(f *testing.F) {
	for _, previous := range []bool{false, true} {
		text, err := someOnion(f, previous).encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add(text[:len(text)-1])
		f.Add(append(bytes.Clone(text), '\n'))
		f.Add(bytes.ToLower(text))
		f.Add(bytes.Replace(text, []byte("-----BEGIN"), []byte("x\n-----BEGIN"), 1))
		f.Add(bytes.Replace(text, []byte("PRIVATE KEY-----\n"), []byte("PRIVATE KEY-----\nA: b\n\n"), 1))
		f.Add(bytes.Replace(text, []byte("made 2026"), []byte("made 1"), 1))
		f.Add(append(bytes.Clone(text), text[bytes.IndexByte(text, '\n')+1:]...))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := parseOnionKeys(text)
		if err != nil {
			return
		}
		if again, err := o.encode(); err != nil || !bytes.Equal(again, text) {
			t.Errorf("prints back otherwise: %v", err)
		}
		if o.current == nil {
			t.Error("no key")
		}
	})
}

// Writing new keys is: a file beside the old one, byte by byte; its name. Whatever step a crash comes at, a start finds the old or the new keys,
// nothing is left beside them, and the identity is the same.
func TestACrashLeavesOldOrNewOnionKeys(t *testing.T) {
	old := someKeys(t)
	old.Made = time.Date(2026, 11, 18, 12, 0, 0, 0, time.UTC)
	next := someOnion(t, false)
	next.previous = old.Onion
	text, err := next.encode()
	if err != nil {
		t.Fatal(err)
	}
	load := func(dir string) Keys {
		t.Helper()
		cache.Sweep(dir) // as New does
		k, err := LoadKeys(dir)
		if err != nil {
			t.Fatal(err)
		}
		if k.ID() != old.ID() || !k.Link.Equal(old.Link) {
			t.Fatal("another identity")
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
			t.Fatalf("left behind: %v", left)
		}
		return k
	}
	dir := folder(t)
	if err := old.Save(dir); err != nil {
		t.Fatal(err)
	}
	for n := 0; n <= len(text); n++ { // the file beside it, cut off by the crash
		if err := os.WriteFile(filepath.Join(dir, "."+onionFile+".peel-123456"), text[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if k := load(dir); !k.Onion.Equal(old.Onion) || k.Previous != nil {
			t.Fatalf("after %d bytes: other keys", n)
		}
	}
	if err := saveOnion(cache.WriteFile, dir, next); err != nil {
		t.Fatal(err)
	}
	if k := load(dir); !k.Onion.Equal(next.current) || !k.Previous.Equal(old.Onion) || !k.Made.Equal(next.since) {
		t.Fatal("not the new keys")
	}
	// A damaged file is an error, not a reason for new keys.
	if err := os.WriteFile(filepath.Join(dir, onionFile), text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeys(dir); err == nil || !strings.Contains(err.Error(), onionFile) {
		t.Errorf("%v", err)
	}
}

// A folder is made in steps too. Until the last there is no identity in it, and a start says what is missing.
func TestACrashWhileAFolderIsMadeLeavesNoIdentity(t *testing.T) {
	whole := folder(t)
	if err := someKeys(t).Save(whole); err != nil {
		t.Fatal(err)
	}
	for _, there := range [][]string{{}, {onionFile}, {onionFile, linkFile}} {
		dir := folder(t)
		for _, name := range there {
			b, err := os.ReadFile(filepath.Join(whole, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := LoadKeys(dir); err == nil || !strings.Contains(err.Error(), identityFile) {
			t.Errorf("%v: %v", there, err)
		}
		if files, _ := os.ReadDir(dir); len(files) != len(there) {
			t.Errorf("%v: a start made files: %v", there, files)
		}
	}
}

func TestAFolderThatOthersCanLookIntoIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes here")
	}
	dir := folder(t)
	if err := someKeys(t).Save(dir); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o750, 0o705, 0o770, 0o701} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKeys(dir); err == nil || !strings.Contains(err.Error(), "chmod 700 "+dir) {
			t.Errorf("%v: %v", mode, err)
		}
	}
}

func TestWhatAnOldFileHeldIsOverwritten(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be replaced here")
	}
	dir := folder(t)
	if err := someKeys(t).Save(dir); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, onionFile)) // holds what the name no longer does
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := saveOnion(cache.WriteFile, dir, someOnion(t, true)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, mostKeyFile)
	n, _ := f.Read(b)
	if n == 0 || bytes.Trim(b[:n], "\x00") != nil && len(bytes.Trim(b[:n], "\x00")) > 0 {
		t.Errorf("%q is still there", b[:n])
	}
}

// A relay that runs turns its key, tells the authorities at once, and lets those in who have the directory of before; a week later it does not.
func TestClientsWithAnOldDirectoryGetInAfterATurn(t *testing.T) {
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) {
		var keys Keys
		w := newWorld(t, 1, func(_ int, cfg *Config) {
			cfg.Keys.Made = time.Now()
			if err := cfg.Keys.Save(dir); err != nil {
				t.Fatal(err)
			}
			cfg.KeyDir, keys = dir, cfg.Keys
			if err := os.WriteFile(filepath.Join(dir, "."+onionFile+".peel-1"), []byte("a key that a crash left"), 0o600); err != nil {
				t.Fatal(err)
			}
		})
		if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		r := w.relays[0]
		posted := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.posted
		}
		old := w.hops[0].OnionKey
		synctest.Wait()
		before := posted()
		w.mustBuild(0)
		if err := r.turnOnion(time.Now().Add(7*day), witness{sure: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if posted() <= before {
			t.Error("the authorities were not told")
		}
		w.mustBuild(0) // by the old directory
		w.hops[0].OnionKey = linktest.Public(r.onion.Load().current)
		if w.hops[0].OnionKey == old {
			t.Fatal("the key is the old one")
		}
		w.mustBuild(0)
		k, err := LoadKeys(dir)
		if err != nil || !k.Onion.Equal(r.onion.Load().current) || !k.Previous.Equal(keys.Onion) || k.ID() != keys.ID() {
			t.Fatalf("on the disk: %v", err)
		}
		if err := r.turnOnion(time.Now().Add(14*day), witness{sure: true}); err != nil {
			t.Fatal(err)
		}
		w.hops[0].OnionKey = old
		if _, err := w.buildOver(t.Context(), w.connect(0), w.hops[:1]); err == nil {
			t.Error("a key of two weeks ago is honoured")
		}
		if k, err := LoadKeys(dir); err != nil || k.Onion.Equal(keys.Onion) || k.Previous.Equal(keys.Onion) {
			t.Errorf("the first key is still on the disk: %v", err)
		}
	})
}

// Where new keys cannot be written, none are used: after a restart nobody would have them.
func TestKeysThatCannotBeWrittenAreNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.KeyDir = filepath.Join(t.TempDir(), "none") })
		r := w.relays[0]
		before := r.onion.Load()
		if err := r.turnOnion(time.Now().Add(8*day), witness{sure: true}); err == nil {
			t.Error("no error")
		}
		if r.onion.Load() != before {
			t.Error("the keys are others")
		}
		w.mustBuild(0)
	})
}
