package ingest

import (
	"context"
	"iter"

	"github.com/kedge-ml/kedge/event"
)

// Sink is where units are written. Every insert is one block of one table and
// carries a token; a block whose token the table took before is dropped
// silently, so an insert may be repeated after any doubt. A block is stored
// whole or not at all (per month of event_time, when it spans several).
//
// A Sink is used by many goroutines at once.
type Sink interface {
	// Prepare makes the tables of the schemas exist with at least their
	// columns. Doing it again changes nothing; a table may be wider already.
	Prepare(ctx context.Context, schemas []*event.Schema) error
	// Insert stores the rows of one table. The batch is the caller's again
	// when Insert returns.
	Insert(ctx context.Context, token string, b *event.Batch) error
	// InsertDeadLetters stores a unit's dead letters, at least one.
	InsertDeadLetters(ctx context.Context, token string, d []event.DeadLetter) error
	// InsertLedger stores what became of a unit, and its dirty windows with it.
	InsertLedger(ctx context.Context, token string, r event.LedgerRow) error

	// DeadLetterBytes counts the bytes of keys and values of the dead letters
	// stored of a namespace, and of other topics.
	DeadLetterBytes(ctx context.Context, namespace string, topics []string) (int64, error)

	// Epochs says what the ledger holds of a partition, oldest epoch first.
	Epochs(ctx context.Context, topic string, partition int32) ([]event.EpochRange, error)
	// Beyond counts the rows and dead letters of a partition and epoch at or
	// beyond an offset, in all tables, and the ledger rows.
	Beyond(ctx context.Context, topic string, partition, epoch int32, from int64) (rows, ledger int64, err error)
	// Trim removes what Beyond counts and returns when it is gone. Doing it
	// again changes nothing.
	Trim(ctx context.Context, topic string, partition, epoch int32, from int64) error
	// SeenIDs yields the non-empty ids of stored rows of a partition and epoch
	// with from ≤ offset < to, in any order.
	SeenIDs(ctx context.Context, topic string, partition, epoch int32, from, to int64) iter.Seq2[event.SeenID, error]

	// Stored counts the rows and compressed bytes of a namespace's tables.
	Stored(ctx context.Context, namespace string) (event.Stored, error)
	// Unconverted lists units with rows of an older version of a view that no
	// ledger row of its conversion, by topics that begin with prefix, covers.
	Unconverted(ctx context.Context, former *event.Schema, prefix string, limit int) ([]event.ConvertUnit, error)
	// RowsOf yields the rows of a table that a unit brought, in the log's order.
	RowsOf(ctx context.Context, schema *event.Schema, u event.ConvertUnit) iter.Seq2[*event.Batch, error]
	// NewestRows yields the newest rows of a table.
	NewestRows(ctx context.Context, schema *event.Schema, limit int) iter.Seq2[*event.Batch, error]
}
