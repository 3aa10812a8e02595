package cache

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What WriteFile was writing when its program was killed is removed by the next node that has the folder, whatever file it was to be; what is of
// other programs stays, and so does all while another node has the folder.
func TestWhatWasBeingWrittenIsSwept(t *testing.T) {
	dir := t.TempDir()
	other := []string{
		".quota", ".quota123", ".quota.peel-", ".quota.peel-12a", ".quota.peel-123~", "quota.peel-123", ".peel-123", ".quota.swp", "quota", "virtual-prefix",
	}
	var ours []string
	for _, name := range []string{"quota", "virtual-prefix", "guards-0123456789abcdef.toml", "consensus", "build-times.toml", "vote-aaaa-0", "admin.token", "a.peel-1"} {
		f, err := os.CreateTemp(dir, unfinished(name))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		ours = append(ours, filepath.Base(f.Name()))
	}
	for _, name := range other {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, ".folder.peel-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	other = append(other, ".folder.peel-1", holdFile)
	names := func() (list []string) {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			list = append(list, f.Name())
		}
		return list
	}
	unlock, err := Lock(filepath.Join(dir, holdFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Hold(dir, nil); !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
	if got := names(); len(got) != len(ours)+len(other) {
		t.Errorf("while another node had the folder: %v", got)
	}
	unlock()
	release, err := Hold(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	slices.Sort(other)
	if got := names(); !slices.Equal(got, other) {
		t.Errorf("left: %v, want %v", got, other)
	}
}
