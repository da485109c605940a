package app

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// LoadConfig reads a YAML file over the defaults, then the environment.
// An empty path means no file. Unknown members are errors that name their line.
// The result is not validated yet, since flags may still change it.
func LoadConfig(path string, environ []string) (Config, error) {
	cfg := DefaultConfig()
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return cfg, fmt.Errorf("read configuration: %w", err)
		}
		if err := decodeConfig(b, &cfg); err != nil {
			return cfg, fmt.Errorf("configuration %s: %w", path, err)
		}
	}
	if err := overrideFromEnv(&cfg, environ); err != nil {
		return cfg, fmt.Errorf("configuration from the environment: %w", err)
	}
	return cfg, nil
}

// decodeConfig reads one YAML document, strictly.
func decodeConfig(b []byte, cfg *Config) error {
	dec := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict())
	err := dec.Decode(cfg)
	if err != nil && !errors.Is(err, io.EOF) { // an empty file sets nothing
		return fmt.Errorf("%s", strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	var more any
	if err == nil && dec.Decode(&more) == nil {
		return errors.New("more than one YAML document in the file: keep the first")
	}
	return nil
}

// overrideFromEnv sets members from variables named after their path.
func overrideFromEnv(cfg *Config, environ []string) error {
	values := map[string]string{}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, "KEDGE_") {
			values[name] = value
		}
	}
	var faults []error
	walkConfig(reflect.ValueOf(cfg).Elem(), "KEDGE", func(name string, v reflect.Value) {
		text, ok := values[name]
		if !ok {
			return
		}
		if err := setFromText(v, text); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	})
	return errors.Join(faults...)
}

// walkConfig calls leaf for every member that is not a group, with its
// variable name.
func walkConfig(v reflect.Value, prefix string, leaf func(name string, v reflect.Value)) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := prefix + "_" + strings.ToUpper(f.Tag.Get("yaml"))
		if f.Type.Kind() == reflect.Struct {
			walkConfig(v.Field(i), name, leaf)
			continue
		}
		leaf(name, v.Field(i))
	}
}

func setFromText(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.String {
			return errors.New("is a list of groups: write it in the configuration file")
		}
		v.Set(reflect.ValueOf(SplitList(text)))
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q: want true or false", text)
		}
		v.SetBool(b)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q: want a number", text)
		}
		v.SetFloat(f)
	case reflect.Int, reflect.Uint64:
		n, err := strconv.ParseInt(text, 10, 63)
		if err != nil || n < 0 {
			return fmt.Errorf("%q: want a whole number that is not negative", text)
		}
		if v.Kind() == reflect.Int {
			v.SetInt(n)
		} else {
			v.SetUint(uint64(n))
		}
	default:
		return fmt.Errorf("cannot be set from the environment (%s)", v.Kind())
	}
	return nil
}

// SplitList reads "a, b" as a list; the empty text is an empty list.
func SplitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// YAML writes the configuration with its secrets hidden.
func (c Config) YAML() ([]byte, error) {
	b, err := yaml.MarshalWithOptions(c, yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return b, nil
}
