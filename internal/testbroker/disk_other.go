//go:build !linux

package testbroker

// Isolate does something on Linux only.
func Isolate() {}

// CanFillDisk is whether Setup.Disk works.
func CanFillDisk() bool { return false }

func mount(string, int64) error         { return errElsewhere }
func unmount(string)                    {}
func fill(string) (func() error, error) { return nil, errElsewhere }
