package app

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/internal/app/page"
	"github.com/kedge-ml/kedge/internal/auth"
	"github.com/kedge-ml/kedge/query"
)

// overview asks the same questions as any reader and puts the answers on the
// page. A question that fails becomes a problem on the page, not an error.
type overview struct {
	app   *App
	kinds map[string]KindFunc
	c     auth.Caller
	page  *page.Data

	mu      sync.Mutex
	arrived map[event.Kind][]float64 // rows per minute of their own time
}

const (
	pageStep     = time.Minute
	pageColumns  = 12 // charts per subject
	pageSubjects = 20 // of each kind
	pageTraces   = 8
	enoughLabels = 0.5
	pageFresh    = 2 * time.Second // readers within this time share one page
)

func (a *App) overview(ctx context.Context, kinds map[string]KindFunc, c auth.Caller, now time.Time) *page.Data {
	to := now.Truncate(pageStep).Add(pageStep)
	o := &overview{app: a, kinds: kinds, c: c, arrived: map[event.Kind][]float64{}, page: &page.Data{
		Now: now, Version: a.version, Namespace: c.Namespace, Uptime: now.Sub(a.started), Roles: a.cfg.Roles, From: to.Add(-time.Hour), To: to,
	}}
	o.health(ctx)
	var wg sync.WaitGroup
	for _, part := range []func(context.Context){o.streams, o.ledger, o.dead, o.storage, o.subjects, o.traces} {
		wg.Go(func() { part(ctx) })
	}
	wg.Wait()
	o.sparklines()
	sort.SliceStable(o.page.Problems, func(i, j int) bool {
		return o.page.Problems[i].Severity == "critical" && o.page.Problems[j].Severity != "critical"
	})
	return o.page
}

// overviews makes one page for all who ask at about the same time.
type overviews struct {
	mu   sync.Mutex
	made map[string]*page.Data // by caller
}

func (s *overviews) get(key string, now time.Time, build func() *page.Data) *page.Data {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.made[key]; d != nil && now.Sub(d.Now) < pageFresh {
		return d
	}
	d := build()
	s.made = map[string]*page.Data{key: d}
	return d
}

func (o *overview) problem(severity, title, detail string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.page.Problems = append(o.page.Problems, page.Problem{Severity: severity, Title: title, Detail: detail})
}

// ask answers one question over the page's hour; nil when it failed.
func (o *overview) ask(ctx context.Context, r query.Request) []query.Frame {
	if o.kinds[r.Kind] == nil {
		return nil
	}
	frames, err := o.app.answer(ctx, o.kinds, o.c, r)
	if err != nil && ctx.Err() == nil {
		o.problem("warning", "the question "+r.Kind+" was not answered", err.Error())
	}
	return frames
}

func (o *overview) hour(kind string) query.Request {
	return query.Request{Kind: kind, From: o.page.From, To: o.page.To, Step: query.Duration(pageStep)}
}

func (o *overview) health(ctx context.Context) {
	for _, p := range o.app.health(ctx).Parts {
		detail := p.Detail
		if !p.Ready {
			detail = p.Reason
			o.problem("critical", p.Name+" is not ready", p.Reason)
		}
		o.page.Parts = append(o.page.Parts, page.Part{Name: p.Name, OK: p.Ready, Detail: detail})
	}
	o.page.Parts = append(o.page.Parts, page.Part{Name: "http", OK: true, Detail: "http://" + o.app.Addr() + ", POST /v1/events and /v1/query"})
}

// streams are the three tiles: what landed lately, how fresh it is, how long
// it took.
func (o *overview) streams(ctx context.Context) {
	landed := o.hour("throughput")
	landed.From, landed.To, landed.Step = o.page.Now.Add(-time.Minute), o.page.Now, query.Duration(time.Minute)
	recent := frameColumns(o.ask(ctx, landed))
	lag := frameColumns(o.ask(ctx, query.Request{Kind: "ingest_lag", From: landed.From, To: landed.To, Step: landed.Step}))
	age, _ := freshest(o.ask(ctx, query.Request{Kind: "freshness"}))
	for _, kind := range []event.Kind{event.Features, event.Predictions, event.Labels} {
		s := page.Stream{Kind: kind.String(), PerSecond: mean(recent[kind.String()]), Age: age[kind.String()]}
		if v := maximum(lag[TopicName(o.c.Namespace, kind)]); !math.IsNaN(v) {
			s.Lag = &v
		}
		o.page.Streams = append(o.page.Streams, s)
	}
}

// traces are the newest that this process keeps, of its own namespace, each with a
// link to where Grafana shows it whole.
func (o *overview) traces(context.Context) {
	if o.c.Namespace != o.app.cfg.Namespace {
		return
	}
	for _, r := range o.app.tel.Newest(pageTraces) {
		t := page.Trace{ID: r.Trace, Name: r.Name, Failed: r.Failed != "", MS: r.Duration.Seconds() * 1e3, Age: o.page.Now.Sub(r.Start.Add(r.Duration)).Seconds()}
		if to := o.app.cfg.Alerts.Links; to != "" {
			t.Link = strings.TrimSuffix(to, "/") + "/d/kedge-trace?var-trace=" + r.Trace
		}
		o.page.Traces = append(o.page.Traces, t)
	}
}

// frameColumns are the numeric columns of a wide frame, by name.
func frameColumns(frames []query.Frame) map[string][]float64 {
	out := map[string][]float64{}
	if len(frames) == 0 {
		return out
	}
	for i := range frames[0].Columns {
		if c := &frames[0].Columns[i]; c.Type != query.Time {
			out[c.Name] = numbers(c)
		}
	}
	return out
}

// freshest is the age of the newest event per stream, and per kind/subject.
func freshest(frames []query.Frame) (stream map[string]*float64, subject map[string]*float64) {
	stream, subject = map[string]*float64{}, map[string]*float64{}
	if len(frames) == 0 {
		return stream, subject
	}
	kinds, names, ages := texts(frames[0], "kind"), texts(frames[0], "subject"), values(frames[0], "seconds")
	for i := range kinds {
		if math.IsNaN(ages[i]) {
			continue
		}
		v := ages[i]
		subject[kinds[i]+"/"+names[i]] = &v
		if old := stream[kinds[i]]; old == nil || v < *old {
			stream[kinds[i]] = &v
		}
	}
	return stream, subject
}

// ledger shows the newest audit: the whole ledger is compared in the
// background, not for every reader of the page.
func (o *overview) ledger(context.Context) {
	at, parts, _, err := o.app.audit.get()
	if err != nil {
		o.problem("warning", "the ledger could not be audited", err.Error())
	}
	if at.IsZero() {
		return
	}
	l := page.Ledger{Partitions: len(parts), Checked: o.page.Now.Sub(at)}
	var lost, skipped, overlap, unbalanced int64
	for _, p := range parts {
		l.Records, l.Rows, l.DeadLetters, l.Duplicates = l.Records+uint64(p.Records), l.Rows+uint64(p.Rows), l.DeadLetters+uint64(p.DeadLetters), l.Duplicates+uint64(p.Duplicates)
		l.GapRows, l.DuplicateRows = l.GapRows+p.GapRows, l.DuplicateRows+p.DuplicateRows
		lost, skipped, overlap, unbalanced = lost+p.Missing, skipped+p.GapRecords, overlap+p.OverlapRecords, unbalanced+p.Unbalanced
	}
	o.page.Ledger = &l
	for _, f := range []struct {
		n    int64
		what string
	}{
		{l.GapRows, "rows are missing"}, {l.DuplicateRows, "rows are doubled"}, {lost, "records were removed by retention before they were read"},
		{skipped, "records were skipped"}, {overlap, "records were read twice"}, {unbalanced, "records are in units that do not add up"},
	} {
		if f.n > 0 {
			o.problem("critical", fmt.Sprintf("%d %s", f.n, f.what), "The ledger names the units: kedge query ledger")
		}
	}
}

func (o *overview) dead(ctx context.Context) {
	frames := o.ask(ctx, query.Request{Kind: "dead_letters", From: o.page.From, Limit: 200})
	if len(frames) < 2 {
		return
	}
	reasons, details := texts(frames[0], "reason"), texts(frames[0], "detail")
	example := map[string]string{}
	for i, r := range reasons {
		if example[r] == "" {
			example[r] = details[i]
		}
	}
	counts := map[string]uint64{}
	var order []string
	total := 0.0
	for i, r := range texts(frames[1], "reason") {
		n := values(frames[1], "count")[i]
		if counts[r] == 0 {
			order = append(order, r)
		}
		counts[r], total = counts[r]+uint64(n), total+n
	}
	for _, r := range order {
		o.page.Dead = append(o.page.Dead, page.DeadReason{Reason: r, Count: counts[r], Example: example[r]})
	}
	if total > 0 {
		o.problem("warning", plural(int(total), "dead letter")+" in the last hour", "Records that could not become rows: kedge dead-letters list")
	}
}

func (o *overview) storage(context.Context) {
	_, _, frames, _ := o.app.audit.get()
	if len(frames) < 2 || frames[1].Rows() == 0 {
		return
	}
	one := func(column string) float64 { return values(frames[1], column)[0] }
	s := page.Storage{Used: uint64(one("used")), Free: uint64(one("free")), PerDay: one("growth_a_day"),
		Rows: keep(o.app.settings().Retention.Rows), DeadLetters: keep(o.app.settings().Retention.DeadLetters)}
	s.Broker = keep(o.app.cfg.Kafka.Retention) + " or " + string(must(o.app.cfg.Kafka.RetentionSize.MarshalText())) + " a partition"
	if d := daysToFull(one("used"), one("free"), s.PerDay, time.Duration(o.app.settings().Retention.Rows)); !math.IsInf(d, 1) {
		s.DaysToFull = &d
		if d < 3 {
			o.problem("critical", fmt.Sprintf("the disk is full in %.1f days", d), "Shorten retention, or give it space.")
		}
	}
	o.page.Storage = s
}

// daysToFull is when the disk is full at a pace, +Inf when retention removes
// rows before that.
func daysToFull(used, free, perDay float64, retention time.Duration) float64 {
	if perDay <= 0 {
		return math.Inf(1)
	}
	days := free / perDay
	if kept := retention.Hours() / 24; retention > 0 && kept*perDay < used+free && kept < days+used/perDay {
		return math.Inf(1)
	}
	return days
}

func keep(d Duration) string {
	if d == 0 {
		return "for ever"
	}
	return strings.TrimSuffix(string(must(d.MarshalText())), "0s")
}

// subjects draws every model and view.
func (o *overview) subjects(ctx context.Context) {
	frames := o.ask(ctx, query.Request{Kind: "catalog"})
	if len(frames) == 0 {
		return
	}
	f := frames[0]
	_, age := freshest(o.ask(ctx, query.Request{Kind: "freshness"}))
	kinds, names := texts(f, "kind"), texts(f, "name")
	drawn := make([]page.Subject, len(names))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	count := map[string]int{}
	for i := range names {
		if count[kinds[i]]++; count[kinds[i]] > pageSubjects {
			continue
		}
		drawn[i] = page.Subject{Name: names[i], Origin: texts(f, "origin")[i], Owner: texts(f, "owner")[i], Versions: SplitList(texts(f, "versions")[i]), Keys: SplitList(texts(f, "keys")[i])}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if kinds[i] == "model" {
				drawn[i].Age = age["predictions/"+names[i]]
				o.model(ctx, &drawn[i])
				return
			}
			drawn[i].Age = age["features/"+names[i]]
			o.columns(ctx, &drawn[i], query.Request{View: names[i]})
		})
	}
	wg.Wait()
	for i, s := range drawn {
		switch {
		case s.Name == "":
		case kinds[i] == "model":
			o.page.Models = append(o.page.Models, s)
		default:
			o.page.Views = append(o.page.Views, s)
		}
	}
}

// count adds a subject's rows to its stream.
func (o *overview) count(kind event.Kind, rows page.Series) {
	o.mu.Lock()
	defer o.mu.Unlock()
	total := o.arrived[kind]
	if total == nil {
		total = make([]float64, len(rows.Values))
		o.arrived[kind] = total
	}
	for i, v := range rows.Values {
		if !math.IsNaN(v) {
			total[i] += v
		}
	}
}

// sparklines draws each stream by its events' own time.
func (o *overview) sparklines() {
	for i := range o.page.Streams {
		s := &o.page.Streams[i]
		kind, _ := event.ParseKind(s.Kind) // made from a kind above
		rows := page.Series{From: o.page.From, Step: pageStep, Values: o.arrived[kind]}
		for j, v := range rows.Values {
			s.Rows += uint64(v)
			if v == 0 {
				rows.Values[j] = math.NaN()
			}
		}
		s.Series = perSecond(rows, o.page.Now)
	}
}

func (o *overview) model(ctx context.Context, s *page.Subject) {
	o.columns(ctx, s, query.Request{Model: s.Name})
	r := o.hour("score_distribution")
	r.Model = s.Name
	s.Scores = heatOf(o.ask(ctx, r), o.page.From)
	labels := o.hour("summary")
	labels.Model, labels.Columns, labels.Params = s.Name, []string{"label"}, json.RawMessage(`{"labels":true}`)
	for _, f := range o.ask(ctx, labels) {
		o.count(event.Labels, o.series(f, "count"))
	}
	r.Kind = "label_coverage"
	frames := o.ask(ctx, r)
	if len(frames) == 0 || frames[0].Rows() == 0 {
		return
	}
	coverage := o.series(frames[0], "coverage")
	if sum(nonNaN(coverage.Values)) == 0 {
		return
	}
	score, truth := o.series(frames[0], "mean_score"), o.series(frames[0], "mean_label")
	for i, share := range coverage.Values {
		if !(share >= enoughLabels) { // the first labels to come are not like the rest
			score.Values[i], truth.Values[i] = math.NaN(), math.NaN()
		}
	}
	s.Coverage = &coverage
	if len(nonNaN(truth.Values)) > 0 && len(nonNaN(score.Values)) > 0 {
		s.Score, s.Truth = &score, &truth
	}
}

// columns draws the numeric columns of a view or model.
func (o *overview) columns(ctx context.Context, s *page.Subject, about query.Request) {
	types := map[string]string{}
	about.Kind = "catalog"
	for _, f := range o.ask(ctx, about) {
		for i, name := range texts(f, "column") {
			types[name] = texts(f, "type")[i]
		}
	}
	r := o.hour("summary")
	r.View, r.Model = about.View, about.Model
	for i, f := range o.ask(ctx, r) {
		if i == 0 {
			rows := o.series(f, "count")
			s.Rows, s.Throughput = uint64(sum(rows.Values)), perSecond(rows, o.page.Now)
			o.count(map[bool]event.Kind{true: event.Features, false: event.Predictions}[about.View != ""], rows)
		}
		c := page.Column{Name: f.Name, Type: types[f.Name], Mean: o.series(f, "mean")}
		if f.Name == "score" || len(s.Columns) >= pageColumns || len(nonNaN(c.Mean.Values)) == 0 {
			continue // the score has charts of its own; an output that the model does not use is no news
		}
		if c.Type != "Bool" {
			c.Low, c.High = o.series(f, "p05"), o.series(f, "p95")
		}
		c.NullRate = weighted(values(f, "null_share"), values(f, "count"))
		s.Columns = append(s.Columns, c)
	}
}

// series puts a frame's column onto the page's minutes.
func (o *overview) series(f query.Frame, column string) page.Series {
	n := int(o.page.To.Sub(o.page.From) / pageStep)
	s := page.Series{From: o.page.From, Step: pageStep, Values: make([]float64, n)}
	for i := range s.Values {
		s.Values[i] = math.NaN()
	}
	v := values(f, column)
	for i, t := range times(f) {
		if at := int(t.Sub(o.page.From) / pageStep); at >= 0 && at < n && i < len(v) {
			s.Values[at] = v[i]
		}
	}
	return s
}

// perSecond turns counts into rates; the current minute is not over yet, and a
// minute without rows counts as zero once rows have come.
func perSecond(s page.Series, now time.Time) page.Series {
	out := page.Series{From: s.From, Step: s.Step, Values: make([]float64, len(s.Values))}
	begun := false
	for i, v := range s.Values {
		begun = begun || !math.IsNaN(v)
		length := math.Min(s.Step.Seconds(), now.Sub(s.From.Add(time.Duration(i)*s.Step)).Seconds())
		switch {
		case !begun || length < 10:
			out.Values[i] = math.NaN()
		case math.IsNaN(v):
			out.Values[i] = 0
		default:
			out.Values[i] = v / length
		}
	}
	return out
}

func heatOf(frames []query.Frame, from time.Time) *page.Heat {
	if len(frames) == 0 || frames[0].Rows() == 0 {
		return nil
	}
	f := frames[0]
	h := &page.Heat{From: from, Step: pageStep, Low: 0, High: 1, Cells: make([][]float64, 60)}
	for i, t := range times(f) {
		at := int(t.Sub(from) / pageStep)
		if at < 0 || at >= len(h.Cells) {
			continue
		}
		for c := range f.Columns[1:] {
			h.Cells[at] = append(h.Cells[at], numbers(&f.Columns[1+c])[i])
		}
	}
	return h
}
