package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/registry/memlog"
	"github.com/kedge-ml/kedge/store"
)

// faultySink is the store with inserts that fail: before they were done, or
// after. Without trimming it keeps what a broken try left.
type faultySink struct {
	*store.Store
	r      *rand.Rand
	faults int
	noTrim bool
}

var errFault = errors.New("planted")

func (s *faultySink) fail(do func() error) error {
	before, after := s.faults > 0 && s.r.IntN(4) == 0, s.faults > 0 && s.r.IntN(4) == 0
	if before {
		s.faults--
		return errFault
	}
	err := do()
	if after {
		s.faults--
		return errFault
	}
	return err
}

func (s *faultySink) Insert(ctx context.Context, token string, b *event.Batch) error {
	return s.fail(func() error { return s.Store.Insert(ctx, token, b) })
}

func (s *faultySink) InsertDeadLetters(ctx context.Context, token string, d []event.DeadLetter) error {
	return s.fail(func() error { return s.Store.InsertDeadLetters(ctx, token, d) })
}

func (s *faultySink) InsertLedger(ctx context.Context, token string, r event.LedgerRow) error {
	return s.fail(func() error { return s.Store.InsertLedger(ctx, token, r) })
}

func (s *faultySink) Trim(ctx context.Context, topic string, partition, epoch int32, from int64) error {
	if s.noTrim {
		return nil
	}
	return s.Store.Trim(ctx, topic, partition, epoch, from)
}

// history is events of all kinds, some of which are none.
func history(n int) (lines [][]byte) {
	for i := range n {
		at := time.Date(2025, 1, 1, 0, i, 0, 0, time.UTC).Format(time.RFC3339)
		switch i % 5 {
		case 0, 1:
			lines = append(lines, fmt.Appendf(nil, `{"view":"loan","key":{"id":%d},"event_time":"%s","known_at":"%s","values":{"x":%d.5}}`, i, at, at, i))
		case 2:
			lines = append(lines, fmt.Appendf(nil, `{"model":"risk","version":"1","id":"p%d","event_time":"%s","known_at":"%s","inputs":{"x":1},"output":{"score":0.5}}`, i, at, at))
		case 3:
			lines = append(lines, fmt.Appendf(nil, `{"model":"risk","prediction_id":"p%d","event_time":"%s","known_at":"%s","label":1}`, i-1, at, at))
		default:
			lines = append(lines, fmt.Appendf(nil, `{"view":"loan","key":{"id":%d}`, i))
		}
	}
	return lines
}

// importAll sends an import in units until all is stored, beginning again after
// every failure.
func importAll(t *testing.T, m *ingest.Importer, id string, lines [][]byte, unit int) (failures int) {
	t.Helper()
	for try := 0; ; try++ {
		s, err := m.Begin(t.Context(), "default", id, "history.jsonl", "test")
		for err == nil && s.Next < int64(len(lines)) {
			end := min(int(s.Next)+unit, len(lines))
			var r ingest.ImportResult
			r, err = m.Add(t.Context(), "default", id, s.Next, lines[s.Next:end])
			s = r.ImportState
		}
		if err == nil {
			return try
		}
		if !errors.Is(err, errFault) || try > 200 {
			t.Fatal(err)
		}
	}
}

// TestImportOnce interrupts an import wherever it inserts: in the end every
// event is stored once, the ledger is balanced, and doing it again adds nothing.
// The control leaves the rests of broken tries and finds them doubled.
func TestImportOnce(t *testing.T) {
	for _, noTrim := range []bool{false, true} {
		t.Run(fmt.Sprintf("noTrim=%v", noTrim), func(t *testing.T) {
			st, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()})
			check(t, err)
			defer st.Close()
			sink := &faultySink{Store: st, r: rand.New(rand.NewPCG(1, 2)), faults: 12, noTrim: noTrim}
			reg := runRegistry(t)
			newImporter := func() *ingest.Importer {
				cfg := ingest.DefaultConfig()
				cfg.OwnStore = true
				c, err := ingest.New(cfg, nil, reg, sink, telemetry.Discard())
				check(t, err)
				return c.Importer()
			}
			first, id, lines := newImporter(), strings.Repeat("0a", 32), history(500)
			if importAll(t, first, id, lines, 60) == 0 {
				t.Fatal("nothing failed")
			}
			parts, _, err := st.AuditLedger(t.Context(), "default", time.Time{})
			check(t, err)
			if len(parts) != 1 {
				t.Fatalf("ledger: %+v", parts)
			}
			a := parts[0]
			if noTrim {
				if a.DuplicateRows == 0 {
					t.Error("without trimming nothing is doubled: this test finds nothing")
				}
				return
			}
			if a.Records != 500 || a.Rows != 400 || a.DeadLetters != 100 || a.GapRows+a.DuplicateRows+a.Unbalanced+a.GapRecords+a.OverlapRecords+a.Unledgered != 0 {
				t.Errorf("ledger: %+v", a)
			}
			second := newImporter() // another process
			if s, err := second.Begin(t.Context(), "default", id, "", "test"); err != nil || s.Next != 500 || int64(s.Epoch) != a.Epoch {
				t.Errorf("again: %+v (%v)", s, err)
			}
			if _, err := first.Add(t.Context(), "default", id, 500, lines[:1]); !errors.Is(err, ingest.ErrImportPosition) {
				t.Errorf("the import was taken over, yet: %v", err)
			}
			if _, err := second.Add(t.Context(), "default", id, 499, lines[:1]); !errors.Is(err, ingest.ErrImportPosition) {
				t.Errorf("events that are stored: %v", err)
			}
		})
	}
}

// lateSink is the store with a first insert whose connection breaks: it is
// answered with an error, and done later.
type lateSink struct {
	*store.Store
	once   sync.Once
	arrive chan struct{} // closed: the insert arrives
	done   chan error
}

func (s *lateSink) Insert(ctx context.Context, token string, b *event.Batch) (err error) {
	first := false
	s.once.Do(func() { first = true })
	if !first {
		return s.Store.Insert(ctx, token, b)
	}
	go func() { // the batch is the caller's again when Insert returns: here he does not use it
		<-s.arrive
		s.done <- s.Store.Insert(context.WithoutCancel(ctx), token, b)
	}()
	return errFault
}

// TestImportWaitsForWhatIsUnderWay has an insert of a broken try arrive after
// the import was begun again, by the same process and by another one. Where the
// store is the process's own, as the control claims, nobody waits, and rows are
// doubled.
func TestImportWaitsForWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		other, control bool
	}{{name: "same process"}, {name: "another process", other: true}, {name: "control", control: true}} {
		t.Run(c.name, func(t *testing.T) {
			st, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()})
			check(t, err)
			defer st.Close()
			sink := &lateSink{Store: st, arrive: make(chan struct{}), done: make(chan error, 1)}
			reg := runRegistry(t)
			newImporter := func() *ingest.Importer {
				cfg := ingest.DefaultConfig()
				cfg.OwnStore, cfg.InsertTimeout = c.control, 6*time.Second
				consumer, err := ingest.New(cfg, nil, reg, sink, telemetry.Discard())
				check(t, err)
				return consumer.Importer()
			}
			m, id, lines := newImporter(), strings.Repeat("0b", 32), history(100)
			_, err = m.Begin(t.Context(), "default", id, "history.jsonl", "test")
			check(t, err)
			if _, err := m.Add(t.Context(), "default", id, 0, lines); !errors.Is(err, errFault) {
				t.Fatal(err)
			}
			if c.other {
				m = newImporter()
			}
			_, err = m.Begin(t.Context(), "default", id, "history.jsonl", "test")
			if busy := errors.Is(err, ingest.ErrImportBusy); busy == c.control {
				t.Fatalf("begun again: %v", err)
			}
			if c.control {
				importAll(t, m, id, lines, 100)
			}
			close(sink.arrive)
			check(t, <-sink.done)
			testenv.Eventually(t, time.Minute, func() error {
				_, err := m.Begin(t.Context(), "default", id, "history.jsonl", "test")
				if err != nil && !errors.Is(err, ingest.ErrImportBusy) {
					t.Fatal(err)
				}
				return err
			})
			importAll(t, m, id, lines, 100)
			parts, _, err := st.AuditLedger(t.Context(), "default", time.Time{})
			check(t, err)
			if len(parts) != 1 || (parts[0].Rows != 80) || (parts[0].DuplicateRows+parts[0].Unledgered > 0) != c.control {
				t.Errorf("ledger: %+v", parts)
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// runRegistry is a registry without a broker.
func runRegistry(t *testing.T) *registry.Registry {
	t.Helper()
	r, err := registry.Open(t.Context(), memlog.New(nil))
	check(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return r
}
