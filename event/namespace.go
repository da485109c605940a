package event

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// NamespaceKind is the registry's name of a definition of a namespace. It is
// held in the namespace that it defines, under the same name.
const NamespaceKind = "Namespace"

// NamespaceSpec says who a namespace belongs to and how much of an installation
// it may have. A namespace without a definition has the zero spec: weight 1, no
// quotas, the installation's retention.
type NamespaceSpec struct {
	Ownership `yaml:",inline"`
	Owners    []string  `json:"owners,omitempty" yaml:"owners,omitempty"` // identities that may administer it
	Weight    int       `json:"weight,omitempty" yaml:"weight,omitempty"` // share of ingest while it is short; 1 when 0
	Quotas    Quotas    `json:"quotas,omitzero" yaml:"quotas,omitempty"`
	Retention Retention `json:"retention,omitzero" yaml:"retention,omitempty"`
}

// Quotas bound what a namespace takes of an installation. Zero is no bound. The
// decoder holds a namespace to Series, ingest to EventsPerSecond (each process
// by itself), Rows, StorageBytes and DeadLetterBytes, the door to
// RequestsPerSecond.
type Quotas struct {
	EventsPerSecond   int64 `json:"events_per_second,omitempty" yaml:"events_per_second,omitempty"`     // what is above waits in its topics
	Rows              int64 `json:"rows,omitempty" yaml:"rows,omitempty"`                               // stored, of all its tables: then its topics wait
	Series            int64 `json:"series,omitempty" yaml:"series,omitempty"`                           // columns of all its views and models: then nothing is inferred
	RequestsPerSecond int64 `json:"requests_per_second,omitempty" yaml:"requests_per_second,omitempty"` // over HTTP and gRPC: what is above is refused
	StorageBytes      int64 `json:"storage_bytes,omitempty" yaml:"storage_bytes,omitempty"`             // compressed, of all its tables: then its topics wait
	DeadLetterBytes   int64 `json:"dead_letter_bytes,omitempty" yaml:"dead_letter_bytes,omitempty"`     // then dead letters lose their bytes, not their reason
}

// Retention says how long rows are kept, and after how long they move to another
// volume, both counted from the append: of a view or model; where it says nothing,
// of its namespace; where that says nothing, of the installation.
type Retention struct {
	Rows      Duration `json:"rows,omitempty" yaml:"rows,omitempty"`             // 0: not said here
	Volume    string   `json:"volume,omitempty" yaml:"volume,omitempty"`         // of the installation's; empty: not said here
	MoveAfter Duration `json:"move_after,omitempty" yaml:"move_after,omitempty"` // to Volume
}

func (r Retention) validate() error {
	switch {
	case r.Rows < 0 || r.Rows > 0 && r.Rows < Duration(time.Second):
		return errors.New("retention: rows: want at least a second, or nothing")
	case (r.Volume == "") != (r.MoveAfter == 0):
		return errors.New("retention: volume and move_after go together: where rows move to, and when")
	case r.Volume == "":
		return nil
	case !volumeRule.MatchString(r.Volume):
		return fmt.Errorf("retention: volume %q: want a lower-case letter, then letters, digits or _", r.Volume)
	case r.MoveAfter < Duration(time.Second):
		return errors.New("retention: move_after: want at least a second")
	case r.Rows > 0 && r.MoveAfter >= r.Rows:
		return errors.New("retention: move_after: rows are removed before they would move: want less than rows")
	}
	return nil
}

var volumeRule = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// MaxWeight bounds how much more than others a namespace may have.
const MaxWeight = 1000

// Share is the namespace's weight.
func (s *NamespaceSpec) Share() int { return max(s.Weight, 1) }

// ParseNamespace reads a namespace's definition; see [ParseView].
func ParseNamespace(b []byte) (*NamespaceSpec, error) {
	s := &NamespaceSpec{}
	if err := decodeSpec(b, s); err != nil {
		return nil, fmt.Errorf("namespace: %w", err)
	}
	return s, s.Validate()
}

// Validate joins all faults of the definition.
func (s *NamespaceSpec) Validate() error {
	var errs []error
	if s.Weight < 0 || s.Weight > MaxWeight {
		errs = append(errs, fmt.Errorf("weight: %d: want 1 to %d", s.Weight, MaxWeight))
	}
	for _, o := range s.Owners {
		if o == "" {
			errs = append(errs, errors.New("owners: a name is empty"))
		}
	}
	q := s.Quotas
	for name, v := range map[string]int64{"events_per_second": q.EventsPerSecond, "rows": q.Rows, "series": q.Series,
		"requests_per_second": q.RequestsPerSecond, "storage_bytes": q.StorageBytes, "dead_letter_bytes": q.DeadLetterBytes} {
		if v < 0 {
			errs = append(errs, fmt.Errorf("quotas: %s: %d: want a positive number, or none for no bound", name, v))
		}
	}
	return errors.Join(append(errs, s.Retention.validate())...)
}

var namespaceRule = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// CheckNamespace says whether a namespace may have the name: it is a part of
// topics' names.
func CheckNamespace(name string) error {
	if !namespaceRule.MatchString(name) {
		return fmt.Errorf("namespace %q: want a lower-case letter, then letters, digits, _ or -", name)
	}
	return nil
}
