package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Root may write everywhere but on a file system that is read-only, so the system's answer is given here.
func TestTheDoctorSeesFoldersThatCannotBeWrittenIn(t *testing.T) {
	dir := t.TempDir()
	asked := ""
	may := func(err error) func(string) error {
		return func(d string) error { asked = d; return err }
	}
	for _, folder := range []string{dir, filepath.Join(dir, "to", "be", "made")} {
		if f := checkWritable("state", folder, "why", may(nil)); len(f) != 0 || asked != dir {
			t.Errorf("%s, which can be written in: %v, asked of %s", folder, f, asked)
		}
		f := checkWritable("state", folder, "why", may(syscall.EROFS))
		if len(f) != 1 || f[0].Level != "fail" || !strings.Contains(f[0].Says, dir+" cannot be written in: read-only file system") || !strings.HasPrefix(f[0].Remedy, "why") {
			t.Errorf("%s, which cannot: %v", folder, f)
		}
	}
	if f := checkWritable("state", "", "why", may(syscall.EROFS)); f != nil {
		t.Errorf("no folder: %v", f)
	}
	if err := mayWrite(dir); err != nil {
		t.Error(err)
	}
}
