package event

// SeenID is the id of a stored row and where the row came from: what the
// window of known ids is rebuilt from after a restart.
type SeenID struct {
	Kind    Kind
	TableID uint64
	ID      []byte // valid until the next one is asked for
	Offset  int64
	Index   int32
}

// EpochRange is what the ledger holds of one partition in one epoch: the
// offsets First..Next−1 without a gap. Rows beyond a gap do not count.
type EpochRange struct {
	Epoch int32
	First int64
	Next  int64
}
