package main

import (
	"log/slog"
	"path/filepath"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// systemFiles are what the process reads of the machine while it runs: its resolvers and hosts, time zones, memory limits.
var systemFiles = []string{"/etc", "/run/systemd/resolve", "/run/resolvconf", "/usr/share/zoneinfo", "/proc/self", "/sys/fs/cgroup", "/lib", "/lib64", "/usr/lib"}

// linkedFiles are those of them that are often links into a folder of whoever writes them: NetworkManager's, netconfig's, connman's, a container's.
var linkedFiles = []string{"/etc/resolv.conf", "/etc/hosts"}

// linkedFolders are where those files really are.
func linkedFolders() (dirs []string) {
	for _, name := range linkedFiles {
		if real, err := filepath.EvalSymlinks(name); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	return dirs
}

// confine takes from the process, for good, all files but those below the folders written and read, and systemFiles for reading. It
// is called when keys are read and sockets are open. Where the kernel cannot do it, it says so and the node goes on.
func confine(log *slog.Logger, written, read []string) error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		log.Info("this kernel has no landlock: the process can read all files of its user")
		return nil
	}
	rules := []landlock.Rule{landlock.RODirs(read...), landlock.RODirs(append(linkedFolders(), systemFiles...)...).IgnoreIfMissing(), landlock.RWFiles("/dev/null").IgnoreIfMissing()}
	if len(written) > 0 {
		rules = append(rules, landlock.RWDirs(written...))
	}
	if err := landlock.V5.BestEffort().RestrictPaths(rules...); err != nil {
		return err
	}
	log.Debug("confined to its own files", "landlock", abi)
	return nil
}
