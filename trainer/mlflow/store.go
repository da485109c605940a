package mlflow

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/model"
	"github.com/kedge-ml/kedge/store"
	"github.com/kedge-ml/kedge/trainer"
)

// Config is what the endpoint stands on.
type Config struct {
	Namespace string
	Models    *trainer.Models // the registry of models
	Artifacts *model.Library  // Kedge's own artefacts, which clients may read; nil: none
	Store     *store.Store    // where metrics and runs' records go; nil: metrics stay in memory
	Log       *slog.Logger
}

// Store holds experiments, runs and logged models in memory and writes every
// change to a journal, from which it is read again at start. Registered models
// live in the registry of models alone.
type Store struct {
	cfg     Config
	root    *os.Root
	journal *os.File
	ops     map[string]operation
	catalog *catalog
	old     []change // of models, from a journal of an older build: see [Store.Run]

	mu          sync.RWMutex
	experiments map[string]*experiment
	order       []*experiment
	runs        map[string]*run
	logged      map[string]*logged
	waiting     parcel
	sent        parcel
	broken      error // the journal's: nothing more is accepted
}

// journalFile lies beside the folder of artefacts.
const (
	journalFile = "mlflow.journal"
	artifactDir = "mlflow-artifacts"
)

// change is one line of the journal: an operation with all that it did not
// find in its body.
type change struct {
	Op    string          `json:"op"`
	At    int64           `json:"at"`    // milliseconds
	Fresh string          `json:"fresh"` // identifier for what it creates
	Body  json.RawMessage `json:"body,omitempty"`

	run     *run     // that it changed
	metrics []metric // that it logged
}

// Open reads the journal of a folder, which may be empty.
func Open(cfg Config, root *os.Root) (*Store, error) {
	s := &Store{
		root: root, ops: operations(), experiments: make(map[string]*experiment), runs: make(map[string]*run),
		logged: make(map[string]*logged), cfg: cfg,
	}
	s.catalog = &catalog{models: cfg.Models, namespace: cfg.Namespace, logged: s.loggedAt}
	if err := root.MkdirAll(artifactDir, 0o750); err != nil {
		return nil, fmt.Errorf("open MLflow store: %w", err)
	}
	f, err := root.OpenFile(journalFile, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open MLflow store: %w", err)
	}
	s.journal = f
	if err := s.replay(f); err != nil {
		return nil, errors.Join(fmt.Errorf("read MLflow journal: %w", err), f.Close())
	}
	if len(s.order) == 0 {
		if _, err := s.do(change{Op: "POST experiments/create", Body: json.RawMessage(`{"name":"Default"}`)}, "0"); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return s, nil
}

// replay applies the journal. A last line without its end was never answered:
// it is cut off.
func (s *Store) replay(f *os.File) error {
	in := bufio.NewReaderSize(f, 1<<20)
	var good int64
	for line := 1; ; line++ {
		text, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if err := f.Truncate(good); err != nil {
				return err
			}
			_, err := f.Seek(good, io.SeekStart)
			return err
		}
		if err != nil {
			return err
		}
		var c change
		if err := json.Unmarshal(text, &c); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		op, ok := s.ops[c.Op]
		if !ok {
			return fmt.Errorf("line %d: operation %q", line, c.Op)
		}
		good += int64(len(text))
		switch {
		case op.catalog != nil:
			s.old = append(s.old, c)
			continue
		}
		if _, err := op.run(s, &c); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		s.changed(&c)
	}
}

// changed notes what a change that took effect has to tell ClickHouse.
func (s *Store) changed(c *change) {
	if c.run != nil {
		s.touched(c.run)
		s.record(c.run, c.metrics)
	}
}

// adopted marks, in the journal, that the models of an older build are in the
// registry.
const adopted = "models adopted"

// Run sends what runs log to ClickHouse. First it moves models that an older
// build kept in the journal into the registry. It returns when ctx ends.
func (s *Store) Run(ctx context.Context) error {
	if len(s.old) > 0 {
		if err := s.catalog.adopt(ctx, s.ops, s.old); err != nil {
			return fmt.Errorf("move MLflow's models into the registry: %w", err)
		}
		if _, err := s.do(change{Op: adopted}, ""); err != nil {
			return err
		}
	}
	if s.cfg.Store == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(storeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.flush(context.WithoutCancel(ctx))
		case <-tick.C:
			if err := s.flush(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.WarnContext(ctx, "what MLflow's clients logged was not stored; the next second tries again", "error", err)
			}
		}
	}
}

// loggedAt answers where the files of a logged model are.
func (s *Store) loggedAt(id string) (string, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if l := s.logged[id]; l != nil {
		return l.Artifacts, true
	}
	return "", false
}

// do applies a change and writes it down before answering. Answers are encoded
// under the lock: what they point to may change right after.
func (s *Store) do(c change, fresh string) (json.RawMessage, error) {
	c.Fresh = fresh
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return nil, s.broken
	}
	answer, err := s.ops[c.Op].run(s, &c)
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(c)
	if err == nil {
		_, err = s.journal.Write(append(line, '\n'))
	}
	if err != nil {
		s.broken = fmt.Errorf("MLflow journal cannot be written, nothing is accepted until a restart: %w", err)
		return nil, s.broken
	}
	s.changed(&c)
	return json.Marshal(answer)
}

// look answers a question.
func (s *Store) look(op operation, c *change) (json.RawMessage, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	answer, err := op.run(s, c)
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// Close syncs and closes the journal.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.journal.Sync(), s.journal.Close())
}
