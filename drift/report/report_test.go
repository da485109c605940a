package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/query"
)

// hostile closes whatever a text may stand in, and opens what may not be there.
const hostile = `x"'></title></text></style><script>alert(1)</script><img src=x onerror=alert(1)><!--`

// fill puts the hostile text into every text that a value has, one element into
// every list.
func fill(v reflect.Value) int {
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
		return 1
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		return fill(v.Index(0)) + fill(v.Index(1))
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_800_000_000, 0)))
			return 0
		}
		n := 0
		for i := range v.NumField() {
			n += fill(v.Field(i))
		}
		return n
	}
	return 0
}

// Whatever columns, categories, versions, people and reasons are called, the
// page holds no element that was not the template's.
func TestNothingIsInjected(t *testing.T) {
	var d, plain Data
	texts := fill(reflect.ValueOf(&d).Elem())
	var page, calm bytes.Buffer
	if err := Write(&page, d); err != nil {
		t.Fatal(err)
	}
	fill(reflect.ValueOf(&plain).Elem())
	b, err := json.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	quoted, _ := json.Marshal(hostile)
	if err := json.Unmarshal(bytes.ReplaceAll(b, quoted, []byte(`"word"`)), &plain); err != nil {
		t.Fatal(err)
	}
	if err := Write(&calm, plain); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"<", "<script", "<img", "<!--", "</style", "onerror=alert(1)>"} {
		if got, want := strings.Count(page.String(), tag), strings.Count(calm.String(), tag); got != want {
			t.Errorf("%d of %q in a page of hostile texts, %d in one of words", got, tag, want)
		}
	}
	if shown := strings.Count(page.String(), "&lt;script&gt;"); texts < 20 || shown < 20 {
		t.Errorf("%d texts, %d of them shown: the test fills nothing", texts, shown)
	}
}

// What is asked for is refused before anybody is asked; what is asked is about
// the two versions.
func TestGatherAsksOfTwoVersions(t *testing.T) {
	for _, bad := range []About{{}, {View: "a", Model: "b"}, {Model: "b", Version: "2"}, {View: "a", Version: "1", Against: "2"}, {View: "a", From: time.Unix(2, 0), To: time.Unix(1, 0)}} {
		if _, err := Gather(t.Context(), bad, nil); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	asked, nobody := "", false
	answer := func(_ context.Context, r query.Request) ([]query.Frame, error) {
		switch r.Kind {
		case "monitors":
			if nobody {
				return nil, nil
			}
			return []query.Frame{{Columns: []query.Column{{Name: "state", Values: []string{"watching"}}, {Name: "reference", Values: []string{""}}}}}, nil
		case "version_compare":
		default:
			return nil, nil
		}
		asked = fmt.Sprint(r.Version, " ", string(r.Params))
		half := 0.5
		return []query.Frame{
			{Columns: []query.Column{{Name: "column", Values: []string{"x"}}, {Name: "differs", Values: []bool{true}}, {Name: "effect", Values: []float64{0.4}}, {Name: "sentence", Values: []string{"x moved"}}}},
			{Columns: []query.Column{{Name: "metric", Values: []string{"roc_auc"}}, {Name: "value", Values: []*float64{&half}}, {Name: "against", Values: []*float64{nil}}}},
		}, nil
	}
	d, err := Gather(t.Context(), About{Model: "m", Version: "2", Against: "1"}, answer)
	if err != nil || asked != `2 {"against":"1"}` {
		t.Fatalf("asked %q: %v", asked, err)
	}
	nobody = true
	if _, err := Gather(t.Context(), About{Model: "m"}, answer); !errors.Is(err, ErrUnwatched) {
		t.Errorf("a page about what nobody watches: %v", err)
	}
	var page bytes.Buffer
	if err := Write(&page, *d); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Version 2 against 1", "x moved", "differs", "roc_auc"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("no %q in the page", want)
		}
	}
}

func TestLengthsAreShort(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Minute: "1m", 15 * time.Minute: "15m", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m", 90 * time.Second: "1m30s"} {
		if got := length(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
	}
}
