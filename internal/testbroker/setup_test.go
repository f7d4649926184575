package testbroker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestFull: a full disk and a full memory are noticed by each broker that can have
// them, and it serves again afterwards.
func TestFull(t *testing.T) {
	if !testing.Short() && !CanFillDisk() {
		t.Fatal("this system lets nobody but root mount a file system, not even in a namespace: run the tests as root")
	}
	for scheme, fails := range map[string]func(*Broker) error{
		"amqp": func(b *Broker) error { // which of its nodes has an alarm
			var nodes []struct {
				Mem  bool `json:"mem_alarm"`
				Disk bool `json:"disk_free_alarm"`
			}
			if err := ask(context.Background(), b.URL(), "/api/nodes", &nodes); err != nil {
				return err
			}
			if nodes[0].Mem || nodes[0].Disk {
				return errors.New("an alarm")
			}
			return nil
		},
		"nats": func(b *Broker) error {
			c, err := dialNATS(context.Background(), b.URL())
			if err != nil {
				return err
			}
			defer c.Close()
			body := map[string]any{"name": "S" + newName(), "subjects": []string{newName()}}
			return c.request("$JS.API.STREAM.CREATE."+body["name"].(string), body, nil)
		},
		"redis": func(b *Broker) error {
			return tell(context.Background(), b.server, "SET", newName(), strings.Repeat("x", 8192))
		},
	} {
		for name, full := range map[string]func(*Broker, func()){"disk": (*Broker).FullDisk, "memory": (*Broker).FullMemory} {
			if scheme == "nats" && name == "memory" {
				continue
			}
			t.Run(scheme+"/"+name, func(t *testing.T) {
				var setup Setup
				if scheme != "amqp" {
					setup = Setup{Disk: 64 << 20, Fsync: true}
				}
				b := StartWith(t, scheme, setup)
				noticed, stop, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
				go func() {
					defer close(ended)
					for fails(b) == nil {
						select {
						case <-stop:
							return
						default:
						}
					}
					close(noticed)
				}()
				full(b, func() {
					select {
					case <-noticed:
					case <-time.After(patience):
						t.Error("nothing failed meanwhile")
					}
				})
				close(stop)
				<-ended
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if err := retry(ctx, func(context.Context) error { return fails(b) }); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		}
	}
}
