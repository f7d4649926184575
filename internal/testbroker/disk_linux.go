package testbroker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// isolated is set in the environment of a process that Isolate has started.
const isolated = "POLYMQ_TEST_ISOLATED"

// Isolate starts this program once more, where it may make file systems that no
// other process sees and that end with it: call it first in TestMain. It returns
// there, and in a process where the system does not allow it; CanFillDisk tells
// which.
func Isolate() {
	if os.Getenv(isolated) != "" {
		return
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return
	}
	args := []string{unshare, "--mount", "--propagation", "private"}
	if os.Getuid() != 0 {
		args = append(args, "--user", "--map-root-user")
	}
	args = append(args, "--")
	try := append(args[1:len(args):len(args)], "mount", "-t", "tmpfs", "-o", "size=64k", "none", os.TempDir())
	if exec.Command(unshare, try...).Run() != nil {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	args = append(append(args, self), os.Args[1:]...)
	_ = syscall.Exec(unshare, args, append(os.Environ(), isolated+"=1")) // it returns only where it fails
}

// CanFillDisk is whether Setup.Disk works.
func CanFillDisk() bool { return os.Getenv(isolated) != "" }

func mount(dir string, size int64) error {
	err := syscall.Mount("polymq", dir, "tmpfs", 0, "mode=700,size="+strconv.FormatInt(size, 10))
	if err != nil {
		return fmt.Errorf("a file system for %s: %w", dir, err)
	}
	return nil
}

func unmount(dir string) { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }

// fill takes all room that is left in dir, and returns how to give it back.
func fill(dir string) (free func() error, err error) {
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for size := int64(1 << 30); size >= 1; { // down to the last block
		var used int64
		if info, err := f.Stat(); err == nil {
			used = info.Size()
		}
		if syscall.Fallocate(int(f.Fd()), 0, used, size) != nil {
			size /= 2
		}
	}
	return func() error { return os.Remove(name) }, nil
}
