package ingest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/ingest"
	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/internal/testenv"
	"github.com/kedge-ml/kedge/registry"
	"github.com/kedge-ml/kedge/store"
)

const cardOne = `{"origin":"declared","keys":[{"name":"card","type":"Int64"}],"columns":[{"name":"amount","type":"Float64"}]}`

const cardTwo = `{"origin":"declared","version":2,"keys":[{"name":"card","type":"Int64"}],"columns":[{"name":"cents","type":"Int64"},{"name":"note","type":"String"}],
"former":[{"version":1,"columns":[{"name":"amount","type":"Float64"}],"convert":{"cents":"int(round(amount * 100))"}}]}`

// TestConvertOnce converts stored rows with a store that fails wherever it is
// written to: in the end each has its row in the new version, under its own
// position, what the expression cannot convert is a dead letter, the ledger is
// balanced, and a unit of the old version that comes later is found. The control
// leaves the rests of broken tries and finds them doubled.
func TestConvertOnce(t *testing.T) {
	for _, noTrim := range []bool{false, true} {
		t.Run(fmt.Sprintf("noTrim=%v", noTrim), func(t *testing.T) {
			st, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()})
			check(t, err)
			defer st.Close()
			sink := &faultySink{Store: st, r: rand.New(rand.NewPCG(3, 4)), noTrim: noTrim}
			reg := runRegistry(t)
			c, err := ingest.New(ingest.DefaultConfig(), nil, reg, sink, telemetry.Discard())
			check(t, err)
			put := func(spec string, version uint64) registry.Definition {
				d, err := reg.Apply(t.Context(), registry.Entry{Kind: event.FeatureViewKind, Namespace: "default", Name: "card", Op: registry.Put, Expect: version, Spec: json.RawMessage(spec), Who: "test"})
				check(t, err)
				return d
			}
			d := put(cardOne, 0)
			old, err := event.NewCatalog([]event.CatalogEntry{{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, UID: d.UID, Spec: d.Spec}})
			check(t, err)
			for partition := range int32(2) {
				for unit := range int64(5) {
					storeUnit(t, st, old, partition, unit*100, 100)
				}
			}
			put(cardTwo, d.Version)
			sink.faults = 9
			conv := c.Converter()
			for try := 0; ; try++ {
				err := conv.Tick(t.Context())
				if err == nil {
					break
				}
				if !errors.Is(err, errFault) || try > 200 {
					t.Fatal(err)
				}
			}
			storeUnit(t, st, old, 1, 500, 100) // it was under way when the version changed
			check(t, conv.Tick(t.Context()))
			check(t, conv.Tick(t.Context()))

			parts, findings, err := st.AuditLedger(t.Context(), "default", time.Time{})
			check(t, err)
			var rows, dead, bad, doubled int64
			for _, a := range parts {
				if strings.HasPrefix(a.Topic, event.ConvertTopicPrefix("default", event.ViewTableID(d.UID, 2))) {
					rows, dead = rows+a.Rows, dead+a.DeadLetters
				}
				doubled += a.DuplicateRows
				bad += a.GapRows + a.DuplicateRows + a.Unbalanced + a.GapRecords + a.OverlapRecords + a.Unledgered + a.Missing
			}
			if noTrim {
				if doubled == 0 {
					t.Error("without trimming nothing is doubled: this test finds nothing")
				}
				return
			}
			if rows != 1100-11 || dead != 11 || bad != 0 {
				t.Errorf("converted %d, %d dead letters, %d faults: %+v %+v", rows, dead, bad, parts, findings)
			}
			catalog, err := event.NewCatalog([]event.CatalogEntry{{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, UID: d.UID, Spec: json.RawMessage(cardTwo)}})
			check(t, err)
			seen := map[string]bool{}
			for b, err := range st.NewestRows(t.Context(), catalog.View("default", "card"), 5000) {
				check(t, err)
				for r := range b.FeatureRows() {
					place := fmt.Sprint(r.Partition, "/", r.Epoch, "/", r.Offset)
					want := int64(math.Round(amountAt(r.Partition, r.Offset) * 100))
					if r.Values[0].Value.Int != want || !r.Values[1].Value.IsNull() || seen[place] || r.Key[0].Value.Int != r.Offset || r.Epoch != 3 {
						t.Fatalf("%s: %+v, want %d", place, r, want)
					}
					seen[place] = true
				}
			}
			if len(seen) != 1089 {
				t.Errorf("%d rows are converted", len(seen))
			}
			if def, ok := reg.State().Get(ingest.ConversionKind, "default", "card"); !ok || !strings.Contains(string(def.Spec), fmt.Sprint(event.ViewTableID(d.UID, 2))) {
				t.Errorf("the registry does not say that it is done: %+v", def)
			}
		})
	}
}

func amountAt(partition int32, offset int64) float64 {
	return float64(offset)*1.01 + float64(partition)
}

// storeUnit stores feature events as ingest does, as the definitions of an
// earlier catalog have them. Every hundredth has no amount.
func storeUnit(t *testing.T, st *store.Store, c *event.Catalog, partition int32, from, n int64) {
	t.Helper()
	u := &event.Unit{Topic: "kedge.default.features", Namespace: "default", Kind: event.Features, Epoch: 3}
	u.Reset(c)
	d := event.NewDecoder(event.DefaultDecoderConfig())
	at := time.Now().UnixMicro()
	for o := from; o < from+n; o++ {
		values := fmt.Sprintf(`{"amount":%v}`, amountAt(partition, o))
		if o%100 == 50 {
			values = `{}`
		}
		d.Decode(u, event.Record{Partition: partition, Offset: o, Time: at, Value: fmt.Appendf(nil, `{"view":"card","key":{"card":%d},"event_time":"2026-01-01T00:00:00Z","id":"e%d-%d","values":%s}`, o, partition, o, values)})
	}
	if len(u.Dead)+len(u.Proposals) > 0 || len(u.Batches) != 1 {
		t.Fatalf("%+v %+v", u.Dead, u.Proposals)
	}
	token := fmt.Sprint("test/", partition, "/", from)
	check(t, st.Insert(t.Context(), token, u.Batches[0]))
	r := u.Ledger()
	r.Partition, r.From, r.To = partition, from, from+n-1
	check(t, st.InsertLedger(t.Context(), token, r))
}

// TestConversionIsTried: a version to which stored rows cannot be converted is
// refused with the row's fault.
func TestConversionIsTried(t *testing.T) {
	st, err := store.OpenEmbedded(t.Context(), store.EmbeddedConfig{Options: store.DefaultOptions(), LibPath: testenv.LibCHDB(t), DataDir: t.TempDir()})
	check(t, err)
	defer st.Close()
	c, err := ingest.New(ingest.DefaultConfig(), nil, runRegistry(t), st, telemetry.Discard())
	check(t, err)
	entry := event.CatalogEntry{Kind: event.FeatureViewKind, Namespace: "default", Name: "card", UID: 5, Spec: json.RawMessage(cardOne)}
	old, err := event.NewCatalog([]event.CatalogEntry{entry})
	check(t, err)
	storeUnit(t, st, old, 0, 0, 100)
	entry.Spec = json.RawMessage(cardTwo)
	if err := c.CheckConversion(t.Context(), entry, 1000); err == nil || !strings.Contains(err.Error(), "1 cannot be converted") || !strings.Contains(err.Error(), "cents") {
		t.Errorf("a row without an amount: %v", err)
	}
	entry.Spec = json.RawMessage(strings.Replace(cardTwo, "round(amount * 100)", "round((amount ?? 0) * 100)", 1))
	check(t, c.CheckConversion(t.Context(), entry, 1000))
}
