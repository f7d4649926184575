package polymq

import "github.com/polymq/polymq/driver"

// State is the state of a connection, as Options.OnState hears of it.
type State = driver.State

// The states.
const (
	StateConnected    = driver.Connected    // serving
	StateDisconnected = driver.Disconnected // lost, and being made again; calls wait for their ctx
	StateBlocked      = driver.Blocked      // alive, but the broker takes no publishes for now
	StateClosed       = driver.Closed       // for good
)
