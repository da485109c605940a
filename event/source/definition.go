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
	Pair            *Pair   `yaml:"pair,omitempty"` // requests and responses are records of their own
	Mapping         Mapping `yaml:"mapping"`
}

// Topics are the foreign topics that the source reads.
func (d *Definition) Topics() []string {
	if d.Pair != nil && d.Pair.Topic != "" {
		return []string{d.Topic, d.Pair.Topic}
	}
	return []string{d.Topic}
}

// Maps is the topic whose records the mapping is about: the foreign one, or that
// of the pairs.
func (d *Definition) Maps(namespace, name string) string {
	if d.Pair != nil {
		return PairsTopic(namespace, name)
	}
	return d.Topic
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
	errs := []error{checkTopic(d.Topic)}
	if d.Pair != nil {
		errs = append(errs, d.Pair.validate(d.Topic))
		if d.Mapping.Explode == wholeRecord {
			errs = append(errs, errors.New("explode: a pair is an object: name the array in it, such as request.instances"))
		}
	}
	if err := errors.Join(append(errs, d.Mapping.Validate())...); err != nil {
		return err
	}
	if d.Pair != nil {
		if _, err := NewHalfReader(d); err != nil {
			errs = append(errs, err)
		}
	}
	_, err := NewMapper(&d.Mapping, Options{HashKey: make([]byte, 16)})
	if errors.Is(err, errNeedsFile) {
		err = errors.New("time: a topic's rows cannot be spread or numbered: name the field that holds the time, or _time for the record's own")
	}
	errs = append(errs, err)
	_, err = NewRecordReader(&d.Mapping)
	return errors.Join(append(errs, err)...)
}

func checkTopic(topic string) error {
	switch {
	case topic == "":
		return errors.New("topic: state the topic to read")
	case strings.HasPrefix(topic, "kedge."):
		return fmt.Errorf("topic: %q is one of Kedge's own", topic)
	case len(topic) > 249 || strings.Trim(topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "":
		return fmt.Errorf("topic: %.40q is no topic's name", topic)
	}
	return nil
}
