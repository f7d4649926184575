// Package bench holds the side-by-side benchmarks: polymq and its peers in one
// run, doing the same work.
//
//	go test -bench=Topic -benchtime=1s .     (routing beside nats-server's gsl; a minute, 2 GB)
//
// The numbers are worth something only beside each other: compare rows of one
// run.
package bench
