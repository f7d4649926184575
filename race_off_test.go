//go:build !race

package polymq_test

const raceEnabled = false
