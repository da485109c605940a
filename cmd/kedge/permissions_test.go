package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/auth"
)

// TestEveryCommandDeclaresItsPermission walks the commands as cobra has them.
func TestEveryCommandDeclaresItsPermission(t *testing.T) {
	root := rootCommand()
	if got := undeclared(root); len(got) > 0 {
		t.Errorf("these commands declare no permission: add each, by its words after kedge, to commandPermissions in cmd/kedge/permissions.go, with what the server asks for the route that it calls (auth.Public if it asks no server): %q", got)
	}
	for path := range commandPermissions() {
		if _, ok := commands(root)[path]; !ok && path != "help" && !strings.HasPrefix(path, "completion") {
			t.Errorf("commandPermissions has %q, which is no command", path)
		}
	}
	root.AddCommand(&cobra.Command{Use: "planted"}) // the walk sees what it should
	if got := undeclared(root); !slices.Equal(got, []string{"planted"}) {
		t.Errorf("a planted command was not found: %q", got)
	}
}

func undeclared(root *cobra.Command) (out []string) {
	declared := commandPermissions()
	for path := range commands(root) {
		if declared[path] == auth.Undeclared {
			out = append(out, path)
		}
	}
	return slices.Sorted(slices.Values(out))
}

func TestHelpSaysWhatACommandTakes(t *testing.T) {
	for path, cmd := range maps.All(commands(rootCommand())) {
		need := commandPermissions()[path]
		if need != auth.Public && need != auth.Anyone && !strings.Contains(cmd.Long, need.String()) {
			t.Errorf("kedge %s --help does not say that it takes %s", path, need)
		}
	}
}
