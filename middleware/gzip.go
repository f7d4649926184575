package middleware

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/polymq/polymq"
)

// Gzip is the encoding "gzip" of compress/gzip, at its default level.
var Gzip Encoding = &gzipEncoding{}

type gzipEncoding struct {
	writers sync.Pool // of *gzip.Writer
	readers sync.Pool // of *gzip.Reader
}

func (*gzipEncoding) Name() string { return "gzip" }

func (g *gzipEncoding) Compress(body []byte) ([]byte, error) {
	var out bytes.Buffer
	w, _ := g.writers.Get().(*gzip.Writer)
	if w == nil {
		w = gzip.NewWriter(&out)
	} else {
		w.Reset(&out)
	}
	defer g.writers.Put(w)
	if _, err := w.Write(body); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (g *gzipEncoding) Decompress(body []byte, limit int) ([]byte, error) {
	r, _ := g.readers.Get().(*gzip.Reader)
	if r == nil {
		r = new(gzip.Reader)
	}
	defer g.readers.Put(r)
	if err := r.Reset(bytes.NewReader(body)); err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(r, int64(min(limit, math.MaxInt-1))+1))
	if err != nil {
		return nil, err
	}
	if len(plain) > limit {
		return nil, fmt.Errorf("%w: the body is longer than %d bytes", polymq.ErrTooLarge, limit)
	}
	return plain, nil
}
