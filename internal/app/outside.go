package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/query"
	"github.com/kedge-ml/kedge/store"
)

// OutsideConfig names the tables that Kedge did not make and views may read. It
// only ever reads them.
type OutsideConfig struct {
	Tables []OutsideTable `yaml:"tables"`
}

// OutsideTable is a table of the engine, or Parquet files that it reaches.
type OutsideTable struct {
	Name       string   `yaml:"name"`       // by which definitions name it (from.table)
	Namespaces []string `yaml:"namespaces"` // that may read it; "*" is all
	Database   string   `yaml:"database"`
	Table      string   `yaml:"table"`
	Parquet    string   `yaml:"parquet"`    // instead: files of the engine's machine, e.g. /data/visits/*.parquet
	S3         string   `yaml:"s3"`         // instead: objects, e.g. https://bucket.s3.eu-central-1.amazonaws.com/visits/*.parquet
	AccessKey  Secret   `yaml:"access_key"` // of those; without keys nothing is signed
	SecretKey  Secret   `yaml:"secret_key"`
}

// outsideTables are those of the configuration as the store takes them.
func (c *Config) outsideTables() (out []store.OutsideTable) {
	for _, o := range c.Outside.Tables {
		out = append(out, o.table())
	}
	return out
}

func (o OutsideTable) table() store.OutsideTable {
	return store.OutsideTable{Name: o.Name, Namespaces: o.Namespaces, Database: o.Database, Table: o.Table, Parquet: o.Parquet, S3: o.S3,
		AccessKey: string(o.AccessKey), SecretKey: string(o.SecretKey)}
}

// checkKeys refuses keys that no engine would be given.
func (c *Config) checkKeys(f *faults, where string, o OutsideTable) {
	f.check((o.AccessKey == "") == (o.SecretKey == ""), "%s: want access_key and secret_key, or neither", where)
	f.check(o.AccessKey == "" || o.S3 != "", "%s: access_key is of s3", where)
	f.check(o.AccessKey == "" || c.EmbeddedStore(), "%s: access_key is for the embedded engine: on a server make a view or a table over s3 with keys of the server's own, and name it with database and table", where)
}

func (c *Config) checkOutside(f *faults) {
	seen := map[string]bool{}
	for i, o := range c.Outside.Tables {
		where := fmt.Sprintf("outside.tables[%d]", i)
		if err := event.CheckName(o.Name); err != nil {
			f.check(false, "%s.name: %w", where, err)
		}
		f.check(!seen[o.Name], "%s.name: %q stands for two tables", where, o.Name)
		seen[o.Name] = true
		f.check(len(o.Namespaces) > 0, `%s.namespaces: name those that may read the table, or "*"`, where)
		for _, ns := range o.Namespaces {
			f.check(ns == "*" || event.CheckNamespace(ns) == nil, `%s.namespaces: %q: want a namespace, or "*"`, where, ns)
		}
		ways := 0
		for _, way := range []string{o.Table, o.Parquet, o.S3} {
			if way != "" {
				ways++
			}
		}
		f.check(ways == 1 && (o.Table == "") == (o.Database == ""), "%s: want database and table, or parquet, or s3", where)
		c.checkOutsideTable(f, where, o)
		c.checkKeys(f, where, o)
	}
}

// checkOutsideTable refuses what would lead to Kedge's own tables, in which
// other namespaces have rows, and to files that nobody named.
func (c *Config) checkOutsideTable(f *faults, where string, o OutsideTable) {
	own := []string{store.DefaultOptions().Database, "system", "information_schema"}
	if c.EmbeddedStore() {
		own = append(own, "default") // there, a table that is not there is a file of its name
	}
	f.check(!slices.Contains(own, strings.ToLower(o.Database)), "%s.database: %q is not outside: its tables are Kedge's or the engine's", where, o.Database)
	f.check(o.Parquet == "" || filepath.IsAbs(o.Parquet) && filepath.Clean(o.Parquet) == o.Parquet, "%s.parquet: %q: want an absolute path, such as /data/visits/*.parquet", where, o.Parquet)
	if o.S3 != "" {
		u, err := url.Parse(o.S3)
		f.check(err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil && u.RawQuery == "",
			"%s.s3: want https://bucket.host/folder/*.parquet, without a key in it", where)
	}
}

// checkFrom finds what is wrong between a new view and the outside table that it
// reads.
func (a *App) checkFrom(ctx context.Context, c auth.Caller, d Definition) error {
	if d.Kind != event.FeatureViewKind || a.store == nil {
		return nil
	}
	spec, err := event.ParseView(d.Spec)
	if err != nil || spec.From == nil {
		return err
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	catalog, err := event.NewCatalog([]event.CatalogEntry{{Kind: d.Kind, Namespace: homeOf(c, d.Kind, d.Name), Name: d.Name, UID: 1, Spec: raw}})
	if err != nil {
		return err
	}
	err = a.store.CheckOutside(ctx, catalog.Schemas()[0])
	if err != nil && !errors.Is(err, store.ErrOutside) {
		a.sc.Log.ErrorContext(ctx, "an outside table was not looked at", "view", d.Name, telemetry.LogError, err)
		return fmt.Errorf("outside table %q: the store did not answer: try again", spec.From.Table)
	}
	if err != nil { // a fault of the definition, whatever a question about the view would be
		return errors.New(err.Error())
	}
	return nil
}

// explainOutside says of a question that failed what is wrong with the outside
// table of the view that it is about, if that is it.
func (a *App) explainOutside(ctx context.Context, r query.Request, err error) error {
	if r.View == "" || a.store == nil {
		return err
	}
	catalog, fault := a.catalog()
	if fault != nil {
		return err
	}
	if sc := catalog.View(r.Namespace, r.View); sc != nil {
		if why := a.store.CheckOutside(ctx, sc); errors.Is(why, store.ErrOutside) {
			return why
		}
	}
	return err
}

// prepareViews makes the views over outside tables. One that cannot be made is
// said in the log and when it is asked: it keeps nothing else from starting.
func (a *App) prepareViews(ctx context.Context, schemas []*event.Schema) {
	for _, sc := range schemas {
		if sc.From == nil {
			continue
		}
		if err := a.store.Prepare(ctx, []*event.Schema{sc}); err != nil && ctx.Err() == nil {
			a.sc.Log.WarnContext(ctx, "a view's outside table cannot be read", "namespace", sc.Namespace, "view", sc.Subject, telemetry.LogError, err)
		}
	}
}
