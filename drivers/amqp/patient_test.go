package amqp

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestSilence: a broker that has not sent anything where it should have three times is
// gone, also for who waited for it when it was first heard of these.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		p := newPatient(near, time.Minute)
		defer p.Close()
		ended := make(chan error, 1)
		read := func() {
			_, err := p.Read(make([]byte, 1))
			ended <- err
		}
		go read()
		synctest.Wait()
		begun := time.Now()
		p.heartbeats(20 * time.Second)
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != 30*time.Second {
			t.Errorf("who waited: %v after %v", err, time.Since(begun))
		}
		for range 3 {
			go read()
			time.Sleep(29 * time.Second)
			far.Write([]byte{0})
			if err := <-ended; err != nil {
				t.Errorf("beside heartbeats: %v", err)
			}
		}
		begun = time.Now()
		go read()
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != 30*time.Second {
			t.Errorf("without: %v after %v", err, time.Since(begun))
		}
	})
}
