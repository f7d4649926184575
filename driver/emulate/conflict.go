package emulate

import (
	"fmt"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

func sameExchange(was, ask routing.Exchange) error {
	return conflict("exchange", ask.Name, was.Differences(ask))
}

func sameQueue(was, ask routing.Queue) error {
	return conflict("queue", ask.Name, was.Differences(ask))
}

// conflict names the first field that differs.
func conflict(kind, name string, differences []routing.Difference) error {
	if len(differences) == 0 {
		return nil
	}
	return fmt.Errorf("%s %q: %w: %v", kind, name, driver.ErrConflict, differences[0])
}
