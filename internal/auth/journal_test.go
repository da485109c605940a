package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/registry/memlog"
)

func lines(t *testing.T, log *memlog.Log) (out [][]byte) {
	t.Helper()
	end, err := log.End(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = log.Tail(t.Context(), 0, func(offset, _ int64, v []byte) error {
		if out = append(out, bytes.Clone(v)); offset == end-1 {
			return errRead
		}
		return nil
	})
	if !errors.Is(err, errRead) {
		t.Fatal(err)
	}
	return out
}

func logOf(t *testing.T, values [][]byte) *memlog.Log {
	t.Helper()
	log := memlog.New(nil)
	for _, v := range values {
		if _, err := log.Append(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	return log
}

// TestVerifyFindsPlantedEdits: two writers in turn; then every entry is edited,
// dropped, doubled, swapped, forged, with its hash and without.
func TestVerifyFindsPlantedEdits(t *testing.T) {
	log := memlog.New(nil)
	lost := func(e Entry, err error) { t.Errorf("%+v: %v", e, err) }
	a, b := NewJournal(log, lost), NewJournal(log, lost)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 2)
	for _, j := range []*Journal{a, b} {
		go func() { ran <- j.Run(ctx) }()
	}
	for n := range 12 {
		j := a
		if n%3 == 2 {
			j = b
		}
		e := Entry{Time: time.Now().UTC(), Subject: fmt.Sprint("ann ", n), What: "POST /v1/definitions", Allowed: n%2 == 0, Status: 200, Before: json.RawMessage(`{"x":"<a>"}`)}
		if err := j.Append(ctx, e); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); len(a.Newest("", 100, func(*Entry) bool { return true })) <= n || len(b.Newest("", 100, func(*Entry) bool { return true })) <= n; {
			if time.Now().After(deadline) {
				t.Fatal("a journal does not follow its log")
			}
			time.Sleep(time.Millisecond)
		}
	}
	stop()
	if err := errors.Join(<-ran, <-ran); err != nil {
		t.Error(err)
	}
	whole := lines(t, log)
	v, err := Verify(t.Context(), log)
	if err != nil || len(v.Faults) > 0 || v.Entries != 12 || v.Writers != 2 {
		t.Fatalf("as it was written: %+v, %v", v, err)
	}

	found := func(name string, values [][]byte) {
		t.Helper()
		v, err := Verify(t.Context(), logOf(t, values))
		if err != nil || len(v.Faults) == 0 {
			t.Errorf("%s: not found: %+v, %v", name, v, err)
		}
	}
	for i := range whole {
		with := func(v ...[]byte) [][]byte {
			return append(append(append([][]byte{}, whole[:i]...), v...), whole[i+1:]...)
		}
		edited := bytes.Replace(whole[i], []byte("ann"), []byte("bob"), 1)
		found(fmt.Sprint("edited ", i), with(edited))
		found(fmt.Sprint("a space added ", i), with(append([]byte(" "), whole[i]...)))
		found(fmt.Sprint("a member added ", i), with(bytes.Replace(whole[i], []byte(`{"time"`), []byte(`{"x":1,"time"`), 1)))
		found(fmt.Sprint("doubled ", i), with(whole[i], whole[i]))
		if i == len(whole)-1 {
			break // the end is what Head is kept elsewhere for
		}
		var e Entry
		if err := json.Unmarshal(edited, &e); err != nil {
			t.Fatal(err)
		}
		_, again, err := e.sealed()
		if err != nil {
			t.Fatal(err)
		}
		found(fmt.Sprint("edited and hashed anew ", i), with(again))
		found(fmt.Sprint("dropped ", i), with())
		swapped := append([][]byte{}, whole...)
		swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
		found(fmt.Sprint("swapped ", i), swapped)
	}
	cut, err := Verify(t.Context(), logOf(t, whole[:11]))
	if err != nil || cut.Head == v.Head {
		t.Errorf("the head of a log that was cut is the same: %v", err)
	}
}

// TestRefusalsDoNotWait: a journal whose log stands still loses refusals, says
// so, and holds nobody up.
func TestRefusalsDoNotWait(t *testing.T) {
	lost := 0
	j := NewJournal(memlog.New(nil), func(_ Entry, err error) {
		if strings.Contains(err.Error(), "more refusals") {
			lost++
		}
	})
	for range 5000 { // nobody runs it
		j.Refused(Entry{})
	}
	if lost != 5000-cap(j.queue) {
		t.Errorf("%d were told lost", lost)
	}
}
