package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/internal/auth"
)

// commandPermissions is what every command takes of the server that it asks;
// public is for those that ask none. TestEveryCommandDeclaresItsPermission
// names a command that is missing.
func commandPermissions() map[string]auth.Permission {
	return map[string]auth.Permission{
		// without a server
		"": auth.Public, "run": auth.Public, "check": auth.Public, "version": auth.Public, "restore": auth.Public, "compare": auth.Public,
		"train-worker": auth.Public, "onnx-worker": auth.Public, "import feast": auth.Public, "model import": auth.Public, "unpack": auth.Public,
		"completion": auth.Public, "completion bash": auth.Public, "completion zsh": auth.Public, "completion fish": auth.Public, "completion powershell": auth.Public, "help": auth.Public,
		// groups, which only print their help
		"dead-letters": auth.Public, "source": auth.Public, "features": auth.Public, "monitor": auth.Public, "incident": auth.Public,
		"reference": auth.Public, "rollout": auth.Public, "conformance": auth.Public, "keys": auth.Public, "audit": auth.Public, "model": auth.Public,

		"status": auth.StatusRead, "topics": auth.StatusRead, "config": auth.ConfigRead, "doctor": auth.ConfigRead, "backup": auth.BackupRead,
		"query": auth.QueryRead, "search": auth.QueryRead, "drift": auth.QueryRead, "performance": auth.QueryRead, "report": auth.QueryRead,
		"monitor list": auth.QueryRead, "monitor backtest": auth.QueryRead, "monitor preview": auth.QueryRead, "monitor learn": auth.QueryRead,
		"incident accept": auth.DefinitionWrite, "incident acknowledge": auth.DefinitionWrite, "incident snooze": auth.DefinitionWrite,
		"import": auth.EventWrite, "send": auth.EventWrite, "replay": auth.EventWrite,
		"dead-letters list": auth.DeadLetterRead, "dead-letters replay": auth.DeadLetterReplay,
		"get": auth.DefinitionRead, "plan": auth.DefinitionRead, "history": auth.DefinitionRead, "apply": auth.DefinitionWrite, "delete": auth.DefinitionWrite,
		"source draft": auth.SourceRead, "source check": auth.SourceRead,
		"features history": auth.FeatureRead, "features delete": auth.Erase, "erase": auth.Erase,
		"reference set":  auth.DriftWrite,
		"rollout status": auth.ModelRead, "rollout history": auth.ModelRead, "rollout promote": auth.RolloutWrite, "rollout rollback": auth.RolloutWrite, "rollout rehearse": auth.RolloutWrite,
		"train": auth.RunWrite, "train cancel": auth.RunWrite, "train resume": auth.RunWrite, "train status": auth.RunRead, "train verify": auth.RunRead,
		"model alias": auth.RolloutWrite, "model unalias": auth.RolloutWrite, "model stage": auth.RolloutWrite, "model package": auth.RunRead, "promote": auth.RolloutWrite,
		"conformance oip": auth.ModelInfer,
		"audit list":      auth.AuditRead, "audit verify": auth.AuditRead,
		"keys list": auth.KeyRead, "keys create": auth.KeyWrite, "keys rotate": auth.KeyWrite, "keys revoke": auth.KeyWrite, "keys whoami": auth.Anyone,
	}
}

// declare adds to every command's help what it takes.
func declare(root *cobra.Command) {
	declared := commandPermissions()
	for path, cmd := range commands(root) {
		need := declared[path]
		if need == auth.Undeclared || need == auth.Public || need == auth.Anyone {
			continue
		}
		var roles []string
		for _, r := range auth.RolesWith(need) {
			roles = append(roles, string(r))
		}
		if cmd.Long == "" {
			cmd.Long = cmd.Short + "."
		}
		cmd.Long += "\nWith authentication this takes " + need.String() + ", which the role " + strings.Join(roles, " or ") + " has."
	}
}

// commands are all commands by their path below the root.
func commands(root *cobra.Command) map[string]*cobra.Command {
	out := map[string]*cobra.Command{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		out[strings.TrimSpace(strings.TrimPrefix(c.CommandPath(), root.Name()))] = c
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return out
}
