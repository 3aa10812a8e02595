package authority

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"peel/directory/cache"
)

// mostKept is more bytes than anything that is kept has: descriptors have maxText, and evidence may be two votes.
const mostKept = 2 * maxText

// keep holds what must outlive a crash, by name: in files of one folder, each replaced as a whole
// so that the old or the new one is found afterwards, or in memory when there is no folder.
type keep struct {
	dir   string // "": memory
	write func(name string, b []byte) error

	mu  sync.Mutex
	mem map[string][]byte // guarded by mu
}

func openKeep(dir string) (*keep, error) {
	if dir == "" {
		return &keep{mem: map[string][]byte{}}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("authority: state: %w", err)
	}
	return &keep{dir: dir, write: cache.WriteFile}, nil
}

// save keeps b under a name; when it returns, b is on the disk.
func (k *keep) save(name string, b []byte) error {
	if k.dir == "" {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.mem[name] = append([]byte{}, b...)
		return nil
	}
	if err := k.write(filepath.Join(k.dir, name), b); err != nil {
		return fmt.Errorf("authority: state: %w", err)
	}
	return nil
}

// load returns what is kept under a name, nil if nothing is.
func (k *keep) load(name string) ([]byte, error) {
	if k.dir == "" {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.mem[name], nil
	}
	b, err := cache.ReadFile(filepath.Join(k.dir, name), mostKept)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("authority: state: %w", err)
	}
	return b, nil
}
