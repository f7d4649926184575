package testbroker

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// locks keeps the lock of each data folder for as long as this process lives.
var locks struct {
	sync.Mutex
	files map[string]*os.File
}

// scratch makes a data folder, and removes those of processes that crashed:
// a lock tells which are in use, and the system drops it with its process.
func scratch() (string, error) {
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), "polymq-broker-*"))
	for _, dir := range old {
		// A folder this young may not have its lock yet.
		if i, err := os.Stat(dir); err != nil || time.Since(i.ModTime()) < time.Minute {
			continue
		}
		if f, err := lock(dir); err == nil {
			_ = os.RemoveAll(dir)
			f.Close()
		}
	}
	dir, err := os.MkdirTemp("", "polymq-broker-")
	if err != nil {
		return "", err
	}
	f, err := lock(dir)
	if err != nil {
		return "", err
	}
	locks.Lock()
	defer locks.Unlock()
	if locks.files == nil {
		locks.files = make(map[string]*os.File)
	}
	locks.files[dir] = f
	return dir, nil
}

func removeScratch(dir string) error {
	locks.Lock()
	defer locks.Unlock()
	if f := locks.files[dir]; f != nil {
		f.Close()
		delete(locks.files, dir)
	}
	return os.RemoveAll(dir)
}

func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
