package main

import "errors"

var (
	errDeclined = errors.New("the card was declined")
	errBusy     = errors.New("the bank does not answer")
)

// bank is the service that does not always work. One handler at a time uses it.
type bank struct {
	declines string         // the order whose card is no good
	busy     map[string]int // how many more calls for an order fail
}

func (b *bank) charge(order string) error {
	if order == b.declines {
		return errDeclined
	}
	if b.busy[order] > 0 {
		b.busy[order]--
		return errBusy
	}
	return nil
}
