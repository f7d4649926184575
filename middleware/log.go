package middleware

import (
	"log/slog"

	"github.com/polymq/polymq"
)

// Log writes one line for every delivery.
func Log(l *slog.Logger, level slog.Level) polymq.Middleware { panic("unbuilt") }
