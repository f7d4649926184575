package middleware

import (
	"time"

	"github.com/polymq/polymq"
)

// Timeout ends the handler's ctx after d.
func Timeout(d time.Duration) polymq.Middleware { panic("unbuilt") }
