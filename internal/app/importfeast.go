package app

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/features"
)

// ImportFeast writes, as YAML that `kedge apply` takes, what a Feast repository
// defines. Path is the repository's folder or its registry file; notes get what
// has to be written by hand.
func ImportFeast(path string, out, notes io.Writer) error {
	file, err := feastRegistry(path)
	if err != nil {
		return fmt.Errorf("import %s: %w", path, err)
	}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("import %s: there is no registry file %s: run `feast apply` in the repository first", path, file)
	}
	if err != nil {
		return fmt.Errorf("import %s: %w", path, err)
	}
	defs, told, err := features.ImportFeast(raw)
	if err != nil {
		return fmt.Errorf("import %s: %w", file, err)
	}
	for i, d := range defs {
		text, err := yaml.Marshal(d)
		if err != nil {
			return fmt.Errorf("import %s %s: %w", d.Kind, d.Name, err)
		}
		if i > 0 {
			text = append([]byte("---\n"), text...)
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	for _, n := range told {
		fmt.Fprintln(notes, n)
	}
	return nil
}

// feastRegistry finds the registry file of a repository.
func feastRegistry(path string) (string, error) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return path, err
	}
	text, err := os.ReadFile(filepath.Join(path, "feature_store.yaml"))
	if err != nil {
		return "", err
	}
	var store map[string]any
	if err := event.DecodeYAML(text, &store); err != nil {
		return "", fmt.Errorf("feature_store.yaml: %w", err)
	}
	registry, _ := store["registry"].(string)
	if m, ok := store["registry"].(map[string]any); ok {
		registry, _ = m["path"].(string)
		if kind, _ := m["registry_type"].(string); kind != "" && kind != "file" {
			return "", fmt.Errorf("feature_store.yaml: a registry of type %s: want a file", kind)
		}
	}
	if registry == "" {
		registry = filepath.Join("data", "registry.db")
	}
	if filepath.IsAbs(registry) {
		return registry, nil
	}
	return filepath.Join(path, registry), nil
}
