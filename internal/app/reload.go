package app

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

// reloadable are the settings that a running process takes up when it is told to
// reload. All others hold from the next start.
func reloadable() []string {
	return []string{"telemetry.log_level", "retention.rows", "retention.dead_letters", "ingest.dead_letters"}
}

// settings are the configuration as it is now: what New was given, with what was
// reloaded since.
func (a *App) settings() *Config { return a.live.Load() }

// Reload takes up a changed configuration. Where it changes a setting that only a
// start can take up, nothing is changed and the error names all of those.
func (a *App) Reload(ctx context.Context, next Config) (changed []string, err error) {
	if !a.opened.Load() {
		return nil, errors.New("reload: still starting: try again when it is ready")
	}
	if err := next.Validate(); err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	var refused []string
	for _, name := range differing(a.settings(), &next) {
		if slices.Contains(reloadable(), name) {
			changed = append(changed, name)
		} else {
			refused = append(refused, name)
		}
	}
	if len(refused) > 0 {
		return nil, fmt.Errorf("reload: %s changed, which need a restart; nothing was changed. A reload takes up %s",
			strings.Join(refused, ", "), strings.Join(reloadable(), ", "))
	}
	if len(changed) == 0 {
		return nil, nil
	}
	if err := a.tel.SetLogLevel(next.Telemetry.LogLevel); err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	a.live.Store(&next)
	if a.consumer != nil {
		a.consumer.SetDeadLetterBytes(int64(next.Ingest.DeadLetters))
	}
	if a.store == nil {
		return changed, nil
	}
	if err := a.store.SetDeadLetterRetention(ctx, time.Duration(next.Retention.DeadLetters)); err != nil {
		return changed, fmt.Errorf("reload: retention.dead_letters: %w", err)
	}
	if err := a.applyRetention(ctx); err != nil {
		return changed, fmt.Errorf("reload: retention.rows: %w", err)
	}
	return changed, nil
}

// ReloadFrom reloads what load reads, and says in the log what came of it.
func (a *App) ReloadFrom(ctx context.Context, load func() (Config, error)) {
	next, err := load()
	var changed []string
	if err == nil {
		changed, err = a.Reload(ctx, next)
	}
	if err != nil {
		a.sc.Log.Error("the configuration was not reloaded", telemetry.LogError, err)
		return
	}
	a.sc.Log.Info("the configuration was reloaded", "changed", changed)
}

// differing are the settings, by their path, in which two configurations differ.
func differing(a, b *Config) (names []string) {
	var walk func(path string, a, b reflect.Value)
	walk = func(path string, a, b reflect.Value) {
		for i := range a.NumField() {
			name := path + a.Type().Field(i).Tag.Get("yaml")
			if a.Field(i).Kind() == reflect.Struct {
				walk(name+".", a.Field(i), b.Field(i))
			} else if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
				names = append(names, name)
			}
		}
	}
	walk("", reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem())
	return names
}
