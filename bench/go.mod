module github.com/polymq/polymq/bench

go 1.26.0

require (
	github.com/nats-io/nats-server/v2 v2.15.2
	github.com/polymq/polymq v0.0.0
)

replace github.com/polymq/polymq => ..
