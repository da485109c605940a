package event

// finish completes the row of an event whose members are all read.
func (d *Decoder) finish() bool {
	e := &d.env
	if !d.complete() || !d.chooseVersion() {
		return false
	}
	if e.plan == nil {
		return d.fail(ReasonMissing, "the event has no table")
	}
	for _, m := range d.deferred {
		d.pos, d.depth = m.pos, 1
		if !d.member(m.member) {
			return false
		}
	}
	if !d.times() || e.plan.convert != nil && !d.convert() {
		return false
	}
	d.fill()
	if e.held {
		return true
	}
	if d.erased() {
		d.u.Counts.Tombstoned++
		return false
	}
	if d.u.Seen != nil && len(e.id) > 0 && d.u.Seen(e.plan.schema, e.id, d.rec.Offset, d.index) {
		d.u.Counts.Duplicates++
		return false
	}
	d.u.Counts.Overflow += e.overflown
	d.u.Counts.Unknown += e.unknown
	d.u.committed(e.plan, e.eventTime, e.knownAt)
	return true
}

// complete checks that all members the kind requires are there and not null.
func (d *Decoder) complete() bool {
	e := &d.env
	have := e.seen &^ e.nulls
	switch d.u.Kind {
	case Features:
		need := setOf(mView, mKey, mEventTime, mValues)
		if e.del {
			need &^= setOf(mValues)
		}
		return d.require(have, need)
	case Predictions:
		if have&setOf(mID) != 0 && len(e.id) == 0 {
			have &^= setOf(mID)
		}
		return d.require(have, setOf(mModel, mVersion, mID, mEventTime, mInputs, mOutput))
	}
	if have&setOf(mPredictionID) == 0 || len(e.predictionID) == 0 {
		if !d.require(have, setOf(mKey)) {
			return false
		}
	}
	return d.require(have, setOf(mModel, mEventTime, mLabel))
}

func (d *Decoder) require(have, need memberSet) bool {
	if have&need == need {
		return true
	}
	for m := mNamespace; int(m) < len(memberNames); m++ {
		bit := memberSet(1) << m
		switch {
		case need&bit == 0 || have&bit != 0:
		case m == mKey && d.env.nulls&bit != 0:
			return d.fail(ReasonKey, "key is null")
		case m == mKey && d.u.Kind == Labels:
			return d.fail(ReasonMissing, "a label needs a prediction_id, or a key and an event_time")
		case d.env.seen&bit != 0:
			return d.fail(ReasonMissing, sentence("the member ", m.String(), " is null or empty"))
		default:
			return d.fail(ReasonMissing, sentence("the member ", m.String(), " is missing"))
		}
	}
	return true
}

// times settles created and known_at and holds event_time and known_at against
// the broker's clock.
func (d *Decoder) times() bool {
	e := &d.env
	have := e.seen &^ e.nulls
	if have&setOf(mCreated) == 0 {
		e.created = e.eventTime
	}
	if have&setOf(mKnownAt) == 0 {
		if e.knownAt = d.rec.KnownAt; e.knownAt == 0 {
			e.knownAt = d.rec.Time
		}
	}
	bound := d.rec.Time + d.cfg.FutureBound.Microseconds()
	switch {
	case e.eventTime > bound:
		return d.future("event_time", e.eventTime)
	case e.knownAt > bound:
		return d.future("known_at", e.knownAt)
	}
	return true
}

func (d *Decoder) future(what string, t int64) bool {
	ahead := (t - d.rec.Time) / 1_000_000
	return d.fail(ReasonFuture, sentence(what, " ", string(AppendTime(nil, t)), " is ", itoa(int(ahead)),
		" s ahead of the broker's clock, at most ", itoa(int(d.cfg.FutureBound.Seconds())), " s are taken"))
}

// fill writes the fixed columns and nulls for what the event did not state.
func (d *Decoder) fill() {
	e, p := &d.env, d.env.plan
	cols := p.batch.Columns
	cols[ColPartition].AppendInt32(d.rec.Partition)
	cols[ColOffset].AppendInt64(d.rec.Offset)
	cols[ColIndex].AppendInt32(d.index)
	cols[ColEpoch].AppendInt32(d.u.Epoch)
	cols[ColEventTime].AppendInt64(e.eventTime)
	cols[ColCreated].AppendInt64(e.created)
	cols[ColKnownAt].AppendInt64(e.knownAt)
	cols[ColID].AppendBytes(e.id)
	if e.trace != nil {
		cols[ColTrace].AppendBytes(e.trace)
	} else {
		cols[ColTrace].Data = append(cols[ColTrace].Data, d.rec.Trace...)
		cols[ColTrace].endBytes()
	}
	if e.overflown > 0 {
		d.overflow = append(d.overflow, '}')
	}
	cols[ColOverflow].AppendBytes(d.overflow)
	cols[ColAppended].AppendInt64(d.rec.Time)
	switch p.schema.Kind {
	case Features:
		cols[FeatureDelete].AppendBool(e.del)
	case Predictions:
		cols[PredVersion].AppendBytes(e.version)
		defaultWeight(&cols[PredWeight], p.batch.Rows)
	case Labels:
		cols[LabelPredictionID].AppendBytes(e.predictionID)
		cols[LabelWithdrawn].AppendBool(e.withdrawn)
		defaultWeight(&cols[LabelWeight], p.batch.Rows)
	}
	d.fillNulls(p)
}

func defaultWeight(c *Column, rows int) {
	if c.Len() == rows {
		c.AppendFloat64(1)
	}
}

// fillNulls ends the row in every column that has none yet.
func (d *Decoder) fillNulls(p *plan) {
	first := commonFields
	if p.schema.Kind == Features {
		first = p.schema.ValueStart()
		if d.env.stored == p.target.stored {
			return
		}
	}
	cols := p.batch.Columns
	for i := first; i < len(cols); i++ {
		if cols[i].Len() == p.batch.Rows {
			cols[i].AppendNull()
		}
	}
}
