package stream_test

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/stream"
)

const transactionPartitions = 3

// transact lets several producers write at once: plain ones, and transactions
// of which some are committed, some aborted, and one per round stays open
// until the next. It returns the last open ones.
func (w *world) transact(rounds int) []*kgo.Client {
	w.Helper()
	rng := rand.New(rand.NewPCG(7, uint64(rounds)))
	ctx := w.ctx()
	plain := w.franz(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	var producers, open []*kgo.Client
	for i := range 4 {
		c := w.franz(kgo.TransactionalID(fmt.Sprintf("%s-%d", w.topic, i)), kgo.TransactionTimeout(5*time.Minute), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		producers = append(producers, c)
	}
	began := map[*kgo.Client]bool{}
	for round := range rounds {
		for i, c := range producers {
			if !began[c] {
				if err := c.BeginTransaction(); err != nil {
					w.Fatal(err)
				}
				began[c] = true
			}
			for n := range rng.IntN(6) {
				w.put(c, rng, fmt.Sprintf("tx %d round %d #%d", i, round, n))
			}
			w.put(plain, rng, fmt.Sprintf("plain round %d", round))
			if rng.IntN(3) == 0 {
				continue // stays open for another round
			}
			if err := c.EndTransaction(ctx, kgo.TransactionEndTry(rng.IntN(2) == 0)); err != nil {
				w.Fatal(err)
			}
			began[c] = false
		}
	}
	for _, c := range producers {
		if began[c] {
			open = append(open, c)
		}
	}
	if len(open) == 0 {
		if err := producers[0].BeginTransaction(); err != nil {
			w.Fatal(err)
		}
		w.put(producers[0], rng, "open at the end")
		open = append(open, producers[0])
	}
	return open
}

// put writes one to three records as a batch to a partition of chance.
func (w *world) put(c *kgo.Client, rng *rand.Rand, value string) {
	w.Helper()
	p := rng.Int32N(transactionPartitions)
	var rs []*kgo.Record
	for i := range 1 + rng.IntN(3) {
		rs = append(rs, &kgo.Record{Partition: p, Key: []byte(value), Value: fmt.Appendf(nil, "%s.%d", value, i)})
	}
	if err := c.ProduceSync(w.ctx(), rs...).FirstErr(); err != nil {
		w.Fatal(err)
	}
}

// stable asks where read_committed must stop.
func (w *world) stable(n int) map[stream.TopicPartition]int64 {
	w.Helper()
	var tps []stream.TopicPartition
	for p := range n {
		tps = append(tps, w.tp(p))
	}
	at, err := w.c.LastStable(w.ctx(), tps...)
	if err != nil {
		w.Fatal(err)
	}
	return at
}

func testReadCommitted(w *world) { w.readCommitted(stream.FetchConfig{MinBytes: 1}, 25) }

// Tiny responses: batches are cut off, and a fetch begins within transactions.
func testReadCommittedSmall(w *world) {
	w.readCommitted(stream.FetchConfig{PartitionBytes: 300, MaxBytes: 700, MinBytes: 1, BufferBytes: 100 << 10}, 12)
}

func (w *world) readCommitted(cfg stream.FetchConfig, rounds int) {
	w.create(transactionPartitions, nil)
	open := w.transact(rounds)
	ends := w.stable(transactionPartitions)
	want := w.reference(ends)
	got := w.fetch(cfg, w.starts(transactionPartitions), ends)
	for at := range got.records { // a response may hold more than was waited for
		if at.offset >= ends[w.tp(int(at.partition))] {
			w.Errorf("%v was delivered beyond the last stable offset", at)
		}
	}
	w.same(got.records, want)
	if got.aborted == 0 || got.control == 0 || got.dropped < got.aborted+got.control {
		w.Errorf("dropped %d, of which %d aborted, %d control", got.dropped, got.aborted, got.control)
	}
	w.fromEverywhere(cfg, ends, want)
	for i, c := range open { // what was held back arrives, or is dropped
		if err := c.EndTransaction(w.ctx(), kgo.TransactionEndTry(i%2 == 0)); err != nil {
			w.Fatal(err)
		}
	}
	later := w.ends(transactionPartitions)
	testenv.Eventually(w.T, 30*time.Second, func() error {
		later = w.ends(transactionPartitions) // the markers of the last transactions may still be on their way
		if got := w.stable(transactionPartitions); fmt.Sprint(got) != fmt.Sprint(later) {
			return fmt.Errorf("last stable offsets %v, ends %v", got, later)
		}
		return nil
	})
	w.same(w.fetch(cfg, w.starts(transactionPartitions), later).records, w.reference(later))
}

// fromEverywhere begins at every third offset: within batches, between a
// transaction's records and its marker.
func (w *world) fromEverywhere(cfg stream.FetchConfig, ends map[stream.TopicPartition]int64, want map[place]record) {
	tp := w.tp(0)
	for from := int64(0); from < ends[tp]; from += 3 {
		got := w.fetch(cfg, map[stream.TopicPartition]int64{tp: from}, map[stream.TopicPartition]int64{tp: ends[tp]})
		part := map[place]record{}
		for at, r := range want {
			if at.partition == 0 && at.offset >= from {
				part[at] = r
			}
		}
		w.same(got.records, part)
	}
}
