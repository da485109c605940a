package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/source"
)

// replayFlags say how a file becomes events.
type replayFlags struct {
	mapping, speed, start, knownAt, hashKey string
	print, quiet                            bool
}

func (c *cli) replayCommand() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use: "replay FILE --map FILE", Short: "Send a CSV, Parquet or JSON lines file as events", Args: exactly(1, "replay"),
		Long:    "Send a file as events, through the server into Kafka. The mapping says which fields are the key, the time,\nthe values, a prediction's inputs and output, a label; docs/sources.md describes it.\n\nA file loaded at full speed must say when its rows could have been known (--known-at), or the mapping must.",
		Example: "  kedge replay elec.csv --map elec.yaml --speed max --known-at event_time\n  kedge replay trips.parquet --map trips.yaml --speed 60 --start now",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := f.open(args[0], time.Now())
			if err != nil {
				return err
			}
			defer r.file.Close()
			if f.print {
				return r.writeTo(cmd.Context(), cmd.OutOrStdout())
			}
			return c.replay(cmd, r, f.quiet)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.mapping, "map", "", "mapping file, YAML")
	fl.StringVar(&f.speed, "speed", "max", "times real time, or max")
	fl.StringVar(&f.start, "start", "", "shift all times so that the first event happens then: RFC 3339, or now")
	fl.StringVar(&f.knownAt, "known-at", "", "when rows could have been known: a column, event_time, or now (as they arrive)")
	fl.StringVar(&f.hashKey, "hash-key-file", "", "file with the key for hashed fields")
	fl.BoolVar(&f.print, "print", false, "print the events instead of sending them")
	fl.BoolVar(&f.quiet, "quiet", false, "no progress bar")
	_ = cmd.MarkFlagRequired("map") // the flag exists
	return cmd
}

// replay is a file on its way.
type replay struct {
	name   string
	file   *source.File
	mapper *source.Mapper
	speed  float64 // times real time; 0: as fast as it goes
	bytes  int     // of a batch of lines
	events int     // of a batch
	bad    int     // rows that gave no event because of a fault
	faults []error // the first of them
}

func (f *replayFlags) open(path string, now time.Time) (*replay, error) {
	r := &replay{name: path, bytes: 1 << 20, events: 5000}
	if f.speed != "max" {
		v, err := strconv.ParseFloat(f.speed, 64)
		if err != nil || v <= 0 {
			return nil, &usageError{fmt.Errorf("--speed %q: want a number above 0, or max", f.speed), "replay"}
		}
		r.speed = v
	}
	text, err := os.ReadFile(f.mapping)
	if err != nil {
		return nil, err
	}
	m, err := source.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", f.mapping, err)
	}
	if err := f.checkKnownAt(m); err != nil {
		return nil, err
	}
	if r.file, err = source.Open(path, m); err != nil {
		return nil, err
	}
	if r.mapper, err = f.mapper(m, r.file, now); err != nil {
		return nil, errors.Join(err, r.file.Close())
	}
	return r, nil
}

// checkKnownAt wants a bulk load to say when its rows could have been known.
func (f *replayFlags) checkKnownAt(m *source.Mapping) error {
	if f.knownAt != "" || f.speed != "max" {
		return nil
	}
	for _, e := range m.Events {
		if e.KnownAt.IsZero() {
			return &usageError{errors.New("a load at full speed must say when its rows could have been known: --known-at event_time, --known-at COLUMN, or --known-at now if today is right"), "replay"}
		}
	}
	return nil
}

func (f *replayFlags) mapper(m *source.Mapping, file *source.File, now time.Time) (*source.Mapper, error) {
	opt := source.Options{File: file, KnownAt: f.knownAt}
	if f.knownAt == "now" {
		opt.KnownAt = ""
		for i := range m.Events {
			m.Events[i].KnownAt = source.Time{}
		}
	}
	if f.hashKey != "" {
		key, err := os.ReadFile(f.hashKey)
		if err != nil {
			return nil, err
		}
		opt.HashKey = bytes.TrimRight(key, "\r\n")
	}
	mapper, err := source.NewMapper(m, opt)
	if err != nil || f.start == "" {
		return mapper, err
	}
	start := now
	if f.start != "now" {
		if start, err = time.Parse(time.RFC3339, f.start); err != nil {
			return nil, &usageError{fmt.Errorf("--start %q: want RFC 3339, or now", f.start), "replay"}
		}
	}
	first, err := firstTime(file, mapper)
	if err != nil {
		return nil, err
	}
	shift(m, start.Sub(first))
	return source.NewMapper(m, opt)
}

// firstTime is the time of the file's first event.
func firstTime(file *source.File, mapper *source.Mapper) (time.Time, error) {
	for row, err := range file.Rows() {
		var bad source.RowError
		if errors.As(err, &bad) {
			continue
		}
		if err != nil {
			return time.Time{}, err
		}
		if events, err := mapper.Map(row); err == nil && len(events) > 0 {
			return time.UnixMicro(events[0].Time), nil
		}
	}
	return time.Time{}, errors.New("no row of the file gives an event, so that there is no time to shift")
}

func shift(m *source.Mapping, d time.Duration) {
	for i := range m.Events {
		e := &m.Events[i]
		for _, t := range []*source.Time{&e.Time, &e.Created, &e.KnownAt} {
			if !t.IsZero() && !t.Same {
				t.Shift += event.Duration(d)
			}
		}
	}
}

// each calls send with batches of envelopes, one per line, in the file's order
// and at the asked speed. rows is how many rows a batch used up.
func (r *replay) each(ctx context.Context, send func(lines []byte, events, rows int) error) error {
	var lines []byte
	events, rows := 0, 0
	var clock pace
	flush := func() error {
		err := send(lines, events, rows)
		lines, events, rows = lines[:0], 0, 0
		return err
	}
	for row, err := range r.file.Rows() {
		rows++
		if err != nil {
			if err := r.tolerate(err); err != nil {
				return err
			}
			continue
		}
		mapped, err := r.mapped(row)
		if err != nil {
			return err
		}
		for _, e := range mapped {
			if wait := clock.until(e.Time, r.speed, time.Now()); wait > 0 {
				if err := flush(); err != nil {
					return err
				}
				if err := sleep(ctx, wait); err != nil {
					return err
				}
			}
			lines = append(append(lines, e.Text...), '\n')
			events++
		}
		if len(lines) >= r.bytes || events >= r.events {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// tolerate counts a faulty row and lets the next one follow.
func (r *replay) tolerate(err error) error {
	var bad source.RowError
	if !errors.As(err, &bad) {
		return err
	}
	r.bad++
	if len(r.faults) < 10 {
		r.faults = append(r.faults, bad)
	}
	return nil
}

func (r *replay) mapped(row source.Row) ([]source.Mapped, error) {
	mapped, err := r.mapper.Map(row)
	return mapped, r.tolerate(err)
}

// pace says when an event is due.
type pace struct {
	began time.Time
	first int64
}

// until is how long to wait before an event, at a speed; small waits are left
// to the next one.
func (p *pace) until(at int64, speed float64, now time.Time) time.Duration {
	if speed == 0 {
		return 0
	}
	if p.began.IsZero() {
		p.began, p.first = now, at
	}
	due := p.began.Add(time.Duration(float64(at-p.first)*1000/speed) * time.Nanosecond)
	if wait := due.Sub(now); wait > 20*time.Millisecond {
		return wait
	}
	return 0
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// writeTo prints the events.
func (r *replay) writeTo(ctx context.Context, w io.Writer) error {
	err := r.each(ctx, func(lines []byte, _, _ int) error {
		_, err := w.Write(lines)
		return err
	})
	return errors.Join(err, r.result())
}

// replay sends the events through the server.
func (c *cli) replay(cmd *cobra.Command, r *replay, quiet bool) error {
	out := cmd.ErrOrStderr()
	bar := progressbar.NewOptions64(r.file.Total(), progressbar.OptionSetWriter(out), progressbar.OptionSetVisibility(!quiet && isTerminal(out)),
		progressbar.OptionSetDescription(r.name), progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("rows"), progressbar.OptionThrottle(100*time.Millisecond))
	sent, rejected := 0, 0
	began := time.Now()
	err := r.each(cmd.Context(), func(lines []byte, events, rows int) error {
		if events > 0 {
			ok, bad, err := c.streamEvents(cmd.Context(), bytes.NewReader(lines))
			sent, rejected = sent+ok, rejected+bad
			if err != nil {
				return err
			}
		}
		return bar.Add(rows)
	})
	_ = bar.Exit() // drawing is not what this is about
	fmt.Fprintf(out, "\n%d events sent in %v, %d rejected, %d rows faulty\n", sent, time.Since(began).Round(time.Millisecond), rejected, r.bad)
	return errors.Join(err, r.result())
}

// result is an error where rows were faulty.
func (r *replay) result() error {
	if r.bad == 0 {
		return nil
	}
	return fmt.Errorf("%d rows gave no event:\n%w", r.bad, errors.Join(r.faults...))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
