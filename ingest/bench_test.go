package ingest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/metrics"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/store/chdb"
	"github.com/kedge-ml/kedge/stream"
)

// wideEvent is a feature row of 20 values and about 460 bytes, of one of some
// views.
func wideEvent(r *rand.Rand, n, views int) stream.Message {
	b := fmt.Appendf(nil, `{"view":"wide_%02d","key":{"entity":"e%06d"},"event_time":"`, n%views, r.IntN(100_000))
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

// sideBySide is the table that the engine fills by itself.
const sideBySide = "own"

// BenchmarkSideBySide carries the same events twice into tables of one kind,
// in one run: (a) from a broker in a process of its own through Kedge, with
// ids, ledger and dirty windows; (b) by the engine's own INSERT … SELECT FROM
// file(…, JSONEachRow) of the same lines. It reports what the processes took:
// CPU seconds (user and system) per million events, less what a start without
// events takes, merges included: a process ends when the engine has none left
// to do. KEDGE_BENCH_EVENTS sets how many events, KEDGE_BENCH_PARTITIONS of how
// many partitions (2).
func BenchmarkSideBySide(b *testing.B) {
	events := 1_000_000
	if text := os.Getenv("KEDGE_BENCH_EVENTS"); text != "" {
		if _, err := fmt.Sscan(text, &events); err != nil {
			b.Fatal(err)
		}
	}
	w := emptyWorld(b, testenv.Address(b))
	if text := os.Getenv("KEDGE_BENCH_PARTITIONS"); text != "" {
		if _, err := fmt.Sscan(text, &w.partitions); err != nil {
			b.Fatal(err)
		}
	}
	w.startBroker()
	w.connect()
	w.makeTopics()
	w.cfg = jobConfig{Window: 1_000_000, Settle: true}
	idle := w.consumer()
	idle.await(b, "ready")
	idle.stop(b)
	base := cpuOf(idle)
	lines := filepath.Join(w.dir, "lines.jsonl")
	size := w.wideEvents(b, lines, events)
	for b.Loop() {
		began := time.Now()
		c := w.consumer()
		c.await(b, "ready")
		testenv.Eventually(b, 10*time.Minute, func() error { return w.behind(c.state()) })
		took := time.Since(began)
		threads := threadSeconds(c.cmd.Process.Pid)
		c.stop(b)
		a := (cpuOf(c) - base).Seconds() * 1e6 / float64(events)
		b.Logf("kedge by thread: %s", threads)
		under, after := c.standing(b), c.standing(b)
		b.Logf("kedge: at the end of the load %+v; settled %+v", under, after)
		o := w.start("own", job{Lib: w.lib, StoreDir: w.storePath(), Own: &ownJob{Lines: lines}}, nil)
		<-o.ended
		own := (cpuOf(o) - base).Seconds() * 1e6 / float64(events)
		b.Logf("engine alone: %+v", o.standing(b))
		b.ReportMetric(a, "a-cpu-s/M")
		b.ReportMetric(own, "b-cpu-s/M")
		b.ReportMetric(a/own, "a/b")
		b.ReportMetric(float64(events)/took.Seconds(), "events/s")
		b.ReportMetric(float64(size)/float64(events), "B/event")
		b.ReportMetric(float64(maxRSS(c.cmd))/1024, "MB-peak")
		b.ReportMetric(float64(after.Go)/1e6, "MB-peak-beside-engine")
		b.ReportMetric(float64(maxRSS(o.cmd))/1024, "MB-peak-b")
	}
}

func cpuOf(c *child) time.Duration {
	return c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()
}

// wideEvents produces events and writes the same lines to a file.
func (w *world) wideEvents(b *testing.B, path string, events int) (size int) {
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	out := bufio.NewWriterSize(f, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	msgs := make([]stream.Message, 0, 10_000)
	for n := range events {
		m := wideEvent(r, n, 1)
		msgs = append(msgs, m)
		size += len(m.Value)
		_, _ = out.Write(m.Value)
		_ = out.WriteByte('\n')
		if len(msgs) == cap(msgs) || n == events-1 {
			if err := w.producer.Produce(b.Context(), topicOf(event.Features), msgs...); err != nil {
				b.Fatal(err)
			}
			msgs = msgs[:0]
		}
	}
	if err := errors.Join(out.Flush(), f.Close()); err != nil {
		b.Fatal(err)
	}
	return size
}

// threadSeconds says which threads of a process took how many CPU seconds.
func threadSeconds(pid int) string {
	sum := map[string]float64{}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
		fields := bytes.Fields(text[end+1:])
		var user, system float64
		_, _ = fmt.Sscan(string(fields[11])+" "+string(fields[12]), &user, &system)
		sum[string(text[open+1:end])] += (user + system) / 100
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(sum)) {
		if sum[name] >= 0.05 {
			out = append(out, fmt.Sprintf("%s %.2f", name, sum[name]))
		}
	}
	return strings.Join(out, ", ")
}

// ownJob lets the engine read lines into a table like the one that ingest
// filled, by itself.
type ownJob struct{ Lines string }

func (o *ownJob) run(ctx context.Context, s *store.Store) error {
	var like string
	rows, err := selectLines(ctx, s, "SELECT name FROM system.tables WHERE database = 'kedge' AND match(name, '^features_[0-9]+$')")
	if err != nil || len(rows) != 1 {
		return fmt.Errorf("%d tables of features: %w", len(rows), err)
	}
	like = rows[0]["name"].(string)
	var names, values, typ []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("v_value_%02d", i))
		values = append(values, fmt.Sprintf("values.value_%02d", i))
		typ = append(typ, fmt.Sprintf("value_%02d Nullable(Float64)", i))
	}
	sql := fmt.Sprintf(`INSERT INTO kedge.%[1]s (_topic, _partition, _offset, _index, _epoch, event_time, created, known_at, id, trace_id, overflow, appended_at, deleted, k_entity, %[2]s)
SELECT 'kedge.t.features', 0, rowNumberInAllBlocks(), 0, 0, event_time, event_time, now64(6), id, '', '', now64(6), false, key.entity, %[3]s
FROM file('%[4]s', 'JSONEachRow', 'view String, key Tuple(entity String), event_time DateTime64(6, \'UTC\'), id String, values Tuple(%[5]s)')
SETTINGS date_time_input_format = 'best_effort'`,
		sideBySide, strings.Join(names, ", "), strings.Join(values, ", "), o.Lines, strings.Join(typ, ", "))
	for _, q := range []string{"DROP TABLE IF EXISTS kedge." + sideBySide + " SYNC", "CREATE TABLE kedge." + sideBySide + " AS kedge." + like, sql} {
		if err := s.Embedded().Exec(ctx, chdb.Statement{SQL: q}); err != nil {
			return fmt.Errorf("%.60s: %w", q, err)
		}
	}
	return settled(ctx, s, sideBySide, 0)
}

// standing is how the engine stands.
type standing struct {
	Rows, Parts, Bytes   uint64 // of the tables in question
	Inserts, Merges      uint64
	MergedRows, MergedMS uint64
	Go                   uint64 // peak memory of the Go side
}

func standingOf(ctx context.Context, s *store.Store, table string) (st standing, err error) {
	rows, err := selectLines(ctx, s, fmt.Sprintf(`SELECT concat('rows ', sum(rows), ' parts ', count(), ' bytes ', sum(bytes_on_disk)) AS a,
(SELECT concat('', sumIf(value, event = 'InsertQuery'), ' ', sumIf(value, event = 'Merge'), ' ', sumIf(value, event = 'MergedRows'), ' ', sumIf(value, event = 'MergeExecuteMilliseconds')) FROM system.events) AS b
FROM system.parts WHERE active AND match(table, '%s')`, table))
	if err != nil {
		return st, err
	}
	_, err = fmt.Sscanf(fmt.Sprint(rows[0]["a"], " ", rows[0]["b"]), "rows %d parts %d bytes %d %d %d %d %d", &st.Rows, &st.Parts, &st.Bytes, &st.Inserts, &st.Merges, &st.MergedRows, &st.MergedMS)
	return st, err
}

// standing reads what a child said of its engine.
func (c *child) standing(b *testing.B) (st standing) {
	b.Helper()
	select {
	case line := <-c.lines:
		if err := json.Unmarshal(line, &st); err != nil {
			b.Fatalf("%s: %v", line, err)
		}
	case <-time.After(time.Minute):
		b.Fatalf("%s says nothing: %v\n%s", c.name, c.err, tail(c.stderr.String(), 2000))
	}
	return st
}

// settled says how the engine stands, waits until it has no merge to do, and
// says it again.
func settled(ctx context.Context, s *store.Store, table string, peak uint64) error {
	for quiet := 0; quiet < 5; {
		rows, err := selectLines(ctx, s, "SELECT count() AS n FROM system.merges")
		if err != nil {
			return err
		}
		if quiet++; fmt.Sprint(rows[0]["n"]) != "0" {
			quiet = 0
		}
		time.Sleep(300 * time.Millisecond) // the engine looks for merges in its own time and tells nobody
	}
	st, err := standingOf(ctx, s, table)
	st.Go = peak
	say(st)
	return err
}

// watchMemory returns a function that says the peak of the memory which the Go
// side has taken from the system.
func watchMemory() (peak func() uint64) {
	var most atomic.Uint64
	stop := make(chan struct{})
	go func() {
		sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		for {
			metrics.Read(sample)
			most.Store(max(most.Load(), sample[0].Value.Uint64()-sample[1].Value.Uint64()))
			select {
			case <-time.After(20 * time.Millisecond):
			case <-stop:
				return
			}
		}
	}()
	return func() uint64 {
		close(stop)
		return most.Load()
	}
}

// BenchmarkLatency produces at a steady rate, about a tenth of what one
// process can carry here, and reports how long it takes from a producer's
// acknowledgement to the ledger row, after which a question surely finds the
// event; and how many parts the engine then holds.
func BenchmarkLatency(b *testing.B) {
	const rate, seconds = 15_000, 20
	for _, views := range []int{1, 50} {
		b.Run(fmt.Sprintf("views=%d", views), func(b *testing.B) {
			for b.Loop() {
				w := newWorld(b, false)
				w.cfg = jobConfig{Window: 1_000_000, Settle: true}
				c := w.consumer()
				c.await(b, "ready")
				waits := w.steady(b, c, views, rate, seconds)
				c.stop(b)
				under, after := c.standing(b), c.standing(b)
				slices.Sort(waits)
				at := func(q float64) float64 { return float64(waits[int(q*float64(len(waits)-1))].Milliseconds()) }
				b.ReportMetric(at(0.5), "ms-p50")
				b.ReportMetric(at(0.99), "ms-p99")
				b.ReportMetric(float64(under.Parts), "parts-under-load")
				b.ReportMetric(float64(after.Parts), "parts-settled")
				b.ReportMetric(float64(under.Inserts), "inserts")
				b.ReportMetric(float64(maxRSS(c.cmd))/1024, "MB-peak")
				b.ReportMetric(float64(after.Go)/1e6, "MB-peak-beside-engine")
			}
		})
	}
}

// steady produces in steps of 20 ms and returns how long each step took from
// its acknowledgement to its ledger row, those of the first seconds left out,
// in which the tables were made.
func (w *world) steady(b *testing.B, c *child, views, rate, seconds int) (waits []time.Duration) {
	type sent struct {
		at   time.Time
		ends map[stream.TopicPartition]int64
	}
	const step = 20 * time.Millisecond
	queue := make(chan sent, 1_000_000)
	var g errgroup.Group
	g.Go(func() error {
		defer close(queue)
		r := rand.New(rand.NewPCG(1, 2))
		tick := time.NewTicker(step)
		defer tick.Stop()
		n, ends := 0, map[stream.TopicPartition]int64{}
		for range seconds * int(time.Second/step) {
			msgs := make([]stream.Message, rate*int(step)/int(time.Second))
			for i := range msgs {
				msgs[i] = wideEvent(r, n, views)
				n++
				ends[stream.TopicPartition{Topic: topicOf(event.Features), Partition: stream.KeyPartition(msgs[i].Key, w.partitions)}]++
			}
			if err := w.producer.Produce(b.Context(), topicOf(event.Features), msgs...); err != nil {
				return err
			}
			queue <- sent{time.Now(), maps.Clone(ends)}
			<-tick.C
		}
		return nil
	})
	began := time.Now()
	for s := range queue {
		testenv.Eventually(b, time.Minute, func() error {
			for _, p := range c.state().Partitions {
				if end := s.ends[stream.TopicPartition{Topic: p.Topic, Partition: p.Partition}]; p.Position < end {
					return fmt.Errorf("%s/%d at %d of %d", p.Topic, p.Partition, p.Position, end)
				}
			}
			if len(c.state().Partitions) == 0 {
				return errors.New("no partitions yet")
			}
			return nil
		})
		if s.at.Sub(began) > 5*time.Second {
			waits = append(waits, time.Since(s.at))
		}
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return waits
}
