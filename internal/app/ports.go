package app

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
	"github.com/kedge-ml/kedge/features"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/store/chdb"
	"github.com/kedge-ml/kedge/stream"
	"github.com/kedge-ml/kedge/stream/broker"
)

// brokerGuard has clients of the embedded broker say who they are; nil without
// authentication.
func (a *App) brokerGuard() broker.Guard {
	if !a.cfg.Auth.Enabled {
		return nil
	}
	return a.kafkaClientMay
}

// ownBroker is how this process reaches its own broker.
func (a *App) ownBroker(cfg stream.Config) stream.Config {
	if a.broker == nil || !a.broker.Private() {
		return cfg
	}
	cfg.Dial = a.broker.Dial
	if user, password := a.broker.Credentials(); user != "" {
		cfg.SASL = stream.SASL{Mechanism: "PLAIN", User: user, Password: password}
	}
	return cfg
}

// passwordTime bounds finding out who sent a password: an issuer may have to be
// asked.
const passwordTime = 10 * time.Second

// password asks the door who sent a key or token where a protocol has a
// password, and whether it may do something in its home.
func (a *App) password(ctx context.Context, secret, what string, from net.Addr, need auth.Permission) (auth.Caller, error) {
	if !a.opened.Load() {
		//lint:ignore ST1005 Kedge is a name
		return auth.Caller{}, errors.New("Kedge is starting: try again")
	}
	call := auth.Call{Credential: auth.Credential{Authorization: "Bearer " + secret}, Need: need, What: what}
	if at, err := netip.ParseAddrPort(from.String()); err == nil {
		call.Credential.Remote = at.Addr()
	}
	return a.door.Call(ctx, call)
}

// kafkaClientMay says what a client of the embedded broker may do: produce the
// events of the namespaces in which it may send them, to their sources' topics
// too, and read records as they came where it may see those and no policy hides
// a part of them. Whoever
// administers the installation may do everything, as other processes have to.
func (a *App) kafkaClientMay(_, password string, from net.Addr) (broker.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), passwordTime)
	defer cancel()
	c, err := a.password(ctx, password, "kafka", from, auth.Anyone)
	if err != nil {
		return broker.Client{}, err
	}
	changed := a.registry.State().Changed(event.ColumnPolicyKind)
	out := broker.Client{All: c.May(auth.SystemWrite), Still: func() bool {
		if a.registry.State().Changed(event.ColumnPolicyKind) != changed {
			return false // what it may read is another question now
		}
		ctx, cancel := context.WithTimeout(context.Background(), passwordTime)
		defer cancel()
		_, err := a.door.Identify(ctx, auth.Credential{Authorization: "Bearer " + password})
		return err == nil
	}, Denied: func(request, resource string, writes bool) { a.brokerDenied(c, from, request, resource, writes) }}
	for _, namespace := range a.namespacesOf(&c) {
		in := c.In(namespace)
		writes, reads := in.May(auth.EventWrite), in.May(auth.SourceRead) && a.veilOf(in) == nil
		for _, kind := range []event.Kind{event.Features, event.Predictions, event.Labels} {
			if writes {
				out.Write = append(out.Write, TopicName(namespace, kind))
			}
			if reads {
				out.Read = append(out.Read, TopicName(namespace, kind))
			}
		}
		foreign := a.sourceTopics(namespace)
		if writes {
			out.Write = append(out.Write, foreign...)
		}
		if reads {
			out.Read = append(append(out.Read, features.ServedTopic(namespace)), foreign...)
		}
		if writes || reads {
			out.Prefix = append(out.Prefix, namespace+".")
		}
	}
	if !out.All && len(out.Prefix) == 0 {
		_, err = a.password(ctx, password, "kafka", from, auth.EventWrite) // refused, and written down
	}
	return out, err
}

// brokerDenied writes down what a known client of the embedded broker may not.
func (a *App) brokerDenied(c auth.Caller, from net.Addr, request, resource string, writes bool) {
	need := auth.SourceRead
	if writes {
		need = auth.EventWrite
	}
	a.portDenied(c, from, need, "kafka "+request, resource)
}

// portDenied writes down what a client that is not HTTP's was refused.
func (a *App) portDenied(c auth.Caller, from net.Addr, need auth.Permission, what, target string) {
	d := auth.Decision{Subject: c.Subject, Method: c.Method, Namespace: c.Namespace, Permission: need, What: what,
		Change: auth.Change{Target: strings.ToValidUTF8(target[:min(len(target), 200)], "")}, Status: http.StatusForbidden, Reason: auth.CodeForbidden}
	if at, err := netip.ParseAddrPort(from.String()); err == nil {
		d.Remote = at.Addr().String()
	}
	a.record(d)
}

// namespacesOf are those in which a caller has a role.
func (a *App) namespacesOf(c *auth.Caller) (out []string) {
	known := map[string]bool{}
	add := func(name string) {
		if !known[name] {
			known[name] = true
			out = append(out, name)
		}
	}
	for _, g := range c.Grants() {
		if g.Namespace != auth.AllNamespaces {
			add(g.Namespace)
			continue
		}
		add(a.cfg.Namespace)
		for _, d := range a.registry.State().List(event.NamespaceKind, "") {
			add(d.Name)
		}
	}
	return out
}

// sourceTopics are the topics that a namespace maps; a topic has one source.
func (a *App) sourceTopics(namespace string) (out []string) {
	for _, d := range a.registry.State().List(source.Kind, namespace) {
		if spec, err := source.ParseDefinition(d.Spec); err == nil {
			out = append(out, spec.Topics()...)
		}
	}
	return out
}

// clickhouseReader has clients of the read-only port say who they are; nil
// without authentication.
func (a *App) clickhouseReader() func(ctx context.Context, user, password, from string) (chdb.Reader, error) {
	if !a.cfg.Auth.Enabled {
		return nil
	}
	return func(ctx context.Context, _, password, from string) (chdb.Reader, error) {
		c, err := a.password(ctx, password, "clickhouse", namedAddr(from), auth.QueryRead)
		if err != nil {
			return chdb.Reader{}, err
		}
		denied := func(reason string) { a.portDenied(c, namedAddr(from), auth.QueryRead, "clickhouse", reason) }
		if c.May(auth.SystemWrite) {
			return chdb.Reader{Denied: denied}, nil
		}
		return chdb.Reader{Table: a.tablesOf(&c), Denied: denied}, nil
	}
}

// tablesOf reports which tables hold rows of the namespaces that a caller may
// query and from whom no policy hides a part of them. Those with rows of several
// are nobody's here: the API has them.
func (a *App) tablesOf(c *auth.Caller) func(table string) bool {
	may := map[string]bool{}
	for _, namespace := range a.namespacesOf(c) {
		in := c.In(namespace)
		may[namespace] = in.May(auth.QueryRead) && a.veilOf(in) == nil
	}
	tables := map[string]bool{}
	for _, s := range a.store.Schemas() {
		if may[s.Namespace] {
			tables[s.Table()] = true
		}
	}
	return func(table string) bool { return tables[table] }
}

// namedAddr is an address as a connection writes it.
type namedAddr string

// Network returns "tcp".
func (namedAddr) Network() string { return "tcp" }

// String returns host:port.
func (n namedAddr) String() string { return string(n) }
