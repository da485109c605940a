package features

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

// SharedConfig says where the online rows of a fleet are.
type SharedConfig struct {
	Addresses []string               // of one Redis (7.0 or newer) or Valkey server, or of some nodes of a cluster
	Username  string                 // empty: the default user
	Password  func() (string, error) // asked at every connection, so that it can change; nil: none
	TLS       *tls.Config            // nil: none
	Prefix    string                 // of every key; default kedge
	Timeout   time.Duration          // of one read; default 1 s
	Linger    time.Duration          // how long rows of a view or version that is gone stay, for processes that have not heard yet; default 1 h
	Scope     telemetry.Scope
}

// SharedStore keeps the rows of online views in a Redis or Valkey server, or a
// cluster of them, that many processes share. Every process that follows the
// log writes what it reads; a script on the server lets the newest row win, so
// that it does not matter who writes what when, or how often.
//
// What the servers hold is trusted for as long as they run: one that was
// restarted, or that took over from another, may have lost rows that it had
// acknowledged. Their run ids are recorded beside the position in the log up to
// which they hold rows; when a run id changes nothing is answered until the
// store has been filled again.
type SharedStore struct {
	cfg    SharedConfig
	put    *rueidis.Lua
	note   *rueidis.Lua
	client atomic.Pointer[rueidis.Client]

	dials   atomic.Int64  // connections begun: each may lead to a server that was restarted
	trusted atomic.Int64  // as many dials had been begun when the run ids were found unchanged; 0: they were not
	dialed  chan struct{} // wakes watch
	nodes   string        // run ids of what was opened; written by open alone
	layouts sync.Map      // fingerprint → *layout

	mu     sync.Mutex
	looked chan struct{}        // closed and replaced after each look at the run ids
	gone   map[uint64]time.Time // tables whose rows are to be removed, since when
}

// NewSharedStore makes a store; it connects when a [Tail] runs.
func NewSharedStore(cfg SharedConfig) *SharedStore {
	if cfg.Prefix == "" {
		cfg.Prefix = "kedge"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Second
	}
	if cfg.Linger == 0 {
		cfg.Linger = time.Hour
	}
	return &SharedStore{cfg: cfg, put: rueidis.NewLuaScript(putScript), note: rueidis.NewLuaScript(noteScript),
		dialed: make(chan struct{}, 1), looked: make(chan struct{}), gone: map[uint64]time.Time{}}
}

// Close ends the connections.
func (s *SharedStore) Close() {
	if c := s.client.Swap(nil); c != nil {
		(*c).Close()
	}
}

// away puts an error under [ErrStoreAway].
func away(operation string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrStoreAway, operation, err)
}

// Bounds of one exchange with the servers, other than a read.
const (
	sharedWrite = 10 * time.Second
	sharedLook  = 2 * time.Second
)

// connect returns the client, made at the first call that finds a server.
func (s *SharedStore) connect() (rueidis.Client, error) {
	if c := s.client.Load(); c != nil {
		return *c, nil
	}
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:       s.cfg.Addresses,
		TLSConfig:         s.cfg.TLS,
		AuthCredentialsFn: s.credentials,
		DialCtxFn:         s.dial,
		Dialer:            net.Dialer{Timeout: sharedLook},
		ConnWriteTimeout:  sharedWrite,
		DisableCache:      true,
		DisableRetry:      true, // a server that is away is told at once; writes are repeated by the tail
		ClusterOption:     rueidis.ClusterOption{ShardsRefreshInterval: 5 * time.Second},
	})
	if err != nil {
		return nil, away("connect to "+strings.Join(s.cfg.Addresses, ", "), err)
	}
	if !s.client.CompareAndSwap(nil, &c) {
		c.Close()
		return *s.client.Load(), nil
	}
	return c, nil
}

func (s *SharedStore) credentials(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
	out := rueidis.AuthCredentials{Username: s.cfg.Username}
	if s.cfg.Password == nil {
		return out, nil
	}
	var err error
	out.Password, err = s.cfg.Password()
	return out, err
}

// dial counts before it connects: whoever gets an answer over a new connection
// finds the count changed.
func (s *SharedStore) dial(ctx context.Context, addr string, d *net.Dialer, cfg *tls.Config) (net.Conn, error) {
	s.dials.Add(1)
	select {
	case s.dialed <- struct{}{}:
	default:
	}
	if cfg != nil {
		return (&tls.Dialer{NetDialer: d, Config: cfg}).DialContext(ctx, "tcp", addr)
	}
	return d.DialContext(ctx, "tcp", addr)
}

// runIDs are the run ids of all servers that hold rows. A server that may drop
// rows on its own is refused.
func (s *SharedStore) runIDs(ctx context.Context) (string, error) {
	c, err := s.connect()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, sharedLook)
	defer cancel()
	var ids []string
	for addr, node := range c.Nodes() {
		text, err := node.Do(ctx, node.B().Info().Build()).ToString()
		if err != nil {
			return "", away("ask "+addr+" for its run id", err)
		}
		info := parseInfo(text)
		if info["role"] == "slave" {
			continue
		}
		if p := info["maxmemory_policy"]; info["maxmemory"] != "0" && p != "noeviction" {
			return "", away("check "+addr, fmt.Errorf("its maxmemory-policy is %s, which drops rows unseen: set it to noeviction", p))
		}
		ids = append(ids, info["run_id"])
	}
	slices.Sort(ids)
	return strings.Join(ids, ","), nil
}

func parseInfo(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			out[k] = v
		}
	}
	return out
}

// errLost ends watch: what the servers hold cannot be trusted any more.
var errLost = fmt.Errorf("%w: a server was restarted or replaced", ErrStoreAway)

// watch looks at the run ids whenever a connection is made, and every second,
// and removes the rows of views that are gone, until ctx ends or a server is
// another one.
func (s *SharedStore) watch(ctx context.Context) error {
	defer s.trust(0)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	told := false
	for ctx.Err() == nil {
		at := s.dials.Load()
		ids, err := s.runIDs(ctx)
		switch {
		case err != nil:
			if at = 0; !told && ctx.Err() == nil {
				s.cfg.Scope.Log.Warn("features cannot be served", telemetry.LogError, err)
			}
		case ids != s.nodes:
			return errLost
		case told:
			s.cfg.Scope.Log.Info("the shared online store answers again, unchanged")
		}
		told = err != nil
		s.trust(at)
		if err == nil {
			s.sweep(ctx)
		}
		if s.dials.Load() != at && err == nil {
			continue // the look itself made connections
		}
		s.pause(ctx, tick.C, told)
	}
	return nil
}

func (s *SharedStore) trust(dials int64) {
	s.trusted.Store(dials)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.looked)
	s.looked = make(chan struct{})
}

// pause waits for a reason to look again; while a server is away its dials are
// none.
func (s *SharedStore) pause(ctx context.Context, tick <-chan time.Time, away bool) {
	if away {
		retry := time.NewTimer(200 * time.Millisecond)
		defer retry.Stop()
		select {
		case <-retry.C:
		case <-ctx.Done():
		}
		return
	}
	select {
	case <-tick:
	case <-s.dialed:
	case <-ctx.Done():
	}
}

// ready says why reads are refused.
func (s *SharedStore) ready() error {
	if s.trusted.Load() == 0 {
		return ErrStoreAway
	}
	return nil
}

// settled returns the number of dials once the servers behind them are known to
// be the ones that were filled.
func (s *SharedStore) settled(ctx context.Context) (int64, error) {
	for {
		s.mu.Lock()
		looked := s.looked
		s.mu.Unlock()
		at, trusted := s.dials.Load(), s.trusted.Load()
		switch {
		case trusted == 0:
			return 0, ErrStoreAway
		case trusted == at:
			return at, nil
		}
		select {
		case <-looked:
		case <-ctx.Done():
			return 0, away("wait for its run id", context.Cause(ctx))
		}
	}
}

// read answers look-ups in one round trip to each server that has any of the
// keys.
func (s *SharedStore) read(ctx context.Context, asks []ask, now int64) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var keys []string
	for _, a := range asks {
		if err := a.table.admit(ctx, now); err != nil {
			return err
		}
		for i := range a.keys.Len() {
			keys = append(keys, a.table.redisKey(a.keys.at(i)))
		}
	}
	for {
		at, err := s.settled(ctx)
		if err != nil {
			return err
		}
		c, err := s.connect()
		if err != nil {
			return err
		}
		values, err := rueidis.MGet(c, ctx, keys)
		if err != nil {
			return away("read rows", err)
		}
		if s.dials.Load() == at {
			return s.take(ctx, asks, keys, values)
		}
	}
}

// take copies answers into the rows of those who asked.
func (s *SharedStore) take(ctx context.Context, asks []ask, keys []string, values map[string]rueidis.RedisMessage) error {
	for _, a := range asks {
		l := a.table.current.Load()
		for i := range a.keys.Len() {
			m := values[keys[i]]
			text, err := m.ToString()
			switch {
			case rueidis.IsRedisNil(err):
				a.rows.refs = append(a.rows.refs, rowRef{})
			case err != nil:
				return away("read a row", err)
			default:
				if err := s.takeRow(ctx, a.rows, l, text); err != nil {
					return err
				}
			}
		}
		keys = keys[a.keys.Len():]
	}
	return nil
}

// takeRow adds a stored row, rewritten for the view's current layout if it was
// stored under another.
func (s *SharedStore) takeRow(ctx context.Context, rows *Rows, to *sharedLayout, value string) error {
	if len(value) < rowHead {
		return fmt.Errorf("%w: a row of %d bytes is cut off", ErrStoreAway, len(value))
	}
	from, err := s.layout(ctx, to, value[versionDigits:rowHead])
	if err != nil {
		return err
	}
	body := value[rowHead:]
	if len(body) < from.stride {
		return fmt.Errorf("%w: a row of %d bytes is cut off", ErrStoreAway, len(value))
	}
	ref := rowRef{at: len(rows.data)}
	switch slot := unsafeBytes(body[:from.stride]); {
	case slotDeleted(slot):
	case from == to.layout:
		ref.layout = to.layout
		rows.data = append(rows.data, body...)
	default:
		ref.layout = to.layout
		converted := make([]byte, to.stride)
		block := convertRow(from, to.layout, slot, unsafeBytes(body[from.stride:]), converted, nil)
		rows.data = append(append(rows.data, converted...), block...)
	}
	rows.refs = append(rows.refs, ref)
	return nil
}

// layout finds the layout that a row was stored under.
func (s *SharedStore) layout(ctx context.Context, to *sharedLayout, fingerprint string) (*layout, error) {
	if fingerprint == to.fingerprint {
		return to.layout, nil
	}
	if l, ok := s.layouts.Load(fingerprint); ok {
		return l.(*layout), nil
	}
	c, err := s.connect()
	if err != nil {
		return nil, err
	}
	text, err := c.Do(ctx, c.B().Get().Key(s.layoutKey(fingerprint)).Build()).ToString()
	if err != nil {
		return nil, away(fmt.Sprintf("find layout %x", fingerprint), err)
	}
	l, err := parseLayout(text)
	if err != nil {
		return nil, errors.Join(ErrStoreAway, err)
	}
	s.layouts.Store(strings.Clone(fingerprint), l)
	return l, nil
}

func (s *SharedStore) layoutKey(fingerprint string) string {
	return fmt.Sprintf("%s:layout:%x", s.cfg.Prefix, fingerprint)
}
