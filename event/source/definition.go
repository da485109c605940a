package source

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kedge-ml/kedge/event"
)

// Kind is the registry's name of a definition that maps a topic.
const Kind = "Source"

// Definition maps an existing topic onto Kedge's events without touching its
// producers. One topic has at most one source, which may give events of all
// kinds, in the definition's namespace.
type Definition struct {
	event.Ownership `yaml:",inline"`
	Topic           string  `yaml:"topic"`
	Mapping         Mapping `yaml:"mapping"`
}

// ParseDefinition reads a source's spec from YAML or JSON. Unknown members are
// errors; so is whatever [Definition.Validate] finds.
func ParseDefinition(text []byte) (*Definition, error) {
	d := &Definition{}
	if err := event.DecodeYAML(text, d); err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	return d, d.Validate()
}

// Validate joins all faults that can be seen without data, those of
// expressions and schemas too.
func (d *Definition) Validate() error {
	var errs []error
	switch {
	case d.Topic == "":
		errs = append(errs, errors.New("topic: state the topic to read"))
	case strings.HasPrefix(d.Topic, "kedge."):
		errs = append(errs, fmt.Errorf("topic: %q is one of Kedge's own", d.Topic))
	case len(d.Topic) > 249 || strings.Trim(d.Topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "":
		errs = append(errs, fmt.Errorf("topic: %.40q is no topic's name", d.Topic))
	}
	if err := d.Mapping.Validate(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	_, err := NewMapper(&d.Mapping, Options{HashKey: make([]byte, 16)})
	if errors.Is(err, errNeedsFile) {
		err = errors.New("time: a topic's rows cannot be spread or numbered: name the field that holds the time, or _time for the record's own")
	}
	errs = append(errs, err)
	_, err = NewRecordReader(&d.Mapping)
	return errors.Join(append(errs, err)...)
}
