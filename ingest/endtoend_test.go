package ingest_test

import (
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
	w.verify()
}
