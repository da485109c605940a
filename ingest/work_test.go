package ingest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/stream"
)

// TestSampledTraces holds which traces a unit of work ends in: those that
// somebody will see, not more of them than it may, and none of what is no trace.
func TestSampledTraces(t *testing.T) {
	const seen, own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-", "0af7651916cd43dd8448eb211c80319c"
	var w work
	met := func(parent string) string { return w.continues([]byte(parent)) }
	for _, flags := range []string{"00", "02", "0a", "zz"} {
		if id := met(seen + flags); id != own || len(w.traces) != 0 {
			t.Errorf("flags %s: trace %q, %v", flags, id, w.traces)
		}
	}
	for _, no := range []string{"", "01", seen, seen + "1"} {
		if met(no); len(w.traces) != 0 {
			t.Errorf("%q is a trace: %v", no, w.traces)
		}
	}
	for i, flags := range []string{"01", "03", "0b", "ff"} {
		if met(seen + flags); len(w.traces) != i+1 || w.traces[i] != seen+flags {
			t.Errorf("flags %s: %v", flags, w.traces)
		}
	}
	for range 2 * maxTraces {
		met(seen + "01")
	}
	if len(w.traces) != maxTraces {
		t.Errorf("%d traces", len(w.traces))
	}
	catalog, err := event.NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.reset(7, 1, catalog, 0, 0); len(w.traces) != 0 {
		t.Error("the next unit has the last one's traces")
	}
}

// TestUnreadableBatchIsADeadLetter: what stands for a record batch that cannot be
// read is counted as a record and kept as a dead letter, without its bytes.
func TestUnreadableBatchIsADeadLetter(t *testing.T) {
	catalog, err := event.NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := work{unit: event.Unit{Topic: "kedge.default.features", Namespace: "default", Kind: event.Features}}
	w.reset(10, 1, catalog, 0, 0)
	b := &stream.Batch{TopicPartition: stream.TopicPartition{Topic: "kedge.default.features", Partition: 3}, From: 10, Next: 31, Dropped: 19,
		Records: []stream.Record{{Offset: 10, Time: 1}, {Offset: 30, Time: 2}},
		Faults:  []stream.Fault{{Offset: 10, Err: fmt.Errorf("%w: more than 7 bytes", stream.ErrCorrupt), Bytes: []byte("noise")}}}
	w.add(event.NewDecoder(event.DefaultDecoderConfig()), b)
	l := w.ledger(3)
	if l.From != 10 || l.To != 30 || l.Records != 2 || l.DeadLetters != 2 || l.Dropped != 19 || l.Rows != 0 {
		t.Errorf("ledger %+v", l)
	}
	if d := w.unit.Dead[0]; d.Offset != 10 || d.Reason != event.ReasonUnreadable || !strings.Contains(d.Detail, "more than 7 bytes") || d.Value != nil || d.Size != 5 {
		t.Errorf("dead letter %+v", d)
	}
	if d := w.unit.Dead[1]; d.Offset != 30 || d.Reason == event.ReasonUnreadable { // it has no value, and is read as such
		t.Errorf("the record behind it: %+v", d)
	}
}
