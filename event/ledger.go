package event

import "fmt"

// LedgerRow says what became of one unit of work: the records From..To of one
// partition in one epoch. It is the last thing a unit writes, so a ledger row
// means that everything it counts is stored.
//
// Every record of the range is accounted for. Records counts what the broker
// delivered and the decoder saw; Dropped what the range holds beside it
// (control records and aborted ones); Missing what retention removed before it
// was read. A record may yield several rows (an array explode) or several
// outcomes, so
//
//	To − From + 1 = Records + Dropped + Missing
//
// is exact, and Rows, DeadLetters, Duplicates and Tombstoned count events;
// Silent counts what a source's mapping makes no event of (filtered rows,
// tombstones). Together the five are at least Records.
type LedgerRow struct {
	Topic     string
	Partition int32
	Epoch     int32
	From      int64 // first offset
	To        int64 // last offset, inclusive

	Records     int64
	Rows        int64
	DeadLetters int64
	Duplicates  int64
	Tombstoned  int64
	Silent      int64
	Dropped     int64
	Missing     int64

	Decoder  int   // DecoderVersion that made the rows
	Registry int64 // registry offset whose definitions the unit was decoded with

	Tables  map[string]int64 // table name → rows of this unit
	Windows []DirtyWindow    // minutes whose derived state must be recomputed

	MaxEventTime int64 // µs; 0 when the unit has no rows
	MinKnownAt   int64 // µs
	MaxKnownAt   int64 // µs

	// When the broker appended the unit's records, µs; 0 when it has none.
	// A backfill states known_at; this is what lag and retention count from.
	MinAppended int64
	MaxAppended int64
}

// DirtyWindow is one minute of one table that a unit added rows to. Kind and
// TableID together name the table, as in [Schema].
type DirtyWindow struct {
	Kind    Kind
	TableID uint64
	Minute  int64 // event time in minutes since the Unix epoch, rounded down
}

// ImportTopicPrefix begins what the ledger calls rows that were imported into a
// namespace, past the broker.
func ImportTopicPrefix(namespace string) string { return "kedge." + namespace + ".import." }

// ConvertTopicPrefix begins what the ledger calls rows of a view that were made
// of rows of an older version, under a table id; the topic that brought those
// follows. To readers they are imported history.
func ConvertTopicPrefix(namespace string, tableID uint64) string {
	return fmt.Sprintf("%sconvert.%d.", ImportTopicPrefix(namespace), tableID)
}

// Stored is what the tables of a namespace hold: of events, without dead letters
// and what is derived.
type Stored struct{ Rows, Bytes int64 }

// ConvertUnit is a unit of the ledger whose rows are to be converted.
type ConvertUnit struct {
	Topic            string
	Partition, Epoch int32
	From, To         int64 // offsets, both included
	Rows             int64 // of the older version
	Done             int64 // the last offset that is converted; -1: none
}
