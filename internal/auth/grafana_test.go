package auth

import (
	"testing"
	"time"
)

// TestGrafanaIdentity: behind a data source's key the person who looks has the
// role that Grafana signed, and never more than the key; what is not signed
// says nothing; without a person (alert rules, health checks) it is the key.
func TestGrafanaIdentity(t *testing.T) {
	i, stranger := newIssuer(t), newIssuer(t)
	now := time.Now()
	o := newOffice(t, func(c *GateConfig) {
		c.Grafana = NewTokens(TokenConfig{ // the defaults of auth.grafana, with Grafana's own address of its keys
			Method: "grafana", Issuer: i.URL, Audience: "org:1", Algorithms: []string{"ES256"}, KeySet: i.URL + "/keys", RolesClaim: "role", HTTP: i.Client(),
			Roles:   map[string][]Grant{"Viewer": {{AllNamespaces, []Role{Viewer}}}, "Editor": {{AllNamespaces, []Role{Scientist}}}, "Admin": {{AllNamespaces, []Role{Operator}}}},
			Default: []Grant{{AllNamespaces, []Role{Viewer}}},
		})
	})
	source, _ := o.key(t, "team:admin")
	small, _ := o.key(t, "team:viewer")
	es := map[string]any{"alg": "ES256", "kid": "e", "typ": "jwt"}
	person := claims{"iss": i.URL, "aud": "org:1", "sub": "user:7", "type": "user", "identifier": "7", "namespace": "default", "email": "ann@example.com", "role": "Viewer",
		"iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()} // as Grafana 12 signs them
	as := func(role string) string { return i.signed(t, es, person.with("role", role)) }
	for _, c := range []struct {
		name, key, id string
		need          Permission
		want          int
		who           string
		more          []string
	}{
		{"a viewer reads", source, as("Viewer"), QueryRead, 200, "grafana:user:7", nil},
		{"a viewer changes nothing", source, as("Viewer"), DefinitionWrite, 403, "", nil},
		{"an editor defines", source, as("Editor"), DefinitionWrite, 200, "grafana:user:7", nil},
		{"an editor makes no keys", source, as("Editor"), KeyWrite, 403, "", nil},
		{"an admin of Grafana operates", source, as("Admin"), ModelLoad, 200, "grafana:user:7", nil},
		{"and is no administrator here", source, as("Admin"), KeyWrite, 403, "", nil},
		{"an unknown role is the default", source, as("God"), DefinitionWrite, 403, "", nil},
		{"never more than the data source's key", small, as("Editor"), DefinitionWrite, 403, "", nil},
		{"nobody: an alert rule is the key", small, "", QueryRead, 200, "key:team:viewer", nil},
		{"an unsigned user is nobody", small, "", DefinitionWrite, 403, "", []string{"X-Grafana-User", "admin", "X-Grafana-Role", "Admin", "X-Grafana-Org-Id", "1", "X-WEBAUTH-USER", "admin"}},
		{"beside a signed one it says nothing", source, as("Viewer"), DefinitionWrite, 403, "", []string{"X-Grafana-User", "admin", "X-Grafana-Role", "Admin"}},
		{"a person without the key", "", as("Admin"), QueryRead, 401, "", nil},
		{"a person's token as a key", "", "", QueryRead, 401, "", []string{"Authorization", "Bearer " + as("Admin")}},
		{"another organisation", source, i.signed(t, es, person.with("aud", "org:2")), QueryRead, 401, "", nil},
		{"ended", source, i.signed(t, es, person.with("exp", now.Add(-time.Second).Unix())), QueryRead, 401, "", nil},
		{"another Grafana", source, stranger.signed(t, es, person), QueryRead, 401, "", nil},
		{"not signed", source, part(t, map[string]any{"alg": "none"}) + "." + part(t, person) + ".", QueryRead, 401, "", nil},
		{"another algorithm", source, i.signed(t, map[string]any{"alg": "RS256", "kid": "r"}, person), QueryRead, 401, "", nil},
		{"a secret that everybody knows", source, i.signed(t, map[string]any{"alg": "HS256", "kid": "e"}, person), QueryRead, 401, "", nil},
		{"no token at all", source, "admin", QueryRead, 401, "", nil},
	} {
		o.ran = nil
		headers := c.more
		if c.key != "" {
			headers = append([]string{"Authorization", "Bearer " + c.key}, headers...)
		}
		if c.id != "" {
			headers = append(headers, "X-Grafana-Id", c.id)
		}
		w := o.ask(c.need, "/x", headers...)
		if w.Code == 429 { // ten refusals from one address: the next is not looked at for a while
			o.clock.Time = o.clock.Add(2 * failureEvery)
			w = o.ask(c.need, "/x", headers...)
		}
		if w.Code != c.want || c.who != "" && (len(o.ran) != 1 || o.ran[0] != c.who+"@team/x") {
			t.Errorf("%s: %d %s; reached %q, want %d as %q", c.name, w.Code, w.Body, o.ran, c.want, c.who)
		}
	}
}
