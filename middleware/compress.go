package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/polymq/polymq"
)

// Encoding compresses bodies. Gzip is one; package middleware/zstd has another, in
// a module of its own. It must be safe for concurrent use.
type Encoding interface {
	// Name is what ContentEncoding says, such as "gzip".
	Name() string
	Compress(body []byte) ([]byte, error)
	// Decompress returns at most limit bytes; more are polymq.ErrTooLarge, found
	// out without having been made.
	Decompress(body []byte, limit int) ([]byte, error)
}

// CompressOptions are the options of Compress. nil means the defaults.
type CompressOptions struct {
	// MinBytes is how long a body must be to be compressed. Default: 1 KiB.
	MinBytes int
}

// DecompressOptions are the options of Decompress. nil means the defaults.
type DecompressOptions struct {
	// MaxBytes is how long a body may become: what would be longer is refused,
	// so that a few bytes cannot fill the memory. Default: 64 MiB.
	MaxBytes int
	// Encodings are what can be decompressed. Default: Gzip.
	Encodings []Encoding
}

const (
	compressMin   = 1 << 10
	decompressMax = 64 << 20
	maxUndone     = 4 // encodings of one body: each may take the time of MaxBytes
)

// Compress compresses bodies and sets ContentEncoding. It leaves alone what is
// short, what has a ContentEncoding already, and what does not get shorter. A
// body that is too long for the backend may become short enough.
func Compress(encoding Encoding, opts *CompressOptions) polymq.PublishMiddleware {
	least := compressMin
	if opts != nil && opts.MinBytes > 0 {
		least = opts.MinBytes
	}
	return func(next polymq.PublishFunc) polymq.PublishFunc {
		return func(ctx context.Context, msgs ...*polymq.Message) error {
			out := slices.Clone(msgs)
			for i, m := range msgs {
				if m == nil || len(m.Body) < least || m.ContentEncoding != "" {
					continue
				}
				body, err := encoding.Compress(m.Body)
				if err != nil {
					return fmt.Errorf("compress message %q: %w", m.ID, err)
				}
				if len(body) < len(m.Body) {
					c := *m
					c.Body, c.ContentEncoding = body, encoding.Name()
					out[i] = &c
				}
			}
			return next(ctx, out...)
		}
	}
}

// Decompress gives the handler the body as it was, with an empty ContentEncoding.
// What comes before it in the list sees the delivery as it came. An encoding that
// is not among those listed, as the "utf-8" of some publishers, leaves the body and
// ContentEncoding as they are. What was listed and cannot be undone is a Permanent
// error: polymq.ErrTooLarge where the body would be longer than MaxBytes,
// polymq.ErrUndecodable where it is garbled, or was compressed more than 4 times.
func Decompress(opts *DecompressOptions) polymq.Middleware {
	var o DecompressOptions
	if opts != nil {
		o = *opts
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = decompressMax
	}
	if len(o.Encodings) == 0 {
		o.Encodings = []Encoding{Gzip}
	}
	return func(next polymq.Handler) polymq.Handler {
		return func(ctx context.Context, d *polymq.Delivery) error {
			if d.ContentEncoding == "" {
				return next(ctx, d)
			}
			m, err := o.decompress(d.Message)
			if err != nil {
				return polymq.Permanent(fmt.Errorf("decompress message %q: %w", d.ID, err))
			}
			came := d.Message
			d.Message = m
			defer func() { d.Message = came }()
			return next(ctx, d)
		}
	}
}

// decompress undoes the encodings of m from the last on, as long as it knows them.
func (o *DecompressOptions) decompress(m *polymq.Message) (*polymq.Message, error) {
	names := strings.Split(m.ContentEncoding, ",")
	plain := *m
	for undone := 0; len(names) > 0; {
		name := strings.ToLower(strings.TrimSpace(names[len(names)-1]))
		i := slices.IndexFunc(o.Encodings, func(e Encoding) bool { return e.Name() == name })
		if i < 0 && name != "identity" {
			break
		}
		if i >= 0 {
			if undone == maxUndone {
				return nil, fmt.Errorf("%w: content encoding %q is more than %d", polymq.ErrUndecodable, m.ContentEncoding, maxUndone)
			}
			undone++
			body, err := o.Encodings[i].Decompress(plain.Body, o.MaxBytes)
			if err != nil && !errors.Is(err, polymq.ErrTooLarge) {
				err = fmt.Errorf("%w: %w", polymq.ErrUndecodable, err)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			plain.Body = body
		}
		names = names[:len(names)-1]
	}
	plain.ContentEncoding = strings.Join(names, ",")
	return &plain, nil
}
