package nats

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// An nkey is an ed25519 key as NATS writes it.
type nkey struct {
	prefix  byte
	private ed25519.PrivateKey
}

// The kinds of nkeys.
const (
	operatorKey = 14 << 3
	accountKey  = 0
	userKey     = 20 << 3
	seedOf      = 18 << 3
)

func newNkey(t testing.TB, prefix byte) nkey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return nkey{prefix, private}
}

func (k nkey) public() string {
	return checksummed(append([]byte{k.prefix}, k.private.Public().(ed25519.PublicKey)...))
}

func (k nkey) seed() string {
	return checksummed(append([]byte{seedOf | k.prefix>>5, k.prefix & 31 << 3}, k.private.Seed()...))
}

// checksummed is base32 of b and its CRC-16/XMODEM.
func checksummed(b []byte) string {
	crc := uint16(0)
	for _, c := range b {
		crc ^= uint16(c) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			if crc <<= 1; carry {
				crc ^= 0x1021
			}
		}
	}
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(binary.LittleEndian.AppendUint16(b, crc))
}

// jwt is k's word about a key.
func (k nkey) jwt(t testing.TB, about nkey, kind string, expires time.Time, claims map[string]any) string {
	t.Helper()
	claims["type"], claims["version"] = kind, 2
	payload := map[string]any{"jti": rand.Text(), "iat": time.Now().Unix(), "iss": k.public(), "sub": about.public(), "name": kind, "nats": claims}
	if !expires.IsZero() {
		payload["exp"] = expires.Unix()
	}
	body, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"ed25519-nkey"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(k.private, []byte(text)))
}

// account is an account's JWT, with JetStream where it has storage.
func (k nkey) account(t testing.TB, about nkey, storage int) string {
	return k.jwt(t, about, "account", time.Time{}, map[string]any{"limits": map[string]any{
		"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
		"mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
	}})
}

// user writes the credentials file of a new user of the account k, until expires.
func (k nkey) user(t testing.TB, expires time.Time) string {
	t.Helper()
	u := newNkey(t, userKey)
	jwt := k.jwt(t, u, "user", expires, map[string]any{"pub": map[string]any{}, "sub": map[string]any{}, "subs": -1, "data": -1, "payload": -1})
	return file(t, "creds", fmt.Sprintf("-----BEGIN NATS USER JWT-----\n%s\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n", jwt, u.seed()))
}

func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pass sends a message through a queue.
func pass(t *testing.T, url string) {
	t.Helper()
	c := open(t, url)
	declare(t, c, routing.Queue{Name: "q"})
	mustPublish(t, publisherOf(t, c), "q", "1")
	s := subscribe(t, c, "q", 1)
	settle(t, s, receive(t, s, 1)[0], driver.Ack, 0)
}

// refuses checks that Open fails with the sentinel want, where it is not nil, and
// an error that has text in it and nothing that is secret.
func refuses(t *testing.T, url string, want error, text string, secrets ...string) {
	t.Helper()
	u, err := driver.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStore(within(t), u, testConfig(t))
	if err == nil {
		s.Close(t.Context())
	}
	if err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("Open: %v, want %v with %q", err, want, text)
		return
	}
	for _, secret := range secrets {
		if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), secret) {
			t.Errorf("a secret is in the error %v", err)
		}
	}
}

// TestCredentialsFile: users whom an account's JWT lets in, by the server's
// operator, and others.
func TestCredentialsFile(t *testing.T) {
	t.Parallel()
	operator, system, account, stranger := newNkey(t, operatorKey), newNkey(t, accountKey), newNkey(t, accountKey), newNkey(t, accountKey)
	b := testbroker.StartNATS(t, fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {\n%s: %s\n%s: %s\n}\n",
		operator.jwt(t, operator, "operator", time.Time{}, map[string]any{}), system.public(),
		system.public(), operator.account(t, system, 0), account.public(), operator.account(t, account, -1)))
	good := account.user(t, time.Time{})
	pass(t, b.URL()+"?creds="+good)

	seed := newNkey(t, userKey).seed()
	refuses(t, b.URL()+"?creds="+stranger.user(t, time.Time{}), driver.ErrPermission, "uthorization")
	refuses(t, b.URL()+"?creds="+account.user(t, time.Now().Add(-time.Hour)), driver.ErrPermission, "")
	refuses(t, b.URL()+"?creds="+good+".none", os.ErrNotExist, "creds")
	refuses(t, b.URL()+"?creds="+file(t, "seed", seed), driver.ErrPermission, "uthorization", seed)
	refuses(t, b.URL()+"?creds="+file(t, "short", "-----BEGIN NATS USER JWT-----\nx.y.z\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n"+seed[:40]+"\n------END USER NKEY SEED------\n"), nil, "key pair", seed[:40])
	refuses(t, b.URL(), driver.ErrPermission, "uthorization")

	// The file is read for each connection: a new JWT is one line of work.
	c := open(t, b.URL()+"?creds="+good)
	declare(t, c, routing.Queue{Name: "q"})
	renewed, err := os.ReadFile(account.user(t, time.Time{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(good, renewed, 0o600); err != nil {
		t.Fatal(err)
	}
	b.Restart()
	mustPublish(t, publisherOf(t, c), "q", "2")
}

// TestNkey: a user whom the server knows by the public key, and others.
func TestNkey(t *testing.T) {
	t.Parallel()
	known, stranger := newNkey(t, userKey), newNkey(t, userKey)
	b := testbroker.StartNATS(t, fmt.Sprintf("authorization { users = [ { nkey: %s } ] }", known.public()))
	pass(t, b.URL()+"?nkey="+file(t, "known", known.seed()))
	refuses(t, b.URL()+"?nkey="+file(t, "stranger", stranger.seed()), driver.ErrPermission, "uthorization", stranger.seed())
	refuses(t, b.URL()+"?nkey="+file(t, "public", known.public()), nil, "nkey")
	refuses(t, b.URL()+"?nkey="+file(t, "torn", known.seed()[:30]), nil, "nkey", known.seed()[:30])
	refuses(t, b.URL()+"?nkey=/none", os.ErrNotExist, "nkey")
	refuses(t, strings.Replace(b.URL(), "://", "://any:hunter2@", 1), driver.ErrPermission, "uthorization", "hunter2")
}

// TestToken: the part before the @ is a token where there is no password.
func TestToken(t *testing.T) {
	t.Parallel()
	token := rand.Text()
	b := testbroker.StartNATS(t, fmt.Sprintf("authorization { token: %q }", token))
	with := func(token string) string { return strings.Replace(b.URL(), "://", "://"+token+"@", 1) }
	pass(t, with(token))
	refuses(t, with("wrong-"+token), driver.ErrPermission, "uthorization", token)
	refuses(t, b.URL(), driver.ErrPermission, "uthorization")
}
