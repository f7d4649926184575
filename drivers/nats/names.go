package nats

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Where everything of a namespace is. ns is the namespace, escaped.
//
//	stream  POLYMQ_<ns>_topology      the topology and the leases
//	        polymq.<ns>.t.<epoch>.v             its version
//	        polymq.<ns>.t.<epoch>.e.<element>   an element
//	        polymq.<ns>.t.<epoch>.l.<client>    a client's lease
//	        polymq.<ns>.t.<epoch>.l.lead        who looks after the queues
//	stream  POLYMQ_<ns>_q_<queue>     a queue, by its incarnation
//	        polymq.<ns>.q.<queue>.m             its messages
//	        polymq.<ns>.q.<queue>.c.<consumer>  a consumer is there
//	        polymq.<ns>.q.<queue>.r.<sequence>  deliveries that do not count
//	        polymq.<ns>.q.<queue>.u             when it was last used
//	        polymq.<ns>.q.<queue>.e             deeds, of a queue with a book
//	        polymq.<ns>.q.<queue>.s             its snapshot
//	core    polymq.<ns>.changed       the topology changed
//	        polymq.<ns>.held.<queue>  asks the queue's consumers what they hold
type names struct{ ns string }

func (n names) topologyStream() string { return "POLYMQ_" + n.ns + "_topology" }
func (n names) topology(epoch string) string {
	return "polymq." + n.ns + ".t." + epoch
}
func (n names) changed() string                       { return "polymq." + n.ns + ".changed" }
func (n names) queueStream(incarnation string) string { return "POLYMQ_" + n.ns + "_q_" + incarnation }
func (n names) queue(incarnation string) string       { return "polymq." + n.ns + ".q." + incarnation }
func (n names) held(incarnation string) string        { return "polymq." + n.ns + ".held." + incarnation }

// maxToken bounds an escaped name: stream names are folder names too.
const maxToken = 64

// token makes of any name a stream name and subject token: letters, digits
// and - stay, every other byte becomes _ and two hexadecimal digits, and what
// is then too long becomes _h and a hash, which no escape can be.
func token(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('_')
		b.WriteByte(upperHex[c>>4])
		b.WriteByte(upperHex[c&15])
	}
	if b.Len() > maxToken || b.Len() == 0 {
		sum := sha256.Sum256([]byte(name))
		return "_h" + hex.EncodeToString(sum[:16])
	}
	return b.String()
}

const upperHex = "0123456789ABCDEF"
