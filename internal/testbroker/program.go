package testbroker

import (
	"os"
	"os/exec"
	"path/filepath"
)

// A program is what a broker is started from.
type program struct {
	path string
	// tree is the root of the file tree of another system that the program
	// belongs to and runs in; "" where it is this system's own.
	tree string
}

// programAt is the program at path. One below the root of a system's files (as
// debootstrap makes them) needs that system's libraries.
func programAt(path string) program {
	for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "etc", "os-release")); err == nil {
			return program{path: path[len(dir):], tree: dir}
		}
	}
	return program{path: path}
}

// home is where the program finds the data folder dir, its working directory.
func (p program) home(dir string) string {
	if p.tree == "" {
		return dir
	}
	return "/mnt"
}

// enter makes mounts that only the program sees, so that none is left when it
// ends, and becomes the program: its process is the one that was started.
const enter = `
tree=$1
shift
for dir in proc dev; do
	mount --rbind /$dir "$tree/$dir"
done
mount --bind . "$tree/mnt"
exec chroot "$tree" "$@"`

// command runs the program; its working directory must be the data folder.
func (p program) command(args ...string) *exec.Cmd {
	if p.tree == "" {
		return exec.Command(p.path, args...)
	}
	unshare := []string{"--mount", "--propagation", "private", "--", "sh", "-ec", enter, "sh", p.tree, p.path}
	if os.Getuid() != 0 {
		unshare = append([]string{"--user", "--map-root-user"}, unshare...)
	}
	return exec.Command("unshare", append(unshare, args...)...)
}
