package testbroker

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A crashed run's data folders are removed by a later run; those in use stay.
func TestScratch(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	used, err := scratch()
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(os.TempDir(), "polymq-broker-crashed")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	longAgo := time.Now().Add(-time.Hour)
	for _, dir := range []string{used, left} {
		if err := os.Chtimes(dir, longAgo, longAgo); err != nil {
			t.Fatal(err)
		}
	}
	second, err := scratch()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("the crashed run's folder: %v", err)
	}
	if _, err := os.Stat(used); err != nil {
		t.Errorf("the folder in use: %v", err)
	}
	for _, dir := range []string{used, second} {
		if err := removeScratch(dir); err != nil {
			t.Error(err)
		}
	}
}
