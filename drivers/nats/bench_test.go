package nats

import (
	"strconv"
	"sync"
	"testing"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// window resolves publishings and bounds how many are open.
type window struct {
	testing.TB
	slots chan struct{}
	wg    sync.WaitGroup
}

func (w *window) Resolved(p *driver.Publishing) {
	if err := p.Err(); err != nil {
		w.Error(err)
	}
	<-w.slots
	w.wg.Done()
}

// BenchmarkPublish publishes 256 bytes with a window of 1024, in batches.
func BenchmarkPublish(b *testing.B) {
	c := open(b, testbroker.URL(b, "nats"))
	declare(b, c, routing.Queue{Name: "q"})
	fill(b, c, b.N, true)
}

func fill(b *testing.B, c driver.Conn, n int, reset bool) {
	p := publisherOf(b, c)
	w := &window{TB: b, slots: make(chan struct{}, 1024)}
	body := make([]byte, 256)
	run := strconv.Itoa(n) + "-"
	batch := make([]*driver.Publishing, 0, 64)
	if reset {
		b.ReportAllocs()
		b.ResetTimer()
	}
	for i := range n {
		w.slots <- struct{}{}
		w.wg.Add(1)
		batch = append(batch, &driver.Publishing{ID: run + strconv.Itoa(i), Owner: w, Message: &driver.Message{Key: "q", Body: body}})
		if len(batch) == cap(batch) || i == n-1 {
			p.Publish(b.Context(), batch, false)
			batch = batch[:0]
		}
	}
	w.wg.Wait()
	b.StopTimer()
}

// BenchmarkPublishSync waits for each message.
func BenchmarkPublishSync(b *testing.B) {
	c := open(b, testbroker.URL(b, "nats"))
	declare(b, c, routing.Queue{Name: "q"})
	p := publisherOf(b, c)
	w := &window{TB: b, slots: make(chan struct{}, 1)}
	body := make([]byte, 256)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.slots <- struct{}{}
		w.wg.Add(1)
		p.Publish(b.Context(), []*driver.Publishing{{ID: strconv.Itoa(i), Owner: w, Message: &driver.Message{Key: "q", Body: body}}}, true)
		w.wg.Wait()
	}
}

// BenchmarkConsume receives and acknowledges with a prefetch of 1024.
func BenchmarkConsume(b *testing.B) {
	c := open(b, testbroker.URL(b, "nats"))
	declare(b, c, routing.Queue{Name: "q"})
	fill(b, c, b.N, false)
	s := subscribe(b, c, "q", 1024)
	buf := make([]*driver.Delivery, 256)
	b.ReportAllocs()
	b.ResetTimer()
	b.StartTimer()
	for got := 0; got < b.N; {
		n, err := s.Receive(b.Context(), buf)
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range buf[:n] {
			if err := s.Settle(b.Context(), d, driver.Ack, 0); err != nil {
				b.Fatal(err)
			}
		}
		got += n
	}
	b.StopTimer()
}

// BenchmarkBind binds and unbinds while two other connections publish.
func BenchmarkBind(b *testing.B) {
	url := testbroker.URL(b, "nats")
	c := open(b, url)
	declare(b, c, routing.Queue{Name: "q"})
	for range 2 {
		mustPublish(b, publisherOf(b, open(b, url)), "q", "m")
	}
	bs := []routing.Binding{{Exchange: "amq.direct", Queue: "q", Key: "k"}}
	for b.Loop() {
		if err := c.Bind(b.Context(), bs); err != nil {
			b.Fatal(err)
		}
		if err := c.Unbind(b.Context(), bs); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConsumeKept is BenchmarkConsume of a queue with priorities.
func BenchmarkConsumeKept(b *testing.B) {
	c := open(b, testbroker.URL(b, "nats"))
	declare(b, c, routing.Queue{Name: "q", MaxPriority: 1})
	fill(b, c, b.N, false)
	s := subscribe(b, c, "q", 1024)
	buf := make([]*driver.Delivery, 256)
	b.ReportAllocs()
	b.ResetTimer()
	b.StartTimer()
	for got := 0; got < b.N; {
		n, err := s.Receive(b.Context(), buf)
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range buf[:n] {
			if err := s.Settle(b.Context(), d, driver.Ack, 0); err != nil {
				b.Fatal(err)
			}
		}
		got += n
	}
	b.StopTimer()
}
