// Package nowait reads from sockets and writes to them without waiting, beside the
// net package's own calls, which wait.
//
// That is had of TCP and Unix sockets on Unix. Of others, TLS among them, nothing
// is read or written here: 0 sends the caller to Read and Write, which find out
// about errors as well.
package nowait
