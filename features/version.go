package features

import "cmp"

// Version orders the rows of one key, online and offline. The largest wins.
// Index separates rows that one record holds (array explode); without it two
// rows of one record could tie.
type Version struct {
	EventTime int64 // when the values became true
	Created   int64 // the producer's own version of them
	Epoch     int32
	Partition int32
	Offset    int64
	Index     int32
}

// Compare returns a negative number when v is older than w, zero when both are
// the same row, and a positive number when v is newer.
func (v Version) Compare(w Version) int {
	if c := cmp.Compare(v.EventTime, w.EventTime); c != 0 {
		return c
	}
	if c := cmp.Compare(v.Created, w.Created); c != 0 {
		return c
	}
	if c := cmp.Compare(v.Epoch, w.Epoch); c != 0 {
		return c
	}
	if c := cmp.Compare(v.Partition, w.Partition); c != 0 {
		return c
	}
	if c := cmp.Compare(v.Offset, w.Offset); c != 0 {
		return c
	}
	return cmp.Compare(v.Index, w.Index)
}

// Status says what a served value is.
type Status uint8

// Statuses, with the names that Feast gives them on the wire.
const (
	NotFound Status = iota // no row for the key, or a tombstone
	Present
	NullValue     // the row is there and states null
	OutsideMaxAge // the row is older than the view's ttl; the value is withheld
)

// String returns the wire name.
func (s Status) String() string {
	switch s {
	case Present:
		return "PRESENT"
	case NullValue:
		return "NULL_VALUE"
	case OutsideMaxAge:
		return "OUTSIDE_MAX_AGE"
	}
	return "NOT_FOUND"
}
