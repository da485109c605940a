package ingest

import (
	"fmt"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/stream"
)

// standing is everything known of a partition when this member is given it.
type standing struct {
	commit   stream.Committed
	intent   intent
	own      bool // the commit's metadata is this program's
	ledger   []event.EpochRange
	opened   EpochSpec
	version  uint64 // of the definition that opened it; 0: the registry opens none
	log      stream.Offsets
	strange  bool  // the record of intent.Last is another one now
	registry int64 // the registry's last offset
}

// plan is what follows from it.
type plan struct {
	epoch  int32
	from   int64     // where the first unit starts, replayed or new
	replay bool      // the first unit is the standing's intent
	first  int64     // first offset of the epoch
	last   *mark     // carried into the next intents
	trim   []orphans // rows that no ledger row vouches for and that must go before anything is written
	reopen string    // not empty: open an epoch at from for this reason, and plan again
	refuse string    // not empty: an operator must decide; what happened and what to do
	note   string    // worth a line in the log
}

// orphans are the rows of an epoch at or beyond an offset.
type orphans struct {
	epoch int32
	from  int64
}

// makePlan decides where reading goes on. The ledger says what is stored; the
// group's commit says what was under way; both can be missing, behind or
// ahead, and each case means something else.
func makePlan(s standing) plan {
	p := s.decide()
	if p.refuse == "" && p.reopen == "" && p.from > s.log.Last {
		p.refuse = fmt.Sprintf("reading should go on at offset %d, but the partition ends at %d: the topic was deleted and created again, or the broker lost records; "+
			"restore the broker's data, or open an epoch to read what is there now", p.from, s.log.Last)
	}
	return p
}

func (s standing) decide() plan {
	last, stored := s.lastEpoch()
	switch {
	case s.isOpened() && (!stored || s.opened.Epoch > last.Epoch):
		return s.newEpoch(last, stored)
	case s.strange:
		return plan{refuse: fmt.Sprintf("the record at offset %d is not the one that was ingested: the topic was deleted and created again; "+
			"open an epoch from the log's start to read the new topic", s.intent.Last.Offset)}
	case !stored:
		return s.withoutLedger()
	case s.commit.Offset < 0:
		return s.goOn(last, "the group has no commit (expired or forgotten): going on from the ledger")
	case !s.own && s.commit.Offset != last.Next:
		return plan{refuse: fmt.Sprintf("the group's offset was set to %d by other means, the ledger ends at %d: "+
			"set it to %d to go on, or open an epoch from %d to read from there", s.commit.Offset, last.Next, last.Next, s.commit.Offset)}
	case !s.own || s.intent.Epoch < last.Epoch:
		return s.goOn(last, "")
	case s.intent.Epoch > last.Epoch:
		return plan{from: last.Next, reopen: fmt.Sprintf("the group's commit is of epoch %d, which neither ledger nor registry knows: the store or the registry was restored from before", s.intent.Epoch)}
	}
	return s.sameEpoch(last)
}

func (s *standing) isOpened() bool { return s.version > 0 }

func (s standing) lastEpoch() (event.EpochRange, bool) {
	if len(s.ledger) == 0 {
		return event.EpochRange{Epoch: -1}, false
	}
	return s.ledger[len(s.ledger)-1], true
}

// sameEpoch compares the ledger's end with an own commit of the same epoch.
func (s standing) sameEpoch(last event.EpochRange) plan {
	i, c := s.intent, s.commit.Offset
	switch {
	case c > last.Next:
		return plan{from: last.Next, reopen: fmt.Sprintf("the group committed offset %d, the ledger ends at %d: the store lost units or was restored from before", c, last.Next)}
	case i.pending() && c == last.Next:
		return s.repeat(last.First)
	case i.pending() && i.To+1 == last.Next, c == last.Next:
		return s.goOn(last, "")
	}
	return s.goOn(last, fmt.Sprintf("the group's commit %d is behind the ledger's end %d (the broker forgot one): going on from the ledger", c, last.Next))
}

// goOn reads on where the ledger ends.
func (s standing) goOn(last event.EpochRange, note string) plan {
	p := plan{epoch: last.Epoch, from: last.Next, first: last.First, note: note}
	if s.own && s.intent.Epoch == last.Epoch {
		p.last = s.intent.Last
	}
	return p
}

// repeat does the pending unit again as it was, or, where that is impossible,
// in a new epoch.
func (s standing) repeat(first int64) plan {
	i := s.intent
	switch {
	case i.Decoder != event.DecoderVersion:
		return plan{from: i.From, reopen: fmt.Sprintf("the unit %d-%d was begun by decoder %d, this is %d", i.From, i.To, i.Decoder, event.DecoderVersion)}
	case i.Registry > s.registry:
		return plan{from: i.From, reopen: fmt.Sprintf("the unit %d-%d was begun with definitions up to registry offset %d, which ends at %d", i.From, i.To, i.Registry, s.registry)}
	case i.From < s.log.First:
		return plan{from: i.From, reopen: fmt.Sprintf("retention removed records of the unit %d-%d before it was finished: the log starts at %d", i.From, i.To, s.log.First)}
	case i.To >= s.log.Last:
		return plan{refuse: fmt.Sprintf("the unit %d-%d was begun, but the partition ends at %d: the broker lost records; restore its data, or open an epoch from %d", i.From, i.To, s.log.Last, i.From)}
	}
	return plan{epoch: i.Epoch, from: i.From, replay: true, first: first, last: i.Last}
}

// withoutLedger starts a partition of which nothing is stored.
func (s standing) withoutLedger() plan {
	switch {
	case s.commit.Offset < 0:
		return plan{from: s.log.First, first: s.log.First}
	case !s.own:
		return plan{from: s.commit.Offset, first: s.commit.Offset, note: "starting at the offset that the group was set to"}
	case s.intent.Last != nil:
		return plan{from: s.log.First, reopen: "the group committed units, the ledger has none: the store was emptied or restored from before"}
	case s.intent.pending():
		return s.repeat(s.intent.From)
	}
	return plan{from: s.commit.Offset, first: s.commit.Offset}
}

// newEpoch enters, or goes on in, an epoch that the registry opened and the
// ledger does not know yet.
func (s standing) newEpoch(last event.EpochRange, stored bool) plan {
	e := s.opened
	p := plan{epoch: e.Epoch, from: e.From}
	if p.from == LogStart {
		p.from = s.log.First
	}
	p.first = p.from
	if stored {
		from := last.Next
		if e.Replace && last.Epoch == e.Epoch-1 {
			from = min(from, p.from)
		}
		p.trim = append(p.trim, orphans{last.Epoch, from})
	}
	for epoch := last.Epoch + 1; epoch < e.Epoch; epoch++ {
		p.trim = append(p.trim, orphans{epoch, 0})
	}
	if s.own && s.intent.Epoch > e.Epoch {
		p.reopen = fmt.Sprintf("the group's commit is of epoch %d, the registry knows up to %d: it was restored from before", s.intent.Epoch, e.Epoch)
	}
	if !s.own || s.intent.Epoch != e.Epoch {
		return p
	}
	if s.intent.Last != nil {
		p.reopen = fmt.Sprintf("units of epoch %d were committed, the ledger has none: the store was restored from before", e.Epoch)
		return p
	}
	if s.intent.pending() {
		again := s.repeat(s.intent.From)
		again.trim = p.trim
		return again
	}
	p.from, p.first = s.commit.Offset, s.commit.Offset
	return p
}
