package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"peel/directory/cache"
)

// inside confines itself as a node does, and says what it can do then: in its argument's folder, and elsewhere.
func inside() {
	state := os.Args[1]
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 1 {
		fmt.Println("no landlock")
		return
	}
	err := func() error {
		read := filepath.Join(filepath.Dir(state), "conf", "relay.toml")
		if err := os.MkdirAll(filepath.Dir(read), 0o700); err != nil {
			return err
		}
		resolvers, link := filepath.Join(filepath.Dir(state), "run", "resolv.conf"), filepath.Join(filepath.Dir(state), "resolv.conf")
		if err := errors.Join(os.MkdirAll(filepath.Dir(resolvers), 0o700), os.WriteFile(resolvers, nil, 0o600), os.Symlink(resolvers, link)); err != nil {
			return err
		}
		linkedFiles = append(linkedFiles, link)
		if err := sandboxed(slog.New(slog.DiscardHandler), false, []string{state, ""}, read); err != nil {
			return err
		}
		if err := cache.WriteFile(filepath.Join(state, "file"), []byte("old")); err != nil {
			return fmt.Errorf("its own folder: %w", err)
		}
		if err := cache.WriteFile(filepath.Join(state, "file"), []byte("new")); err != nil {
			return fmt.Errorf("its own folder, again: %w", err)
		}
		if b, err := os.ReadFile(filepath.Join(state, "file")); err != nil || string(b) != "new" {
			return fmt.Errorf("its own file: %q, %w", b, err)
		}
		if _, err := os.ReadDir(filepath.Dir(read)); err != nil {
			return fmt.Errorf("its configuration: %w", err)
		}
		if _, err := os.ReadFile("/etc/hosts"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, err := os.ReadFile(link); err != nil {
			return fmt.Errorf("a file of the system's that is a link: %w", err)
		}
		for _, dir := range []string{"/root", "/home", "/", "/var", filepath.Dir(state)} {
			if _, err := os.ReadDir(dir); !errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("read %s: %v", dir, err)
			}
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(read), "more"), nil, 0o600); !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("wrote beside its configuration: %v", err)
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("confined")
}
