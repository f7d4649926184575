package mem

import "github.com/polymq/polymq/driver/emulate"

// WriteNewer adds an element to every namespace of a broker that only a later
// version of the library can read.
func WriteNewer(name string) error {
	spaces, _ := find(name)
	for _, sp := range spaces {
		at := sp.topology.load(emulate.Version{}).Version
		if _, err := sp.topology.apply(at, []emulate.Element{{Name: "x.newer", Data: []byte(`{"v":1000}`)}}); err != nil {
			return err
		}
	}
	return nil
}
