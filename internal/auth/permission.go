package auth

import (
	"fmt"
	"slices"
	"strings"
)

// Permission is something that a route, RPC or command does: a resource kind
// and an action on it. Roles are sets of permissions, granted per namespace.
type Permission uint8

// Undeclared is the permission of whatever declares none: nobody may.
const (
	Undeclared Permission = iota
	Public                // needs no identity: probes
	Anyone                // needs an identity, whatever its roles: the API's description

	StatusRead       // how the installation is doing
	QueryRead        // rows, statistics, verdicts, reports
	DefinitionRead   // views, models, monitors as they are defined
	DefinitionWrite  // and changing them
	FeatureRead      // online values and training sets
	FeatureWrite     // materialising
	EventWrite       // feature rows, predictions, labels
	ModelRead        // what a served model is
	ModelInfer       // asking it
	ModelLoad        // loading and unloading it
	RolloutWrite     // promoting and rolling back
	RunRead          // training runs and their artefacts
	RunWrite         // and making them
	DriftWrite       // references, incidents, silences
	SourceRead       // records of a foreign topic, as a mapping would have them
	DeadLetterRead   // records that could not become rows, as they came
	DeadLetterReplay // producing them again
	KeyRead          // API keys, without their secrets
	KeyWrite         // making, rotating and revoking them
	AuditRead        // who did what
	Erase            // removing an entity everywhere
	PersonalRead     // columns under a policy as they are, and changing policies

	MetricsRead // metrics of every namespace: of the installation
	ConfigRead  // the configuration, secrets hidden: of the installation
	BackupRead  // everything in one archive: of the installation
	SystemWrite // namespaces, quotas, retention: of the installation

	permissions // how many there are
)

// firstOfInstallation is the first of the permissions that are about no
// namespace: only a grant for all namespaces gives them.
const firstOfInstallation = MetricsRead

// String is the permission as documents and audit entries name it.
func (p Permission) String() string {
	names := [permissions]string{
		"undeclared", "public", "anyone", "status:read", "query:read", "definition:read", "definition:write", "feature:read", "feature:write",
		"event:write", "model:read", "model:infer", "model:load", "rollout:write", "run:read", "run:write", "drift:write", "source:read",
		"dead-letter:read", "dead-letter:replay", "key:read", "key:write", "audit:read", "erase", "personal:read", "metrics:read", "config:read", "backup:read", "system:write",
	}
	if p < permissions {
		return names[p]
	}
	return fmt.Sprintf("permission %d", uint8(p))
}

// Changes reports whether the permission is for changing something, which is
// audited even when it is allowed. Events and predictions are not: the ledger
// accounts for them.
func (p Permission) Changes() bool {
	switch p {
	case DefinitionWrite, FeatureWrite, ModelLoad, RolloutWrite, RunWrite, DriftWrite, DeadLetterReplay, KeyWrite, Erase, BackupRead, SystemWrite:
		return true
	}
	return false
}

// OfInstallation reports whether the permission is about no namespace, so that
// only a grant for all of them gives it.
func (p Permission) OfInstallation() bool { return p >= firstOfInstallation }

// rights is a set of permissions.
type rights uint64

func (r rights) has(p Permission) bool { return r&(1<<p) != 0 }

func set(ps ...Permission) (r rights) {
	for _, p := range ps {
		r |= 1 << p
	}
	return r
}

// Role is a set of permissions with a name.
type Role string

// The roles. Everyone but a producer may also do what a viewer may.
const (
	Viewer    Role = "viewer"    // looks
	Producer  Role = "producer"  // sends events, reads features, asks models
	Scientist Role = "scientist" // defines, trains, watches
	Operator  Role = "operator"  // rolls out, repairs
	Admin     Role = "admin"     // everything in its namespace; keys, audit and erasure too
)

// Roles lists them, the least powerful first.
func Roles() []Role { return []Role{Viewer, Producer, Scientist, Operator, Admin} }

// rights is the one table of what a role may do.
func (r Role) rights() rights {
	look := set(StatusRead, QueryRead, DefinitionRead, FeatureRead, ModelRead, RunRead)
	switch r {
	case Viewer:
		return look
	case Producer:
		return set(EventWrite, FeatureRead, ModelRead, ModelInfer)
	case Scientist:
		return look | set(DefinitionWrite, RunWrite, DriftWrite, ModelInfer)
	case Operator:
		return look | set(DefinitionWrite, ModelInfer, ModelLoad, RolloutWrite, FeatureWrite, DriftWrite, SourceRead, DeadLetterRead, DeadLetterReplay, MetricsRead, ConfigRead)
	case Admin:
		return (1<<permissions - 1) &^ set(Undeclared, Public, Anyone)
	}
	return 0
}

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	if r := Role(s); slices.Contains(Roles(), r) {
		return r, nil
	}
	var names []string
	for _, r := range Roles() {
		names = append(names, string(r))
	}
	return "", fmt.Errorf("role %q: want one of %s", s, strings.Join(names, ", "))
}

// RolesWith are the roles that have a permission, the least powerful first.
func RolesWith(p Permission) (out []Role) {
	for _, r := range Roles() {
		if r.rights().has(p) {
			out = append(out, r)
		}
	}
	return out
}
