package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/web"
)

// Codes of refusals.
const (
	CodeUnauthenticated = "unauthenticated"
	CodeForbidden       = "forbidden"
	CodeTooMany         = "too_many_requests"
)

// NamespaceHeader chooses the namespace of a call. MLflow's clients have a
// word of their own for it, [WorkspaceHeader]; a base address that ends in
// /ns/NAME does the same for clients that cannot send headers.
const (
	NamespaceHeader = "Kedge-Namespace"
	WorkspaceHeader = "X-Mlflow-Workspace"
	namespacePath   = "/ns/"
)

// Decision is a refusal, or a change that was allowed, as the audit sees it.
type Decision struct {
	Subject    string
	Method     string // how the subject proved who it is
	Namespace  string
	Permission Permission
	What       string // the route, RPC or command
	Allowed    bool
	Status     int // of the answer
	Reason     string
	Remote     string
	TraceID    string
	Change     Change // what the handler says of it
}

// Entry is the decision as the audit keeps it.
func (d Decision) Entry(at time.Time) Entry {
	return Entry{
		Time: at.UTC(), Subject: d.Subject, Method: d.Method, Namespace: d.Namespace, Permission: d.Permission.String(), What: d.What, Target: d.Change.Target,
		Allowed: d.Allowed, Status: d.Status, Reason: d.Reason, Remote: d.Remote, TraceID: d.TraceID, Before: d.Change.Before, After: d.Change.After,
	}
}

// GateConfig describes a [Gate].
type GateConfig struct {
	Open      bool   // no authentication: everybody is [Local]
	Namespace string // of callers that name none
	Keys      *Keys
	Tokens    *Tokens              // nil: no JWTs
	Grafana   *Tokens              // nil: no forwarded identities of Grafana
	Decided   func(Decision)       // is told of refusals and changes; nil: nobody is
	Allow     func(Caller) bool    // takes a call off the quota of the caller's namespace; nil: there is none
	Now       func() time.Time     // nil: time.Now
	Guarded   func(string, string) // counts decisions by outcome and method; nil: nobody
}

// Gate is what every door has in front of its routes: it finds out who calls
// and in which namespace, and lets through what the caller may do. It is the
// one place that decides.
type Gate struct {
	cfg    GateConfig
	local  *Identity
	failed failures
	cross  failures // kept apart: else a page could have its reader's own token wait
}

// NewGate returns a gate.
func NewGate(cfg GateConfig) *Gate {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Decided == nil {
		cfg.Decided = func(Decision) {}
	}
	if cfg.Guarded == nil {
		cfg.Guarded = func(string, string) {}
	}
	local := Local(cfg.Namespace)
	return &Gate{cfg: cfg, local: local.id}
}

// Open reports whether everybody may do everything.
func (g *Gate) Open() bool { return g.cfg.Open }

// Credential is what a request says of who sends it.
type Credential struct {
	Authorization string // Bearer or Basic
	Grafana       string // the signed identity that Grafana forwards
	Remote        netip.Addr
}

// TooManyError tells a caller how long to wait.
type TooManyError struct{ Wait time.Duration }

func (e *TooManyError) Error() string {
	return "too many refused credentials from this address: wait " + e.Wait.Round(time.Second).String()
}

// Identify says who a credential belongs to. No credential is
// [ErrNoCredential], a bad one [ErrCredential], and too many bad ones from one
// address a [*TooManyError].
func (g *Gate) Identify(ctx context.Context, c Credential) (*Identity, error) {
	if g.cfg.Open {
		return g.local, nil
	}
	secret, err := c.secret()
	if err != nil {
		return nil, err
	}
	if _, isKey := keyName(secret); isKey {
		id, err := g.cfg.Keys.Identify(secret)
		if err != nil {
			return nil, g.refuse(c.Remote, err)
		}
		return g.forwarded(ctx, id, c)
	}
	if g.cfg.Tokens != nil {
		id, err := g.cfg.Tokens.Identify(ctx, secret, func() error { return g.hold(c.Remote) })
		if err == nil {
			return id, nil
		}
		return nil, g.refuse(c.Remote, err)
	}
	return nil, g.refuse(c.Remote, ErrCredential)
}

// forwarded is the identity of the person behind a data source: Grafana's key
// says that it is Grafana, its signed header who is looking. Without the header
// (alert rules, health checks) it is the key's own identity, which is declared
// for that.
func (g *Gate) forwarded(ctx context.Context, id *Identity, c Credential) (*Identity, error) {
	if g.cfg.Grafana == nil || c.Grafana == "" {
		return id, nil
	}
	person, err := g.cfg.Grafana.Identify(ctx, c.Grafana, func() error { return g.hold(c.Remote) })
	if err != nil {
		return nil, g.refuse(c.Remote, err)
	}
	return person.within(id), nil
}

// hold refuses work for an address that has failed too often.
func (g *Gate) hold(from netip.Addr) error {
	if wait := g.failed.wait(from, g.cfg.Now()); wait > 0 {
		return &TooManyError{wait}
	}
	return nil
}

func (g *Gate) refuse(from netip.Addr, err error) error {
	if held := g.hold(from); held != nil {
		return held
	}
	g.failed.add(from, g.cfg.Now())
	return err
}

// Crossed reports whether one more request that a page of another origin made a
// browser at an address send is written down: as many as refused credentials are.
func (g *Gate) Crossed(from netip.Addr) bool {
	if g.cross.wait(from, g.cfg.Now()) > 0 {
		return false
	}
	g.cross.add(from, g.cfg.Now())
	return true
}

// secret is the key or token of an Authorization header. With Basic it is the
// password, whatever the user's name: clients that know nothing else send it.
func (c Credential) secret() (string, error) {
	if c.Authorization == "" {
		return "", ErrNoCredential
	}
	scheme, rest, ok := strings.Cut(c.Authorization, " ")
	rest = strings.TrimLeft(rest, " ")
	switch {
	case !ok || rest == "" || len(rest) > 16<<10:
		return "", ErrCredential
	case strings.EqualFold(scheme, "Bearer"):
		return rest, nil
	case strings.EqualFold(scheme, "Basic"):
		plain, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return "", ErrCredential
		}
		user, password, ok := strings.Cut(string(plain), ":")
		if ok && password == "" {
			return user, nil // a key as a user without a password
		}
		return password, nil
	}
	return "", ErrCredential
}

// Middleware gives every request its Caller. It answers 401 to a credential
// that is not accepted and 429 to an address that goes on trying; a request
// without one goes on as nobody, for whom only public routes are open.
func (g *Gate) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := g.caller(r)
		if err != nil {
			g.answer(w, r, Caller{}, Undeclared, err)
			return
		}
		next.ServeHTTP(w, withoutNamespace(r.WithContext(withCaller(r.Context(), caller))))
	})
}

func (g *Gate) caller(r *http.Request) (*Caller, error) {
	namespace, err := namespaceOf(r)
	if err != nil {
		return nil, err
	}
	id, err := g.Identify(r.Context(), Credential{r.Header.Get("Authorization"), r.Header.Get("X-Grafana-Id"), remote(r)})
	if errors.Is(err, ErrNoCredential) {
		return &Caller{}, nil
	}
	if err != nil {
		return nil, err
	}
	if namespace == "" {
		namespace = id.Home(g.cfg.Namespace)
	}
	return id.In(namespace), nil
}

// Call is one RPC: who sends it, in which namespace, and what it takes.
type Call struct {
	Credential
	Namespace string // that the caller names; empty: its home
	Need      Permission
	What      string
	TraceID   string
}

// Call decides about an RPC. Its error is a *web.Error. A change that is
// allowed is told to the audit before it happens.
func (g *Gate) Call(ctx context.Context, call Call) (Caller, error) {
	c, err := g.called(ctx, call)
	d := Decision{
		Subject: c.Subject, Method: c.Method, Namespace: c.Namespace, Permission: call.Need, What: call.What,
		Remote: call.Remote.String(), TraceID: call.TraceID, Allowed: err == nil, Status: http.StatusOK,
	}
	if err == nil {
		if call.Need.Changes() {
			g.cfg.Decided(d)
		}
		return c, nil
	}
	e := Refusal(err)
	d.Status, d.Reason = e.Status, e.Code
	if e.Status != http.StatusTooManyRequests {
		g.cfg.Decided(d)
	}
	g.cfg.Guarded(e.Code, d.Method)
	return Caller{}, e
}

func (g *Gate) called(ctx context.Context, call Call) (Caller, error) {
	if call.Namespace != "" && !nameRule().MatchString(call.Namespace) {
		return Caller{}, web.Errorf(http.StatusBadRequest, web.CodeBadRequest, "the namespace %.70q: want a lower-case letter, then letters, digits, _ or -", call.Namespace)
	}
	id, err := g.Identify(ctx, call.Credential)
	if errors.Is(err, ErrNoCredential) && call.Need == Public {
		return Caller{}, nil
	}
	if err != nil {
		return Caller{}, err
	}
	namespace := call.Namespace
	if namespace == "" {
		namespace = id.Home(g.cfg.Namespace)
	}
	c := *id.In(namespace)
	if !c.May(call.Need) {
		return c, Forbidden(c, call.Need)
	}
	return c, g.within(c, call.Need)
}

// within holds a caller to the quota of its namespace, for what it may do
// there: what is refused anyway, or open to all, costs a namespace nothing.
func (g *Gate) within(c Caller, need Permission) error {
	if g.cfg.Allow == nil || need == Public || g.cfg.Allow(c) {
		return nil
	}
	return web.Errorf(http.StatusTooManyRequests, CodeTooMany, "namespace %q is over its quota of requests: wait a second", c.Namespace)
}

// Guard returns what closes a route to callers without its permission.
func (g *Gate) Guard(need Permission, what string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(callerKey{}).(*Caller)
		if c == nil || !c.May(need) {
			g.deny(w, r, c, need)
			return
		}
		if err := g.within(*c, need); err != nil {
			g.answer(w, r, *c, need, err)
			return
		}
		if !need.Changes() {
			next.ServeHTTP(w, r)
			return
		}
		g.change(w, r, c, need, what, next)
	})
}

// change lets an allowed change happen and tells the audit what came of it. A
// handler may refuse what takes more than its route does (a kind of definition,
// a file of another namespace): that is a denial.
func (g *Gate) change(w http.ResponseWriter, r *http.Request, c *Caller, need Permission, what string, next http.Handler) {
	seen := &statusSeen{ResponseWriter: w}
	d := g.decision(r, *c, need)
	d.What, d.Allowed, d.Status = what, true, http.StatusInternalServerError // unless it ends otherwise
	defer func() { g.cfg.Decided(d) }()
	next.ServeHTTP(seen, r.WithContext(context.WithValue(r.Context(), changeKey{}, &d.Change)))
	d.Status = max(seen.status, http.StatusOK)
	if d.Status == http.StatusForbidden {
		d.Allowed, d.Reason = false, CodeForbidden
	}
}

func (g *Gate) deny(w http.ResponseWriter, r *http.Request, c *Caller, need Permission) {
	if c == nil {
		c = &Caller{}
	}
	var err error
	switch {
	case need == Undeclared:
		err = web.Errorf(http.StatusForbidden, CodeForbidden, "this route declares no permission, so nobody may use it")
	case !c.Known():
		err = ErrNoCredential
	default:
		err = Forbidden(*c, need)
	}
	g.answer(w, r, *c, need, err)
}

// Forbidden is the refusal of somebody known.
func Forbidden(c Caller, need Permission) *web.Error {
	var roles []string
	for _, r := range RolesWith(need) {
		roles = append(roles, string(r))
	}
	where := strconv.Quote(c.Namespace)
	if need.OfInstallation() {
		where = `"*"`
	}
	return web.Errorf(http.StatusForbidden, CodeForbidden, "%s may not %s in namespace %s: it takes the role %s there", c.Subject, need, where, strings.Join(roles, " or "))
}

// answer writes a refusal and tells the audit.
func (g *Gate) answer(w http.ResponseWriter, r *http.Request, c Caller, need Permission, err error) {
	e := Refusal(err)
	e.TraceID = telemetry.TraceID(r.Context())
	var many *TooManyError
	if errors.As(err, &many) {
		w.Header().Set("Retry-After", strconv.Itoa(int(many.Wait/time.Second)+1))
	} else if e.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	if e.Status == http.StatusUnauthorized {
		w.Header()["Www-Authenticate"] = []string{`Bearer realm="kedge"`, `Basic realm="kedge", charset="UTF-8"`}
	}
	d := g.decision(r, c, need)
	d.Status, d.Reason = e.Status, e.Code
	if d.Status != http.StatusTooManyRequests { // they are counted: writing each down would let anybody fill the disk
		g.cfg.Decided(d)
	}
	g.cfg.Guarded(e.Code, d.Method)
	web.WriteError(w, e)
}

// Refusal gives an error of this room the form that a client sees.
func Refusal(err error) *web.Error {
	var many *TooManyError
	var known *web.Error
	switch {
	case errors.As(err, &known):
		e := *known
		return &e
	case errors.As(err, &many):
		return web.Errorf(http.StatusTooManyRequests, CodeTooMany, "%w", err)
	case errors.Is(err, ErrNoCredential):
		return web.Errorf(http.StatusUnauthorized, CodeUnauthenticated, "this needs a credential: send an API key as a bearer token or as a Basic password")
	}
	return web.Errorf(http.StatusUnauthorized, CodeUnauthenticated, "the credential is not accepted: it is unknown, has ended, or is meant for another service")
}

func (g *Gate) decision(r *http.Request, c Caller, need Permission) Decision {
	what := r.Pattern
	if what == "" {
		what = r.Method + " " + r.URL.Path[:min(len(r.URL.Path), 200)]
	}
	return Decision{
		Subject: c.Subject, Method: c.Method, Namespace: c.Namespace, Permission: need, What: what,
		Remote: remote(r).String(), TraceID: telemetry.TraceID(r.Context()),
	}
}

// remote is the connection's other end. What headers say of it anybody can
// write.
func remote(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddrPort(r.RemoteAddr)
	return a.Addr()
}

// namespaceOf is the namespace that a request names, "" when it names none.
func namespaceOf(r *http.Request) (string, error) {
	name := ""
	for _, said := range [...]string{inPath(r.URL.Path), r.Header.Get(NamespaceHeader), r.Header.Get(WorkspaceHeader)} {
		switch {
		case said == "" || said == name:
		case name != "":
			return "", web.Errorf(http.StatusBadRequest, web.CodeBadRequest, "the request names two namespaces: name one")
		default:
			name = said
		}
	}
	if name != "" && !nameRule().MatchString(name) {
		return "", web.Errorf(http.StatusBadRequest, web.CodeBadRequest, "the namespace %.70q: want a lower-case letter, then letters, digits, _ or -", name)
	}
	return name, nil
}

func inPath(path string) string {
	rest, ok := strings.CutPrefix(path, namespacePath)
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// withoutNamespace removes /ns/NAME from a path, so that routes need not know
// of it. The request must not be shared.
func withoutNamespace(r *http.Request) *http.Request {
	name := inPath(r.URL.Path)
	if name == "" {
		return r
	}
	u := *r.URL
	cut := func(p string) string {
		if p = strings.TrimPrefix(p, namespacePath+name); p == "" {
			return "/"
		}
		return p
	}
	u.Path = cut(u.Path)
	if u.RawPath != "" {
		u.RawPath = cut(u.RawPath)
	}
	r.URL = &u
	return r
}

// statusSeen remembers the status of an answer.
type statusSeen struct {
	http.ResponseWriter
	status int
}

func (s *statusSeen) WriteHeader(status int) {
	if s.status == 0 {
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (s *statusSeen) Unwrap() http.ResponseWriter { return s.ResponseWriter }
