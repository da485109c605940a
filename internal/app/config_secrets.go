package app

import (
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// SecretVariables are the variables of the environment that a configuration file
// and settings of environ refer to (env:NAME), in order. Who has loaded the
// configuration can unset them, so that no process that it starts sees them.
func SecretVariables(path string, environ []string) (names []string) {
	add := func(text string) {
		if name, ok := strings.CutPrefix(text, "env:"); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, "KEDGE_") {
			add(value)
		}
	}
	if b, err := os.ReadFile(path); err == nil { // else there is no configuration either
		var all any
		if yaml.Unmarshal(b, &all) == nil {
			eachText("", all, func(_, text string) { add(text) })
		}
	}
	slices.Sort(names)
	return names
}
