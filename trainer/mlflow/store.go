package mlflow

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Store holds everything in memory and writes every change to a journal, from
// which it is read again at start.
type Store struct {
	root    *os.Root
	journal *os.File
	ops     map[string]operation

	mu          sync.RWMutex
	experiments map[string]*experiment
	order       []*experiment
	runs        map[string]*run
	models      map[string]*registered
	logged      map[string]*logged
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
	Body  json.RawMessage `json:"body"`
}

// Open reads the journal of a folder, which may be empty.
func Open(root *os.Root) (*Store, error) {
	s := &Store{
		root: root, ops: operations(), experiments: make(map[string]*experiment), runs: make(map[string]*run),
		models: make(map[string]*registered), logged: make(map[string]*logged),
	}
	if err := root.MkdirAll(artifactDir, 0o755); err != nil {
		return nil, fmt.Errorf("open MLflow store: %w", err)
	}
	f, err := root.OpenFile(journalFile, os.O_RDWR|os.O_CREATE, 0o644)
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
		if _, err := op.run(s, &c); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		good += int64(len(text))
	}
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
