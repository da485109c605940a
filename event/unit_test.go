package event

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func deadReasons(u *Unit) (list []string) {
	for _, d := range u.Dead {
		list = append(list, fmt.Sprintf("%d %s", d.Offset, d.Reason))
	}
	return list
}

func TestBadInputBecomesDeadLetters(t *testing.T) {
	w := newWorld(t, Features)
	big := feature(`{"a":"` + strings.Repeat("x", 10<<20) + `"}`)
	texts := []string{
		feature(`{"a":1}`), big, feature(strings.Repeat(`{"a":`, 5000)), feature("{\"a\":\"\xff\"}"),
		strings.Replace(feature(`{"a":1}`), "2026-03-01", "2036-03-01", 1), strings.Replace(feature(`{"a":1}`), "2026-03-01", "0001-03-01", 1),
		strings.Replace(feature(`{"a":1}`), `"key":{"id":7},`, "", 1), strings.Replace(feature(`{"a":1}`), `{"id":7}`, "null", 1),
		feature(`{"a":"x"}`), feature(`{"a":1}`) + "]", "", feature(`{"` + strings.Repeat("n", 201) + `":1}`),
		strings.Replace(feature(`{"a":1}`), `"view"`, `"namespace":"other","view"`, 1),
	}
	u := w.decode(texts...)
	want := []string{"1 too_large", "2 malformed", "3 encoding", "4 future", "5 time", "6 missing", "7 key", "8 type", "9 malformed", "10 malformed", "11 limit", "12 namespace"}
	if got := deadReasons(u); !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if u.Counts != (Counts{Records: 13, Rows: 1, DeadLetters: 12}) {
		t.Errorf("counts %+v", u.Counts)
	}
	if d := u.Dead[0]; d.Size != int64(len(big)) || len(d.Value) != 64<<10 || !strings.Contains(d.Detail, "10485") {
		t.Errorf("dead letter of a large record: size %d, kept %d, %s", d.Size, len(d.Value), d.Detail)
	}
	for _, d := range u.Dead {
		if len(d.Detail) == 0 || len(d.Detail) > 300 || d.KnownAt != testClock || d.Partition != 3 || d.Epoch != 1 || d.Topic != u.Topic {
			t.Errorf("%+v", d)
		}
	}
}

// TestFailedRecordLeavesNothing decodes good rows with and without bad ones in
// between; the columns must be the same.
func TestFailedRecordLeavesNothing(t *testing.T) {
	good := []string{wrap(Features, `{"int64":1,"strings":["a","b"],"json":{"x":1},"bytes":"aGk=","float64s":[1,null]}`), wrap(Features, `{"string":"é","timestamps":["2026-01-01T00:00:00Z"]}`)}
	bad := []string{wrap(Features, `{"int64":1,"strings":["a",7]}`), wrap(Features, `{"strings":["a"],"json":[1],"bytes":"a","x":1}`),
		strings.TrimSuffix(good[0], "}"), wrap(Features, `{"float64s":[1,2,"x"]}`), wrap(Features, `{"nobody":1,"int64":"x"}`)}
	var mixed []string
	for _, g := range good {
		mixed = append(append(mixed, bad...), g)
	}
	clean := newWorld(t, Features, fuzzDefs()...).decode(good...)
	dirty := newWorld(t, Features, fuzzDefs()...).decode(append(mixed, bad...)...)
	if dirty.Counts.Rows != 2 || dirty.Counts.DeadLetters != int64(3*len(bad)) || dirty.Counts.Overflow != 0 {
		t.Fatalf("%+v", dirty.Counts)
	}
	dirty.Batches[0].Columns[ColOffset].Int64s = clean.Batches[0].Columns[ColOffset].Int64s
	for i, c := range dirty.Batches[0].Columns {
		if a, b := showFloats(reflect.ValueOf(c)), showFloats(reflect.ValueOf(clean.Batches[0].Columns[i])); a != b {
			t.Errorf("column %d:\n got %s\nwant %s", i, a, b)
		}
	}
}

func TestDuplicatesAreAskedLast(t *testing.T) {
	w := newWorld(t, Features)
	var asked []string
	w.unit.Seen = func(s *Schema, id []byte, offset int64, index int32) bool {
		asked = append(asked, fmt.Sprintf("%s %s %d", s.Subject, id, offset))
		return offset == 2
	}
	withID := strings.Replace(feature(`{"a":1}`), `"view"`, `"id":"e1","view"`, 1)
	u := w.decode(withID, strings.Replace(withID, `{"a":1}`, `{"a":"x"}`, 1), withID, feature(`{"a":1}`))
	if u.Counts != (Counts{Records: 4, Rows: 2, DeadLetters: 1, Duplicates: 1}) {
		t.Errorf("%+v", u.Counts)
	}
	if want := []string{"user e1 0", "user e1 2"}; !slices.Equal(asked, want) {
		t.Errorf("asked %v, want %v", asked, want)
	}
	if got := u.Batches[0].Columns[ColOffset].Int64s; !slices.Equal(got, []int64{0, 3}) {
		t.Errorf("offsets %v", got)
	}
}

func TestWindowsAndLedger(t *testing.T) {
	w := newWorld(t, Features)
	at := func(view, when string) string {
		return fmt.Sprintf(`{"view":%q,"key":1,"event_time":%q,"values":{},"extra":1}`, view, when)
	}
	texts := []string{at("a", "2026-03-01T11:00:59.9Z"), at("b", "2026-03-01T11:00:00Z"), at("a", "2026-03-01T11:01:00Z"), at("a", "2026-03-01T11:00:00Z"),
		at("a", "1969-12-31T23:59:59.999999Z"), at("a", "2036-03-01T11:00:00Z")}
	u := w.decode(texts...)
	minute := testClock/60_000_000 - 60
	want := []DirtyWindow{{Features, 1, -1}, {Features, 1, minute}, {Features, 1, minute + 1}, {Features, 2, minute}}
	if got := u.Windows(); !slices.Equal(got, want) {
		t.Errorf("windows %v, want %v", got, want)
	}
	l := u.Ledger()
	if l.Records != 6 || l.Rows != 5 || l.DeadLetters != 1 || !reflect.DeepEqual(l.Tables, map[string]int64{"features_1": 4, "features_2": 1}) {
		t.Errorf("%+v", l)
	}
	if l.MaxEventTime != testClock-59*60_000_000 || l.MinKnownAt != testClock || l.MaxKnownAt != testClock || l.Decoder != DecoderVersion {
		t.Errorf("%+v", l)
	}
	if u.Counts.Unknown != 5 {
		t.Errorf("unknown members %d", u.Counts.Unknown)
	}
	w.unit.Reset(w.cat)
	if len(u.Windows()) != 0 || len(u.Batches) != 0 || u.Counts != (Counts{}) {
		t.Errorf("after reset: %+v", u)
	}
	if got := w.decode(texts[4]).Windows(); len(got) != 1 {
		t.Errorf("a minute that was dirty before the reset is not marked again: %v", got)
	}
}

func TestUnitGoesOnWithAnotherTopic(t *testing.T) {
	w := newWorld(t, Features)
	text := `{"view":"a","key":1,"event_time":"2026-03-01T11:00:00Z","values":{}}`
	w.decode(text)
	w.unit.Topic = "shop.users"
	if got := w.decode(text).Batches[0].Topic; got != "shop.users" {
		t.Errorf("rows of shop.users are said to be of %s", got)
	}
}

func TestKnownAtComesFromEventThenRecordThenBroker(t *testing.T) {
	w := newWorld(t, Features)
	own := strings.Replace(feature("{}"), `"view"`, `"known_at":"2026-03-01T10:00:00Z","view"`, 1)
	late := strings.Replace(feature("{}"), `"view"`, `"known_at":"2026-03-02T10:00:00Z","view"`, 1)
	w.decode(own)
	w.unit.Reset(w.cat)
	w.d.Decode(w.unit, Record{Time: testClock, KnownAt: 5, Value: []byte(own)})
	w.d.Decode(w.unit, Record{Time: testClock, KnownAt: 5, Value: []byte(feature("{}"))})
	w.d.Decode(w.unit, Record{Time: testClock, Value: []byte(feature("{}"))})
	w.d.Decode(w.unit, Record{Time: testClock, Value: []byte(late)})
	if got := w.unit.Batches[0].Columns[ColKnownAt].Int64s; !slices.Equal(got, []int64{testClock - 7200_000_000, 5, testClock}) {
		t.Errorf("known_at %v", got)
	}
	if got := deadReasons(w.unit); !slices.Equal(got, []string{"0 future"}) {
		t.Errorf("dead %v", got)
	}
}

// TestContentIsAFunctionOfTheRecords decodes the same records twice, with
// other records before, in other units and with a reused decoder.
func TestContentIsAFunctionOfTheRecords(t *testing.T) {
	texts := append(typedTexts(Features), moreTexts()...)
	w := newWorld(t, Features, fuzzDefs()...)
	first := snapshot(w.decode(texts...))
	w.decode(badTexts()...)
	if second := snapshot(w.decode(texts...)); second != first {
		t.Errorf("a reused decoder gives other rows:\n%s\n%s", first, second)
	}
	fresh := newWorld(t, Features, w.defs...)
	if third := snapshot(fresh.decode(texts...)); third != first {
		t.Errorf("a fresh decoder gives other rows:\n%s\n%s", first, third)
	}
}

func snapshot(u *Unit) string {
	var b bytes.Buffer
	for _, batch := range u.Batches {
		fmt.Fprintln(&b, batch.Schema.Table())
		for i := range batch.Columns {
			fmt.Fprintln(&b, showFloats(reflect.ValueOf(batch.Columns[i])))
		}
	}
	for _, d := range u.Dead {
		fmt.Fprintf(&b, "%d %s %s\n", d.Offset, d.Reason, d.Detail)
	}
	return b.String()
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	prediction := moreTexts()[17]
	for kind, text := range map[Kind]string{Features: wrap(Features, `{"int64":1,"string":"é\n","strings":["a"],"json":{"x":[1]},"bytes":"aGk=","timestamp":"2026-01-01T00:00:00Z","other":1}`),
		Predictions: prediction, Labels: wrap(Labels, "true")} {
		w := newWorld(t, kind, fuzzDefs()...)
		w.decode(text)
		value := []byte(text)
		n := testing.AllocsPerRun(200, func() {
			w.unit.Reset(w.cat)
			for i := range 10 {
				w.d.Decode(w.unit, Record{Offset: int64(i), Time: testClock, Value: value})
			}
		})
		if n != 0 || w.unit.Counts.Rows != 10 {
			t.Errorf("%s: %v allocations, %+v", kind, n, w.unit.Counts)
		}
	}
}

// TestHintsAreNotFooledByNames has a column whose name looks like a member.
func TestHintsAreNotFooledByNames(t *testing.T) {
	w := newWorld(t, Features)
	u := w.decode(feature(`{"a\":1,\"b":5}`), feature(`{"a":1,"b":2}`), feature(`{"b":3,"a":4}`))
	var got []string
	for row := range u.Batches[0].FeatureRows() {
		got = append(got, string(appendNamed(nil, row.Values, "")))
	}
	want := []string{`{"a\":1,\"b":5,"a":null,"b":null}`, `{"a\":1,\"b":null,"a":1,"b":2}`, `{"a\":1,\"b":null,"a":4,"b":3}`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestMapNamesAreDistinctInEveryRow(t *testing.T) {
	p := func(scores string) string {
		return `{"model":"m","version":"1","id":"p","event_time":"2026-03-01T11:00:00Z","inputs":{},"output":{"scores":` + scores + `}}`
	}
	u := newWorld(t, Predictions).decode(p(`{"a":1,"b":2}`), p(`{"a":1,"b":2}`), p(`{"a":1,"a":2}`), p(`{"b":1,"a":2}`))
	if got := deadReasons(u); !slices.Equal(got, []string{"2 malformed"}) || u.Counts.Rows != 3 {
		t.Errorf("%v", u.Dead)
	}
}
