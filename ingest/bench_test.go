package ingest_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream"
)

// wideEvent is a feature row of 20 values and about 460 bytes.
func wideEvent(r *rand.Rand, n int) stream.Message {
	b := fmt.Appendf(nil, `{"view":"wide","key":{"entity":"e%06d"},"event_time":"`, r.IntN(100_000))
	b = event.AppendTime(b, 1_767_225_600_000_000+int64(n)*1000)
	b = fmt.Appendf(b, `","id":"w-%09d","values":{`, n)
	for i := range 20 {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `"value_%02d":%.4f`, i, r.Float64())
	}
	return stream.Message{Key: fmt.Appendf(nil, "e%d", n%1000), Value: append(b, "}}"...)}
}

// BenchmarkIngest carries events from a broker in a process of its own into
// the embedded engine, with ids, ledger and dirty windows, and reports what the
// consumer's process took: CPU seconds (user and system) per million events,
// less what a start without events takes, and its peak memory.
func BenchmarkIngest(b *testing.B) {
	const events = 600_000
	w := newWorld(b, false)
	w.cfg = jobConfig{Window: 1_000_000}
	idle := w.consumer()
	idle.await(b, "ready")
	idle.stop(b)
	base := idle.cmd.ProcessState.UserTime() + idle.cmd.ProcessState.SystemTime()
	r := rand.New(rand.NewPCG(1, 2))
	msgs := make([]stream.Message, 0, 10_000)
	size := 0
	for n := range events {
		msgs = append(msgs, wideEvent(r, n))
		size += len(msgs[len(msgs)-1].Value)
		if len(msgs) == cap(msgs) {
			if err := w.producer.Produce(b.Context(), topicOf(event.Features), msgs...); err != nil {
				b.Fatal(err)
			}
			msgs = msgs[:0]
		}
	}
	for b.Loop() {
		began := time.Now()
		c := w.consumer()
		c.await(b, "ready")
		testenv.Eventually(b, 5*time.Minute, func() error { return w.behind(c.state()) })
		took := time.Since(began)
		c.stop(b)
		cpu := c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime() - base
		b.ReportMetric(cpu.Seconds()*1e6/events, "cpu-s/Mevents")
		b.ReportMetric(events/took.Seconds(), "events/s")
		b.ReportMetric(float64(size)/events, "B/event")
		b.ReportMetric(float64(maxRSS(c.cmd))/1024, "MB-peak")
	}
}
