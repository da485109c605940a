package event

// member is one of the envelope's members.
type member uint8

const (
	noMember member = iota
	mNamespace
	mView
	mModel
	mVersion
	mKey
	mEventTime
	mCreated
	mKnownAt
	mID
	mTrace
	mDelete
	mPredictionID
	mValues
	mInputs
	mOutput
	mSegments
	mVariant
	mFeatureTimes
	mLatency
	mThreshold
	mGroup
	mAttributions
	mWeight
	mLabel
)

// memberSet has bit m set for member m.
type memberSet uint32

func setOf(members ...member) (s memberSet) {
	for _, m := range members {
		s |= 1 << m
	}
	return s
}

// membersOf says which members each kind of event has.
var membersOf = [4]memberSet{
	Features: setOf(mNamespace, mView, mKey, mEventTime, mCreated, mKnownAt, mID, mTrace, mDelete, mValues),
	Predictions: setOf(mNamespace, mModel, mVersion, mKey, mEventTime, mCreated, mKnownAt, mID, mTrace, mInputs, mOutput,
		mSegments, mVariant, mFeatureTimes, mLatency, mThreshold, mGroup, mAttributions, mWeight),
	Labels: setOf(mNamespace, mModel, mKey, mEventTime, mCreated, mKnownAt, mID, mTrace, mPredictionID, mWeight, mLabel),
}

var memberNames = [...]string{"", "namespace", "view", "model", "version", "key", "event_time", "created", "known_at", "id",
	"trace", "delete", "prediction_id", "values", "inputs", "output", "segments", "variant", "feature_times", "latency",
	"threshold", "group", "attributions", "weight", "label"}

func (m member) String() string { return memberNames[m] }

// fillsColumn reports whether the member's value goes straight into columns,
// so that the table must be known first.
func (m member) fillsColumn() bool { return m == mKey || m >= mValues }

// memberNamed is a switch because that compiles to a search by length, which
// no map matches.
func memberNamed(name []byte) member {
	switch string(name) {
	case "namespace":
		return mNamespace
	case "view":
		return mView
	case "model":
		return mModel
	case "version":
		return mVersion
	case "key":
		return mKey
	case "event_time":
		return mEventTime
	case "created":
		return mCreated
	case "known_at":
		return mKnownAt
	case "id":
		return mID
	case "trace":
		return mTrace
	case "delete":
		return mDelete
	case "prediction_id":
		return mPredictionID
	case "values":
		return mValues
	case "inputs":
		return mInputs
	case "output":
		return mOutput
	}
	return rareMember(name)
}

func rareMember(name []byte) member {
	for m := mSegments; int(m) < len(memberNames); m++ {
		if string(name) == memberNames[m] {
			return m
		}
	}
	return noMember
}

// member reads one member's value into the envelope or into columns.
func (d *Decoder) member(m member) (ok bool) {
	e := &d.env
	switch m {
	case mNamespace:
		e.namespace, ok = d.text("namespace")
		if ok && string(e.namespace) != d.u.Namespace {
			return d.fail(ReasonNamespace, sentence("the event names namespace ", brief(e.namespace), " but came on a topic of ", brief([]byte(d.u.Namespace))))
		}
	case mView, mModel:
		e.subject, ok = d.text(m.String())
		return ok && d.resolve()
	case mVersion:
		e.version, ok = d.word("version")
		return ok && d.resolve()
	case mEventTime:
		e.eventTime, ok = d.when("event_time")
	case mCreated:
		e.created, ok = d.when("created")
	case mKnownAt:
		e.knownAt, ok = d.when("known_at")
	case mID:
		e.id, ok = d.word("id")
	case mTrace:
		e.trace, ok = d.text("trace")
		e.trace = traceID(e.trace)
	case mDelete:
		e.del, ok = d.flag("delete")
	case mPredictionID:
		e.predictionID, ok = d.word("prediction_id")
	default:
		return d.column(m)
	}
	return ok
}

// traceID takes the trace id out of a W3C traceparent.
func traceID(b []byte) []byte {
	const traceparent = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	if len(b) == traceparent && b[2] == '-' && b[35] == '-' && b[52] == '-' {
		return b[3:35]
	}
	return b
}

// column reads a member that fills columns of the row.
func (d *Decoder) column(m member) bool {
	p := d.env.plan
	switch m {
	case mKey:
		if p.schema.Kind == Features {
			return d.entityKey(p)
		}
		return d.jsonKey(p)
	case mValues, mInputs:
		return d.values(p, m.String())
	case mLabel:
		return d.label(p)
	}
	return d.predictionColumn(p, m)
}

// resolve finds the table once the subject's name (and a prediction's version)
// are known.
func (d *Decoder) resolve() bool {
	e, u := &d.env, d.u
	if e.subject == nil || u.Kind == Predictions && e.version == nil {
		return true
	}
	if l := &u.last; l.plan != nil && string(l.name) == string(e.subject) && string(l.version) == string(e.version) {
		e.plan = l.plan
		return true
	}
	t, ok := d.lookup()
	if !ok {
		return false
	}
	if t == nil {
		return d.resolveDraft()
	}
	if t.retired {
		return d.fail(ReasonRetracted, sentence(brief(e.subject), " is retired and takes no events"))
	}
	if t.schema.From != nil {
		return d.fail(ReasonOutside, sentence("view ", brief(e.subject), " reads the outside table ", brief([]byte(t.schema.From.Table)), " and takes no events: write to that table, or send to a view of another name"))
	}
	if t.version > 0 {
		e.versioned = t
		return true
	}
	e.plan = u.plan(t)
	u.last.name = append(u.last.name[:0], e.subject...)
	u.last.version = append(u.last.version[:0], e.version...)
	u.last.plan = e.plan
	return true
}

// lookup asks the catalog.
func (d *Decoder) lookup() (*target, bool) {
	e, ns := &d.env, d.u.Namespace
	if d.u.Kind == Features {
		if t := d.u.Catalog.view(ns, e.subject); t != nil {
			return t, true
		}
		return nil, d.roomForSubject()
	}
	m := d.u.Catalog.model(ns, e.subject)
	switch {
	case m == nil:
		return nil, d.roomForSubject()
	case d.u.Kind == Labels:
		return m.labels, true
	}
	t := m.version(e.version)
	if t == nil && len(m.versions) >= MaxVersions {
		return nil, d.fail(ReasonLimit, sentence("model ", brief(e.subject), " has ", itoa(MaxVersions), " versions and takes no new one"))
	}
	return t, true
}

func (d *Decoder) roomForSubject() bool {
	if d.u.Catalog.full(d.u.Namespace) {
		return d.fail(ReasonLimit, sentence("the namespace has ", itoa(MaxSubjects), " views and models and takes no new one"))
	}
	return d.roomForColumns(1)
}

// roomForColumns holds a namespace to its quota of series: what is defined goes
// on, and nothing more is inferred.
func (d *Decoder) roomForColumns(more int) bool {
	if quota, over := d.u.Catalog.spent(d.u.Namespace, more); over {
		return d.fail(ReasonLimit, sentence("the namespace has its quota of ", itoa(int(quota)), " series (columns of views and models): no more are inferred; raise quotas.series of the Namespace"))
	}
	return true
}

// resolveDraft lets an event of an unknown subject be read for evidence.
func (d *Decoder) resolveDraft() bool {
	e := &d.env
	for _, name := range [][]byte{e.subject, e.version} {
		if name == nil {
			continue
		}
		if err := CheckName(string(name)); err != nil {
			return d.fail(ReasonLimit, err.Error())
		}
	}
	if d.cfg.DeclaredOnly {
		return d.fail(ReasonUndefined, sentence("nothing is defined under the name ", brief(e.subject), " and inference is off"))
	}
	e.plan, e.held = d.drafts[d.u.Kind], true
	return true
}
