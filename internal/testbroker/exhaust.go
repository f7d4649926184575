package testbroker

import "context"

// FullDisk lets the disk of the broker be full while during runs, and returns when
// the broker serves again. RabbitMQ is told that its limit of free space is reached; the
// others have a file system (Setup.Disk) without a byte left. Redis that syncs
// each write ends then, and NATS no longer serves JetStream, so they are started
// again when there is room.
func (b *Broker) FullDisk(during func()) {
	b.t.Helper()
	s := b.server
	if _, ok := s.kind.(rabbitMQ); ok {
		b.call("rabbit_disk_monitor set_disk_free_limit [1000000000000000]")
		during()
		b.call("rabbit_disk_monitor set_disk_free_limit [50000000]")
		return
	}
	free, err := fill(s.data())
	if err != nil {
		b.t.Fatal(err)
	}
	during()
	if err := free(); err != nil {
		b.t.Fatal(err)
	}
	if _, ok := s.kind.(nats); ok {
		s.kill()
	} else if s.await() == nil {
		return
	}
	b.Start()
}

// FullMemory has the broker take it while during runs that its memory is full:
// RabbitMQ and Redis. NATS knows nothing like it.
func (b *Broker) FullMemory(during func()) {
	b.t.Helper()
	if _, ok := b.server.kind.(rabbitMQ); ok {
		b.call("vm_memory_monitor set_vm_memory_high_watermark [0.000001]")
		during()
		b.call("vm_memory_monitor set_vm_memory_high_watermark [0.4]")
		return
	}
	for _, limit := range []string{"1", "0"} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := tell(ctx, b.server, "CONFIG", "SET", "maxmemory", limit)
		cancel()
		if err != nil {
			b.t.Fatal(err)
		}
		if limit == "1" {
			during()
		}
	}
}

// call has RabbitMQ call a function of its own. rabbitmqctl would take seconds of a
// core for it.
func (b *Broker) call(function string) {
	b.t.Helper()
	s := b.server
	erlCall, err := findErlCall()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := erlCall.command("-address", s.address(distributionPort), "-c", s.password, "-timeout", "60", "-a", function)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "ok" {
		b.t.Fatalf("RabbitMQ: %s: %v: %s", function, err, out)
	}
}
