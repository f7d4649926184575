// Package sealed is a driver in under 300 lines that works on every other: it
// encrypts the body of a message before it leaves the process, and decrypts it
// when it is delivered. The broker sees keys, headers and properties, which it
// routes by, and bodies that it can neither read nor change.
//
//	sealed+amqp://guest:guest@localhost/?key-file=/etc/shop/key
//
// Each scheme of the four drivers has such a form. The key file holds 32 bytes
// as 64 hexadecimal digits; without one the key is made anew in each process,
// for tests and for brokers in memory. Other options are the driver's own.
//
// A body is sealed by AES-256-GCM together with the message's ID, so that nobody
// can give one message the body of another. What does not open is delivered all
// the same, with an empty body and the header [Broken], for the application to
// reject: a driver never loses a message that it does not understand. A nonce is
// random, so a key is good for 2^32 messages.
//
// It adds no goroutine. It passes the conformance suite as the driver does that
// it seals, but for the two rows about exact limits in bytes: routing.Queue's
// MaxBytes counts the seals too, 28 bytes a message.
package sealed

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/drivers/amqp"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/drivers/nats"
	"github.com/polymq/polymq/drivers/redis"
)

const prefix = "sealed+"

func init() {
	for scheme, inner := range map[string]driver.Driver{
		"mem": mem.Driver, "amqp": amqp.Driver{}, "amqps": amqp.Driver{}, "nats": nats.Driver{}, "tls+nats": nats.Driver{},
		"redis": redis.Driver{}, "rediss": redis.Driver{}, "valkey": redis.Driver{}, "valkeys": redis.Driver{},
	} {
		polymq.Register(prefix+scheme, opener{inner})
	}
}

type opener struct{ inner driver.Driver }

// Open takes its own option and leaves the rest to the driver that it seals,
// which refuses what neither knows.
func (o opener) Open(ctx context.Context, u *driver.URL, cfg driver.Config) (driver.Conn, error) {
	seal, err := newSeal(u.Text("key-file", ""))
	if err != nil {
		return nil, err
	}
	u.Scheme = strings.TrimPrefix(u.Scheme, prefix)
	c, err := o.inner.Open(ctx, u, cfg)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, seal: seal}, nil
}

// processKey is for connections without a key file.
var processKey = rand.Text() + rand.Text()

func newSeal(file string) (cipher.AEAD, error) {
	key := []byte(processKey)[:32]
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("the option key-file: %w", err)
		}
		if key, err = hex.DecodeString(strings.TrimSpace(string(text))); err != nil || len(key) != 32 {
			return nil, errors.New("the option key-file: the file must hold 64 hexadecimal digits: openssl rand -hex 32 makes them")
		}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
