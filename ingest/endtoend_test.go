package ingest_test

import (
	"strings"
	"testing"
	"time"
)

func TestEverythingArrivesOnce(t *testing.T) {
	w := newWorld(t, false)
	w.produce(3000)
	c := w.consumer()
	c.await(t, "ready")
	w.await(c, time.Minute)
	for range 6 {
		w.produce(500)
	}
	w.await(c, time.Minute)
	c.stop(t)
	w.leftClean()
	w.verify()
}

// leftClean checks what SIGTERM promises: everything stored is committed, and
// no unit is pending.
func (w *world) leftClean() {
	w.t.Helper()
	ends, err := w.ends()
	if err != nil {
		w.t.Fatal(err)
	}
	for tp, c := range w.committed() {
		if end := ends[tp]; end > 0 && (c.Offset != end || strings.Contains(c.Metadata, `"b"`)) {
			w.t.Errorf("%v: left at %d %s, the partition ends at %d", tp, c.Offset, c.Metadata, end)
		}
	}
}

// TestStopUnderLoad stops consumers while events keep coming; each stop is
// quick and leaves nothing pending.
func TestStopUnderLoad(t *testing.T) {
	w := newWorld(t, false)
	load := w.sustain(10, 10*time.Millisecond)
	for range 2 {
		c := w.consumer()
		c.await(t, "ready")
		w.running(c)
		c.stop(t)
		for tp, m := range w.committed() {
			if strings.Contains(m.Metadata, `"b"`) {
				t.Errorf("%v: a unit is pending after a clean stop: %s", tp, m.Metadata)
			}
		}
	}
	load.stop()
	w.settle()
}
