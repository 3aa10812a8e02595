package lab

import "golang.org/x/sys/unix"

// mountSmall puts a disk of some megabytes, in memory, over a folder. Only root can.
func mountSmall(dir string) error {
	return unix.Mount("peel-lab", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=8m,mode=700")
}

// unmount takes it away, with all that is on it.
func unmount(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }
