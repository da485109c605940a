package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/web"
)

// checkAuth holds the default posture: what listens beyond loopback needs TLS
// and authentication.
func (c *Config) checkAuth(f *faults) {
	t := c.HTTP.TLS
	f.check((t.CertFile == "") == (t.KeyFile == ""), "http.tls: cert_file and key_file go together")
	f.check(t.ClientCA == "" || t.CertFile != "", "http.tls.client_ca: needs cert_file and key_file")
	if c.HTTP.Admin != "" {
		f.address("http.admin", c.HTTP.Admin)
		f.check(isLoopback(c.HTTP.Admin), "http.admin: %q: is for loopback alone: reach it through ssh", c.HTTP.Admin)
	}
	for name, o := range map[string]*OIDCConfig{"auth.oidc": &c.Auth.OIDC, "auth.grafana": &c.Auth.Grafana} {
		o.check(f, name)
	}
	for _, n := range c.Outbound.Networks {
		_, err := netip.ParsePrefix(n)
		f.check(err == nil, "outbound.networks: %q: want a network such as 10.0.0.0/8", n)
	}
	if c.Auth.Insecure {
		return
	}
	for _, door := range c.doors() {
		f.check(door.addr == "" || isLoopback(door.addr) || door.safe,
			"%s: %q is beyond loopback: set %s, or auth.insecure: true where the network itself is the guard", door.member, door.addr, door.want)
	}
}

// door is a port that others may reach.
type door struct {
	member, addr string
	safe         bool
	want         string // what makes it safe
}

func (c *Config) doors() []door {
	closed := c.HTTP.TLS.CertFile != "" && c.Auth.Enabled
	const want = "http.tls and auth.enabled"
	out := []door{
		{"http.listen", c.HTTP.Listen, closed, want},
		{"http.feast", c.HTTP.Feast, closed, want},
		{"grpc", c.GRPC, closed, want},
		{"clickhouse.listen", c.ClickHouse.Listen, closed, want},
		{"clickhouse.share", c.ClickHouse.Share, closed, want},
	}
	if c.EmbeddedBroker() {
		out = append(out, door{"kafka.listen", c.Kafka.Listen, closed, want})
	}
	return out
}

// isLoopback reports whether only this machine reaches an address. A name is
// looked at as it is written: what it means may change.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || host == "localhost"
}

func (o *OIDCConfig) check(f *faults, name string) {
	_, err := grantsOf(o.Roles, o.Default)
	f.check(err == nil, "%s.roles: %v", name, err)
	if o.Issuer == "" {
		return
	}
	f.check(o.Audience != "", "%s.audience: is empty: a token for any service would be let in", name)
	f.check(len(o.Algorithms) > 0, "%s.algorithms: none is allowed", name)
	for _, alg := range o.Algorithms {
		f.check(slices.Contains(auth.Algorithms(), alg), "%s.algorithms: %q: want some of %s", name, alg, strings.Join(auth.Algorithms(), ", "))
	}
}

type claimGrants struct {
	roles    map[string][]auth.Grant
	fallback []auth.Grant
}

// grantsOf reads "value=namespace:role,…" and "namespace:role,…".
func grantsOf(roles, fallback []string) (out claimGrants, err error) {
	out.roles = map[string][]auth.Grant{}
	var errs []error
	for _, s := range roles {
		value, grant, ok := strings.Cut(s, "=")
		g, err := auth.ParseGrant(grant)
		if !ok || err != nil {
			errs = append(errs, fmt.Errorf("%q: want VALUE=NAMESPACE:ROLE,… such as fraud-team=fraud:scientist", s))
			continue
		}
		out.roles[value] = append(out.roles[value], g)
	}
	for _, s := range fallback {
		g, err := auth.ParseGrant(s)
		errs = append(errs, err)
		out.fallback = append(out.fallback, g)
	}
	return out, errors.Join(errs...)
}

// outbound is a client for addresses that the configuration names.
func (c *Config) outbound(timeout time.Duration, stated ...string) web.Outbound {
	o := web.Outbound{Stated: stated, Timeout: timeout}
	for _, n := range c.Outbound.Networks {
		if p, err := netip.ParsePrefix(n); err == nil { // Validate has seen them
			o.Networks = append(o.Networks, p)
		}
	}
	return o
}

// ofGrafana is what Grafana signs by: its root address always ends in a slash
// there, however its configuration has it, and its keys lie below it.
func (o OIDCConfig) ofGrafana() OIDCConfig {
	if o.Issuer == "" {
		return o
	}
	o.Issuer = strings.TrimRight(o.Issuer, "/") + "/"
	if o.KeySet == "" {
		o.KeySet = o.Issuer + "api/signing-keys/keys"
	}
	return o
}

// grafanaMethod is how somebody proved who they are whose identity Grafana signed.
const grafanaMethod = "grafana"

func (o *OIDCConfig) tokens(method string, c *Config) (*auth.Tokens, error) {
	if o.Issuer == "" {
		return nil, nil
	}
	grants, err := grantsOf(o.Roles, o.Default)
	if err != nil {
		return nil, err
	}
	kind := ""
	if method == grafanaMethod {
		kind = "jwt" // its access tokens are at+jwt
	}
	return auth.NewTokens(auth.TokenConfig{
		Method: method, Type: kind, Issuer: o.Issuer, Audience: o.Audience, Algorithms: o.Algorithms, KeySet: o.KeySet,
		RolesClaim: o.RolesClaim, Roles: grants.roles, Default: grants.fallback, HTTP: c.outbound(10*time.Second, o.Issuer, o.KeySet).Client(),
	}), nil
}

// openAuth builds the door that every port has.
func (a *App) openAuth(ctx context.Context) error {
	if err := a.openJournal(ctx); err != nil {
		return err
	}
	a.keys = auth.NewKeys(a.registry, nil)
	cfg := auth.GateConfig{Open: !a.cfg.Auth.Enabled, Namespace: a.cfg.Namespace, Keys: a.keys, Decided: a.record}
	var err error
	if cfg.Tokens, err = a.cfg.Auth.OIDC.tokens("oidc", &a.cfg); err != nil {
		return err
	}
	grafana := a.cfg.Auth.Grafana.ofGrafana()
	if cfg.Grafana, err = grafana.tokens(grafanaMethod, &a.cfg); err != nil {
		return err
	}
	if err := a.countRefusals(&cfg); err != nil {
		return err
	}
	a.door = auth.NewGate(cfg)
	a.warnOfOpenDoors()
	if a.cfg.Auth.Enabled {
		return a.firstKey(ctx)
	}
	return nil
}

// warnOfOpenDoors says loudly what the override lets happen.
func (a *App) warnOfOpenDoors() {
	for _, d := range a.cfg.doors() {
		if d.addr != "" && !isLoopback(d.addr) && !d.safe {
			a.sc.Log.Warn("INSECURE: this port is beyond loopback without TLS or without authentication: whoever reaches it can read and change everything", "port", d.member, "address", d.addr, "allowed_by", "auth.insecure")
		}
	}
}

// adminKeyFile has the first key, which somebody needs to make the others.
const adminKeyFile = "admin.key"

// firstKey makes a key for an administrator where there is none at all, and
// leaves it where only this user can read it.
func (a *App) firstKey(ctx context.Context) error {
	if a.keys.Len() > 0 || a.cfg.Auth.OIDC.Issuer != "" && len(a.cfg.Auth.OIDC.Roles) > 0 {
		return nil
	}
	runs := make(chan error, 1)
	follow, stop := context.WithCancel(ctx)
	go func() { runs <- a.registry.Run(follow) }() // it is not running yet, and a write waits for its fold
	secret, key, err := a.keys.Create(ctx, auth.Local(a.cfg.Namespace), "first-admin", []auth.Grant{{Namespace: auth.AllNamespaces, Roles: []auth.Role{auth.Admin}}}, time.Time{})
	stop()
	if err = errors.Join(err, <-runs); err != nil {
		return fmt.Errorf("first key: %w", err)
	}
	file := filepath.Join(a.cfg.DataDir, adminKeyFile)
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		return fmt.Errorf("first key: %w", err)
	}
	a.sc.Log.Warn("there was no key: made one for an administrator; keep it safe, or make others and revoke it", "file", file, "id", key.ID)
	return nil
}

// runAuth keeps the keys fresh while Kedge runs.
func (a *App) runAuth(part func(string, func(context.Context) error)) {
	part("keys", a.keys.Run)
	part("journal", a.journal.Run)
	part("key use", func(ctx context.Context) error {
		tick := time.NewTicker(10 * time.Minute)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				if err := a.keys.SaveUse(ctx); err != nil && ctx.Err() == nil {
					a.sc.Log.Warn("when keys were used last was not written: the next try is in ten minutes", "error", err)
				}
			}
		}
	})
	if a.admin != nil {
		part("admin", a.serveAdmin)
	}
}

// fronted is what stands before every HTTP port.
func (a *App) fronted(h http.Handler) http.Handler {
	return web.Secure(web.SameOrigin(!a.cfg.Auth.Enabled && !a.cfg.Auth.Insecure, a.crossed, h))
}

func (a *App) scheme() string {
	if a.tls != nil {
		return "https"
	}
	return "http"
}

// claimAdmin takes the port of profiles and metrics.
func (a *App) claimAdmin() (err error) {
	if a.cfg.HTTP.Admin == "" {
		return nil
	}
	if a.admin, err = web.Listen("admin", a.cfg.HTTP.Admin); err != nil {
		return err
	}
	a.onClose("admin port", func() error { _ = a.admin.Close(); return nil }) // closed already where it was served
	return nil
}

// serveAdmin answers with profiles and metrics on a loopback port, where
// whoever reaches it could read the process's memory anyway.
func (a *App) serveAdmin(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("GET /metrics", a.tel.Handler())
	lim := web.Limits{Header: time.Duration(a.cfg.HTTP.HeaderTimeout), Body: time.Duration(a.cfg.HTTP.BodyTimeout), Write: 5 * time.Minute}
	return web.Serve(ctx, a.admin, web.Secure(web.SameOrigin(true, a.crossed, mux)), lim, time.Second, a.tel.Scope("admin").Log)
}
