package cache

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// What is written is for its owner only, whatever was there before, and nothing of it ever stands in a folder that everybody shares:
// there others see when it is written, and keys stay behind after a crash.
func TestNothingOfAFileIsWrittenElsewhere(t *testing.T) {
	shared, dir := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", shared)
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(shared, long, long); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(shared)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "secret")
	if err := os.WriteFile(name, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(name, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(shared); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("something was written to the folder for temporary files: %v", err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
	if st, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: others can read it", st.Mode(), err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("%v, %v: something was left", all, err)
	}
}
