package ingest

import (
	"strings"
	"testing"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/stream"
)

// TestPlan goes through what a member can find when it is given a partition.
func TestPlan(t *testing.T) {
	none := stream.Committed{Offset: -1}
	at := func(o int64) stream.Committed { return stream.Committed{Offset: o} }
	log := stream.Offsets{First: 0, Last: 1000}
	ledger := func(rs ...event.EpochRange) []event.EpochRange { return rs }
	last := &mark{Offset: 90, Time: 7}
	unit := func(a, b int64) intent {
		return intent{Version: 1, From: a, To: b, Decoder: event.DecoderVersion, Registry: 5, Last: last}
	}
	idle := func(epoch int32) intent { return intent{Version: 1, Epoch: epoch, Last: last} }
	fresh := func(i intent) intent { i.Last = nil; return i }
	inEpoch := func(e int32, i intent) intent { i.Epoch = e; return i }
	ends := func(next int64) []event.EpochRange { return ledger(event.EpochRange{Epoch: 0, First: 0, Next: next}) }

	for _, c := range []struct {
		name   string
		s      standing
		want   plan   // epoch, from, replay, trim; texts by prefix below
		reopen string // part of
		refuse string
	}{
		{name: "first start", s: standing{commit: none}, want: plan{from: 0}},
		{name: "first start behind retention", s: standing{commit: none, log: stream.Offsets{First: 40, Last: 90}}, want: plan{from: 40}},
		{name: "first start where an operator set the group", s: standing{commit: at(50)}, want: plan{from: 50}},
		{name: "very first unit pending", s: standing{commit: at(0), own: true, intent: fresh(unit(0, 9))}, want: plan{from: 0, replay: true}},
		{name: "idle before the first unit", s: standing{commit: at(0), own: true, intent: fresh(idle(0))}, want: plan{from: 0}},
		{name: "store emptied", s: standing{commit: at(100), own: true, intent: unit(100, 120)}, want: plan{from: 0}, reopen: "store was emptied"},
		{name: "clean stop", s: standing{commit: at(100), own: true, intent: idle(0), ledger: ends(100)}, want: plan{from: 100}},
		{name: "unit pending", s: standing{commit: at(100), own: true, intent: unit(100, 120), ledger: ends(100)}, want: plan{from: 100, replay: true}},
		{name: "unit done, next intent not committed", s: standing{commit: at(100), own: true, intent: unit(100, 120), ledger: ends(121)}, want: plan{from: 121}},
		{name: "group offset expired", s: standing{commit: none, ledger: ends(100)}, want: plan{from: 100}},
		{name: "broker forgot commits", s: standing{commit: at(60), own: true, intent: unit(60, 70), ledger: ends(100)}, want: plan{from: 100}},
		{name: "broker forgot an idle commit", s: standing{commit: at(60), own: true, intent: idle(0), ledger: ends(100)}, want: plan{from: 100}},
		{name: "ledger ends inside the pending unit", s: standing{commit: at(60), own: true, intent: unit(60, 120), ledger: ends(100)}, want: plan{from: 100}},
		{name: "store restored from before, unit pending", s: standing{commit: at(100), own: true, intent: unit(100, 120), ledger: ends(50)}, want: plan{from: 50}, reopen: "restored from before"},
		{name: "store restored from before, idle", s: standing{commit: at(100), own: true, intent: idle(0), ledger: ends(50)}, want: plan{from: 50}, reopen: "lost units"},
		{name: "operator set the group back", s: standing{commit: at(50), ledger: ends(100)}, refuse: "set to 50 by other means, the ledger ends at 100"},
		{name: "operator set the group forward", s: standing{commit: at(150), ledger: ends(100)}, refuse: "open an epoch from 150"},
		{name: "operator set the group to the ledger's end", s: standing{commit: at(100), ledger: ends(100)}, want: plan{from: 100}},
		{name: "decoder changed under a pending unit", s: standing{commit: at(100), own: true, intent: func() intent { i := unit(100, 120); i.Decoder = 99; return i }(), ledger: ends(100)},
			want: plan{from: 100}, reopen: "decoder 99"},
		{name: "registry shorter than the pending unit's", s: standing{commit: at(100), own: true, registry: -1, intent: unit(100, 120), ledger: ends(100)}, want: plan{from: 100}, reopen: "registry offset 5"},
		{name: "retention overtook the pending unit", s: standing{commit: at(100), own: true, intent: unit(100, 120), ledger: ends(100), log: stream.Offsets{First: 110, Last: 200}},
			want: plan{from: 100}, reopen: "retention removed"},
		{name: "broker lost records of the pending unit", s: standing{commit: at(100), own: true, intent: unit(100, 120), ledger: ends(100), log: stream.Offsets{First: 0, Last: 120}}, refuse: "the broker lost records"},
		{name: "topic recreated, shorter", s: standing{commit: at(100), own: true, intent: idle(0), ledger: ends(100), log: stream.Offsets{First: 0, Last: 30}}, refuse: "ends at 30"},
		{name: "topic recreated, longer", s: standing{commit: at(100), own: true, intent: idle(0), ledger: ends(100), strange: true}, refuse: "deleted and created again"},
		{name: "topic recreated, epoch opened", s: standing{commit: at(100), own: true, intent: idle(0), ledger: ends(100), strange: true, version: 1, opened: EpochSpec{Epoch: 1, From: LogStart}},
			want: plan{epoch: 1, from: 0, trim: []orphans{{0, 100}}}},
		{name: "epoch opened backwards", s: standing{commit: at(100), own: true, intent: unit(100, 120), ledger: ends(100), version: 1, opened: EpochSpec{Epoch: 1, From: 40}},
			want: plan{epoch: 1, from: 40, trim: []orphans{{0, 100}}}},
		{name: "epoch opened to replace a broken unit that is in the ledger", s: standing{commit: at(80), own: true, intent: unit(80, 99), ledger: ends(100), version: 1, opened: EpochSpec{Epoch: 1, From: 80, Replace: true}},
			want: plan{epoch: 1, from: 80, trim: []orphans{{0, 80}}}},
		{name: "epoch opened to replace a broken unit that is not in the ledger", s: standing{commit: at(100), own: true, intent: unit(100, 120), ledger: ends(100), version: 1, opened: EpochSpec{Epoch: 1, From: 100, Replace: true}},
			want: plan{epoch: 1, from: 100, trim: []orphans{{0, 100}}}},
		{name: "epoch opened to replace a broken unit of an epoch without ledger rows", s: standing{commit: at(40), own: true, intent: inEpoch(1, fresh(unit(40, 60))), ledger: ends(100), version: 2, opened: EpochSpec{Epoch: 2, From: 40, Replace: true}},
			want: plan{epoch: 2, from: 40, trim: []orphans{{0, 100}, {1, 0}}}},
		{name: "opened epoch under way", s: standing{commit: at(40), own: true, intent: inEpoch(1, fresh(unit(40, 60))), ledger: ends(100), version: 1, opened: EpochSpec{Epoch: 1, From: 40}},
			want: plan{epoch: 1, from: 40, replay: true, trim: []orphans{{0, 100}}}},
		{name: "opened epoch entered, idle", s: standing{commit: at(40), own: true, intent: inEpoch(1, fresh(idle(1))), ledger: ends(100), version: 1, opened: EpochSpec{Epoch: 1, From: 40}},
			want: plan{epoch: 1, from: 40, trim: []orphans{{0, 100}}}},
		{name: "opened epoch in the ledger", s: standing{commit: at(80), own: true, intent: inEpoch(1, unit(80, 90)), version: 1, opened: EpochSpec{Epoch: 1, From: 40},
			ledger: ledger(event.EpochRange{Epoch: 0, First: 0, Next: 100}, event.EpochRange{Epoch: 1, First: 40, Next: 80})}, want: plan{epoch: 1, from: 80, replay: true}},
		{name: "opened epochs skipped over", s: standing{commit: at(100), own: true, intent: idle(0), ledger: ends(100), version: 1, opened: EpochSpec{Epoch: 3, From: 100}},
			want: plan{epoch: 3, from: 100, trim: []orphans{{0, 100}, {1, 0}, {2, 0}}}},
		{name: "store restored to before the opened epoch", s: standing{commit: at(80), own: true, intent: inEpoch(1, unit(80, 90)), ledger: ends(70), version: 1, opened: EpochSpec{Epoch: 1, From: 40}},
			want: plan{epoch: 1, from: 40, trim: []orphans{{0, 70}}}, reopen: "restored from before"},
		{name: "registry restored from before", s: standing{commit: at(80), own: true, intent: inEpoch(1, unit(80, 90)), ledger: ends(70)}, want: plan{from: 70}, reopen: "epoch 1"},
		{name: "commit of an older epoch", s: standing{commit: at(90), own: true, intent: idle(0), version: 1, opened: EpochSpec{Epoch: 1, From: 40},
			ledger: ledger(event.EpochRange{Epoch: 0, First: 0, Next: 100}, event.EpochRange{Epoch: 1, First: 40, Next: 80})}, want: plan{epoch: 1, from: 80}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.s.log == (stream.Offsets{}) {
				c.s.log = log
			}
			if c.s.registry == 0 {
				c.s.registry = 10
			}
			got := makePlan(c.s)
			comparePlans(t, got, c.want, c.reopen, c.refuse)
		})
	}
}

func comparePlans(t *testing.T, got, want plan, reopen, refuse string) {
	t.Helper()
	if (got.reopen == "") != (reopen == "") || !strings.Contains(got.reopen, reopen) {
		t.Errorf("reopen %q, want %q", got.reopen, reopen)
	}
	if (got.refuse == "") != (refuse == "") || !strings.Contains(got.refuse, refuse) {
		t.Errorf("refuse %q, want %q", got.refuse, refuse)
	}
	if refuse != "" {
		return
	}
	if got.from != want.from || reopen == "" && (got.epoch != want.epoch || got.replay != want.replay) {
		t.Errorf("got epoch %d from %d replay %v, want %d, %d, %v", got.epoch, got.from, got.replay, want.epoch, want.from, want.replay)
	}
	if len(got.trim) != len(want.trim) {
		t.Fatalf("trim %v, want %v", got.trim, want.trim)
	}
	for i := range want.trim {
		if got.trim[i] != want.trim[i] {
			t.Errorf("trim %v, want %v", got.trim, want.trim)
		}
	}
}

func TestIntentMetadata(t *testing.T) {
	i := intent{Version: 1, Epoch: 3, From: 1 << 60, To: 1<<60 + 100_000, Decoder: 1, Registry: -1, Window: 1_000_000, Last: &mark{1<<60 - 1, 1 << 52}}
	text := i.encode()
	if len(text) > 512 {
		t.Errorf("%d bytes of metadata; brokers take 4096 unless set otherwise", len(text))
	}
	got, own, err := parseIntent(text)
	if err != nil || !own || *got.Last != *i.Last || got.To != i.To || got.Registry != -1 || !got.pending() {
		t.Errorf("%s reads as %+v, %v, %v", text, got, own, err)
	}
	for _, foreign := range []string{"", "checkpoint", "{}", `{"v":0}`, `[1]`} {
		if _, own, err := parseIntent(foreign); own || err != nil {
			t.Errorf("%q: own %v, %v", foreign, own, err)
		}
	}
	if _, own, err := parseIntent(`{"v":2,"x":1}`); !own || err == nil || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("newer metadata: %v, %v", own, err)
	}
}

func FuzzParseIntent(f *testing.F) {
	f.Add(intent{Epoch: 1, From: 2, To: 3, Decoder: 1}.encode())
	f.Fuzz(func(t *testing.T, s string) {
		i, own, err := parseIntent(s)
		if own && err == nil {
			again, own, err := parseIntent(i.encode())
			if !own || err != nil || again.From != i.From || again.To != i.To || again.Epoch != i.Epoch {
				t.Fatalf("%q: %+v then %+v, %v, %v", s, i, again, own, err)
			}
		}
	})
}

func TestParseTopic(t *testing.T) {
	for topic, want := range map[string]Route{
		"kedge.default.features":  {Namespace: "default", Kind: event.Features},
		"kedge.a.b.predictions":   {Namespace: "a.b", Kind: event.Predictions},
		"kedge.team_x.labels":     {Namespace: "team_x", Kind: event.Labels},
		"kedge.registry":          {},
		"kedge.default.alerts":    {},
		"other.default.features":  {},
		"kedge..features":         {},
		"kedge.features.features": {Namespace: "features", Kind: event.Features},
	} {
		if got, ok := ParseTopic(topic); ok != (want != Route{}) || ok && got != want {
			t.Errorf("%s: %+v, %v", topic, got, ok)
		}
	}
}
