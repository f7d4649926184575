// Package zstd has Zstandard for middleware.Compress and middleware.Decompress.
//
//	middleware.Compress(zstd.Encoding, nil)
//	middleware.Decompress(&middleware.DecompressOptions{Encodings: []middleware.Encoding{zstd.Encoding, middleware.Gzip}})
//
// It is a module of its own for its requirement, github.com/klauspost/compress.
package zstd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
)

// Encoding is the encoding "zstd", at the encoder's default level. It takes frames
// whose window is at most 8 MiB, as RFC 8878 says a decoder should.
var Encoding middleware.Encoding = &encoding{}

const maxWindow = 8 << 20

type encoding struct {
	once    sync.Once
	encoder *zstd.Encoder // for EncodeAll, which is safe for concurrent use
	err     error
	readers sync.Pool // of *zstd.Decoder, without goroutines
}

func (*encoding) Name() string { return "zstd" }

func (e *encoding) Compress(body []byte) ([]byte, error) {
	e.once.Do(func() { e.encoder, e.err = zstd.NewWriter(nil) })
	if e.err != nil {
		return nil, e.err
	}
	return e.encoder.EncodeAll(body, nil), nil
}

func (e *encoding) Decompress(body []byte, limit int) ([]byte, error) {
	r, _ := e.readers.Get().(*zstd.Decoder)
	if r == nil {
		var err error
		// One goroutine's worth: what the pool lets go of leaves none behind.
		r, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
	}
	defer e.readers.Put(r)
	if err := r.Reset(bytes.NewReader(body)); err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(r, int64(min(limit, math.MaxInt-1))+1))
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return nil, fmt.Errorf("%w: %w", polymq.ErrTooLarge, err)
	}
	if err != nil {
		return nil, err
	}
	if len(plain) > limit {
		return nil, fmt.Errorf("%w: the body is longer than %d bytes", polymq.ErrTooLarge, limit)
	}
	return plain, nil
}
