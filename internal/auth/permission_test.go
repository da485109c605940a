package auth

import (
	"slices"
	"strings"
	"testing"
)

// roleTable is what docs/security.md says of roles, written out by hand: a row
// per permission, x where the role has it in its namespace.
const roleTable = `
                    viewer producer scientist operator admin
status:read           x       .        x         x       x
query:read            x       .        x         x       x
definition:read       x       .        x         x       x
definition:write      .       .        x         x       x
feature:read          x       x        x         x       x
feature:write         .       .        .         x       x
event:write           .       x        .         .       x
model:read            x       x        x         x       x
model:infer           .       x        x         x       x
model:load            .       .        .         x       x
rollout:write         .       .        .         x       x
run:read              x       .        x         x       x
run:write             .       .        x         .       x
drift:write           .       .        x         x       x
source:read           .       .        .         x       x
dead-letter:read      .       .        .         x       x
dead-letter:replay    .       .        .         x       x
key:read              .       .        .         .       x
key:write             .       .        .         .       x
audit:read            .       .        .         .       x
erase                 .       .        .         .       x
personal:read         .       .        .         .       x
metrics:read          .       .        .         *       *
config:read           .       .        .         *       *
backup:read           .       .        .         .       *
system:write          .       .        .         .       *
`

// TestRolesHoldWhatTheTableSays compares every role with every permission, in
// its own namespace, in another, and for a grant of all namespaces. A star is
// a right of the installation: only a grant of all namespaces gives it.
func TestRolesHoldWhatTheTableSays(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(roleTable), "\n")
	roles := strings.Fields(lines[0])
	if len(roles) != len(Roles()) {
		t.Fatalf("the table has %d roles, there are %d", len(roles), len(Roles()))
	}
	seen := map[string]bool{}
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		p, ok := permissionNamed(cells[0])
		if !ok {
			t.Errorf("the table has %q, which is no permission", cells[0])
			continue
		}
		seen[cells[0]] = true
		for i, cell := range cells[1:] {
			one := &Identity{Subject: "x", Grants: []Grant{{"team", []Role{Role(roles[i])}}}}
			all := &Identity{Subject: "x", Grants: []Grant{{AllNamespaces, []Role{Role(roles[i])}}}}
			for _, c := range []struct {
				where string
				got   bool
				want  bool
			}{
				{"its namespace", one.In("team").May(p), cell == "x"},
				{"another namespace", one.In("other").May(p), false},
				{"any namespace, granted all", all.In("other").May(p), cell != "."},
			} {
				if c.got != c.want {
					t.Errorf("%s may %s in %s: %v, the table says %v", roles[i], p, c.where, c.got, c.want)
				}
			}
		}
	}
	for p := Anyone + 1; p < permissions; p++ {
		if !seen[p.String()] {
			t.Errorf("the table has no row for %s", p)
		}
	}
}

func permissionNamed(name string) (Permission, bool) {
	for p := range permissions {
		if p.String() == name {
			return p, true
		}
	}
	return 0, false
}

// TestNobodyMayWhatIsUndeclared: deny by default, for nobody, anybody and an
// administrator of everything.
func TestNobodyMayWhatIsUndeclared(t *testing.T) {
	nobody, admin := &Caller{}, Local("team")
	if nobody.May(Undeclared) || admin.May(Undeclared) || admin.May(permissions) {
		t.Error("something undeclared is allowed")
	}
	if !nobody.May(Public) || nobody.May(Anyone) || !admin.May(Anyone) {
		t.Error("public is for everybody, anyone for who is known")
	}
	for p := Anyone + 1; p < permissions; p++ {
		if nobody.May(p) {
			t.Errorf("nobody may %s", p)
		}
		if got := RolesWith(p); !slices.Contains(got, Admin) {
			t.Errorf("%s: no administrator has it: %v", p, got)
		}
	}
}

func TestGrants(t *testing.T) {
	for _, s := range []string{"team:viewer", "*:admin", "a-b_1:scientist,operator"} {
		if g, err := ParseGrant(s); err != nil || g.String() != s {
			t.Errorf("%s: %v, %v", s, g, err)
		}
	}
	for _, s := range []string{"", "team", "team:", "team:root", "Team:viewer", "**:viewer", "../x:viewer", "team:viewer,", ":viewer", "a b:viewer", "team:Viewer"} {
		if g, err := ParseGrant(s); err == nil {
			t.Errorf("%q is read as %v", s, g)
		}
	}
	lead := &Identity{Subject: "lead", Grants: []Grant{{"team", []Role{Scientist}}}}
	for grant, want := range map[string]bool{"team:viewer": true, "team:scientist": true, "team:operator": false, "team:admin": false, "other:viewer": false, "*:viewer": false} {
		g, err := ParseGrant(grant)
		if err != nil || lead.Covers(g) != want {
			t.Errorf("a scientist of team may hand out %s: %v, want %v (%v)", grant, !want, want, err)
		}
	}
	admin := &Identity{Subject: "a", Grants: []Grant{{"team", []Role{Admin}}}}
	if admin.Covers(Grant{AllNamespaces, []Role{Viewer}}) || !admin.Covers(Grant{"team", []Role{Admin}}) {
		t.Error("an administrator of one namespace hands out that namespace alone")
	}
}
