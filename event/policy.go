package event

import (
	"errors"
	"fmt"
	"slices"
)

// ColumnPolicyKind is the registry's name of a definition that protects columns
// of a namespace.
const ColumnPolicyKind = "ColumnPolicy"

// What a policy does to a column for whoever may not see it.
const (
	MaskColumn = "mask" // null wherever it would stand
	DenyColumn = "deny" // the same, and asking for it by name is refused
)

// ColumnPolicySpec protects personal data: columns of every view, key and model
// input of the namespace that have one of the names, and what definitions
// compute from them.
type ColumnPolicySpec struct {
	Ownership `yaml:",inline"`
	Columns   []string `json:"columns" yaml:"columns"`
	Action    string   `json:"action" yaml:"action"`                         // mask or deny
	ShownTo   []string `json:"shown_to,omitempty" yaml:"shown_to,omitempty"` // roles that see them plainly, beside admin
}

// ParseColumnPolicy reads a policy; see [ParseView].
func ParseColumnPolicy(b []byte) (*ColumnPolicySpec, error) {
	s := &ColumnPolicySpec{}
	if err := decodeSpec(b, s); err != nil {
		return nil, fmt.Errorf("column policy: %w", err)
	}
	return s, s.Validate()
}

// Validate joins all faults of the policy.
func (s *ColumnPolicySpec) Validate() error {
	var errs []error
	if len(s.Columns) == 0 || len(s.Columns) > MaxColumns {
		errs = append(errs, fmt.Errorf("columns: %d of them: name 1 to %d", len(s.Columns), MaxColumns))
	}
	if slices.Contains(s.Columns, "") {
		errs = append(errs, errors.New("columns: a name is empty"))
	}
	if s.Action != MaskColumn && s.Action != DenyColumn {
		errs = append(errs, fmt.Errorf("action: %q: want %s or %s", s.Action, MaskColumn, DenyColumn))
	}
	return errors.Join(errs...)
}
