package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/registry"
)

// ImportKind is the registry kind that says what was imported, one definition
// per import, named by its id. Its UID is the epoch of the rows: a later import
// wins over an earlier one where event_time and created are equal.
const ImportKind = "Import"

// ImportSpec says what an import is, for people.
type ImportSpec struct {
	File    string `json:"file,omitempty"`
	Process string `json:"process"` // that works on it: another one that takes it over writes its own
}

// ImportTopic is what the ledger calls an import's rows: no topic of that name
// exists, and their offsets are the events' numbers.
func ImportTopic(namespace, id string) string {
	return event.ImportTopicPrefix(namespace) + id[:min(len(id), 16)]
}

// Errors of an importer that callers branch on.
var (
	// ErrImportPosition says that events were sent that do not follow what is
	// stored: ask where it stands and go on from there.
	ErrImportPosition = errors.New("these events are not the next ones")
	// ErrImportInvalid says that a request makes no sense.
	ErrImportInvalid = errors.New("invalid import")
	// ErrImportBusy says that what an earlier try sent may still be on its way
	// into the store: begin again a little later.
	ErrImportBusy = errors.New("the import is busy")
)

// ImportState is how far an import is.
type ImportState struct {
	Epoch int32 `json:"epoch"`
	Next  int64 `json:"next" doc:"How many of the import's events are stored: send from there on"`
}

// ImportResult says what became of some events.
type ImportResult struct {
	ImportState
	Rows        int64 `json:"rows"`
	DeadLetters int64 `json:"dead_letters"`
}

// Importer writes history straight into the store, past the broker: units of
// events whose offsets are their numbers, in an epoch of the import's own, each
// with its ledger row last. What a broken try left behind its last ledger row is
// removed before the next one. One process works on an import at a time; another
// that is asked takes it over.
type Importer struct {
	c       *Consumer
	process string

	mu   sync.Mutex
	work map[string]*importing
}

// importing is one import under way.
type importing struct {
	mu sync.Mutex
	ImportState
	loaded  bool
	version uint64    // of the definition that this process wrote
	tries   uint64    // part of the tokens: what a broken try inserted is removed, its tokens are spent
	quiet   time.Time // when nothing that a broken try or a former process sent can arrive any more
}

// Importer returns what imports into the consumer's store, by its definitions,
// beside it.
func (c *Consumer) Importer() *Importer {
	return &Importer{c: c, process: fmt.Sprintf("%016x", rand.Uint64()), work: map[string]*importing{}}
}

var importID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Begin makes an import known, or finds where an earlier try of it stands. id is
// the SHA-256, in hexadecimal, of whatever decides its events: the same id with
// other events is the caller's fault and drops them.
func (m *Importer) Begin(ctx context.Context, namespace, id, file, who string) (ImportState, error) {
	if !importID.MatchString(id) {
		return ImportState{}, fmt.Errorf("%w: id %.80q: want a SHA-256 in hexadecimal", ErrImportInvalid, id)
	}
	w := m.of(namespace, id)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loaded = false
	err := m.load(ctx, w, namespace, id, file, who)
	return w.ImportState, err
}

func (m *Importer) of(namespace, id string) *importing {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.work[namespace+"/"+id]
	if w == nil {
		w = &importing{}
		m.work[namespace+"/"+id] = w
	}
	return w
}

// load claims an import for this process, finds what is stored of it and removes
// what no ledger row vouches for.
func (m *Importer) load(ctx context.Context, w *importing, namespace, id, file, who string) error {
	d, former, err := m.claim(ctx, namespace, id, file, who)
	if err != nil {
		return err
	}
	if former {
		m.unsettle(w)
	}
	if left := time.Until(w.quiet); left > 0 {
		return fmt.Errorf("%w: what was sent before may still be on its way into the store: begin again in %v", ErrImportBusy, left.Round(time.Second)+time.Second)
	}
	topic := ImportTopic(namespace, id)
	stored, err := m.c.sink.Epochs(ctx, topic, 0)
	if err != nil {
		return fmt.Errorf("import: read the ledger: %w", err)
	}
	if d.UID > math.MaxInt32 {
		return fmt.Errorf("import: definition number %d is no epoch: the registry is too long", d.UID)
	}
	w.ImportState = ImportState{Epoch: int32(d.UID)}
	if n := len(stored); n > 0 { // the ledger knows it, even where the registry was restored from before
		w.ImportState = ImportState{Epoch: stored[n-1].Epoch, Next: stored[n-1].Next}
	}
	rows, ledger, err := m.c.sink.Beyond(ctx, topic, 0, w.Epoch, w.Next)
	if err == nil && rows+ledger > 0 {
		err = m.c.sink.Trim(ctx, topic, 0, w.Epoch, w.Next)
	}
	if err != nil {
		return fmt.Errorf("import: remove what a broken try left: %w", err)
	}
	w.loaded, w.version, w.tries = true, d.Version, rand.Uint64()
	return nil
}

// unsettle notes that an insert may be under way whose end nobody here sees. What
// it stores after the rests of its try were removed would stay.
func (m *Importer) unsettle(w *importing) {
	if !m.c.cfg.OwnStore {
		w.quiet = time.Now().Add(m.c.cfg.InsertTimeout)
	}
}

// claim writes this process into the import's definition. former says that
// another one had it.
func (m *Importer) claim(ctx context.Context, namespace, id, file, who string) (d registry.Definition, former bool, err error) {
	for {
		d, ok := m.c.reg.State().Get(ImportKind, namespace, id)
		was := ImportSpec{}
		if ok {
			if err := json.Unmarshal(d.Spec, &was); err != nil {
				return d, false, fmt.Errorf("definition %s %s: %w", ImportKind, id, err)
			}
			if was.Process == m.process {
				return d, false, nil
			}
		}
		if file == "" {
			file = was.File
		}
		spec, err := json.Marshal(ImportSpec{File: file, Process: m.process})
		if err != nil {
			return d, false, err
		}
		d, err = m.c.reg.Apply(ctx, registry.Entry{Kind: ImportKind, Namespace: namespace, Name: id, Op: registry.Put, Expect: d.Version, Spec: spec, Who: who})
		if !isStale(err) {
			return d, ok, err
		}
	}
}

// Add stores an import's next events, one envelope each, as one unit. Events
// that cannot become rows are dead letters. After an error nothing of them
// counts as stored: send them again.
func (m *Importer) Add(ctx context.Context, namespace, id string, from int64, lines [][]byte) (ImportResult, error) {
	w := m.of(namespace, id)
	w.mu.Lock()
	defer w.mu.Unlock()
	// Who takes the import over waits as long, from a moment after this one: what is
	// read below holds for now, however late this process goes on.
	ctx, cancel := context.WithTimeout(ctx, m.c.cfg.InsertTimeout)
	defer cancel()
	d, known := m.c.reg.State().Get(ImportKind, namespace, id)
	switch {
	case !known || !w.loaded:
		return ImportResult{}, fmt.Errorf("%w: begin the import first: this process does not have it under way", ErrImportPosition)
	case d.Version != w.version:
		w.loaded = false
		return ImportResult{}, fmt.Errorf("%w: another process took the import over", ErrImportPosition)
	case from != w.Next:
		return ImportResult{ImportState: w.ImportState}, fmt.Errorf("%w: got events from number %d, %d are stored", ErrImportPosition, from, w.Next)
	case len(lines) == 0 || len(lines) > m.c.cfg.MaxRows:
		return ImportResult{ImportState: w.ImportState}, fmt.Errorf("%w: %d events at a time: want 1 to %d", ErrImportInvalid, len(lines), m.c.cfg.MaxRows)
	}
	if full, err := m.c.overQuota(ctx, namespace); full != "" || err != nil {
		if err == nil {
			err = fmt.Errorf("%w: %s", ErrQuota, full)
		}
		return ImportResult{ImportState: w.ImportState}, err
	}
	w.loaded = false // until it is all stored
	u, offset, err := m.decode(ctx, namespace, id, w, lines)
	if err != nil {
		return ImportResult{}, fmt.Errorf("import: %w", err)
	}
	if err := m.store(ctx, w, u, ImportTopic(namespace, id), offset, int64(len(lines))); err != nil {
		m.unsettle(w)
		return ImportResult{}, fmt.Errorf("import: %w", err)
	}
	m.c.usage.stored(namespace, u.Counts.Rows)
	w.loaded, w.Next = true, w.Next+int64(len(lines))
	return ImportResult{ImportState: w.ImportState, Rows: u.Counts.Rows, DeadLetters: u.Counts.DeadLetters}, nil
}

// decode makes rows of events, letting the definitions learn from them.
func (m *Importer) decode(ctx context.Context, namespace, id string, w *importing, lines [][]byte) (*event.Unit, int64, error) {
	u := &event.Unit{Topic: ImportTopic(namespace, id), Namespace: namespace, Epoch: w.Epoch}
	d, addresses := event.NewDecoder(m.c.cfg.Decoder), event.NewAddressReader(m.c.cfg.Decoder)
	now := time.Now().UnixMicro()
	for range maxRounds {
		catalog, offset, err := m.c.defs.now()
		if err != nil {
			return nil, 0, err
		}
		u.Reset(catalog)
		for i, line := range lines {
			r := event.Record{Offset: w.Next + int64(i), Time: now, Value: line}
			a, err := addresses.Read(line)
			if err != nil {
				d.Refuse(u, r, event.ReasonMalformed, err.Error())
				continue
			}
			u.Kind, r.Key = a.Kind, a.Key
			d.Decode(u, r)
		}
		if len(u.Proposals) == 0 {
			return u, offset, nil
		}
		if err := m.c.defs.learn(ctx, u.Proposals); err != nil {
			return nil, 0, fmt.Errorf("extend definitions: %w", err)
		}
	}
	return nil, 0, fmt.Errorf("the definition of %s/%s does not settle", u.Proposals[0].Namespace, u.Proposals[0].Name)
}

// store writes a unit: tables, dead letters, then the ledger row.
func (m *Importer) store(ctx context.Context, w *importing, u *event.Unit, topic string, registry, n int64) error {
	r := u.Ledger()
	r.From, r.To, r.Registry = w.Next, w.Next+n-1, registry
	t := newTokens(fmt.Sprintf("%s-%016x", m.c.cfg.Sink, w.tries), w.Epoch, "import", topic, 0, r.From, r.To)
	return m.c.storeUnit(ctx, u, t, r)
}
