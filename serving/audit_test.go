package serving

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRollbackReadsNothing goes back to the champion before when every artefact
// is gone: the previous version is still loaded.
func TestRollbackReadsNothing(t *testing.T) {
	h := newTrialHouse(t)
	h.apply(fmt.Sprintf(trialSpec, "1", "2", ""))
	h.live("1", "2")
	if _, err := h.rollouts.Promote(t.Context(), "m", "", "ann", "looks good"); err != nil {
		t.Fatal(err)
	}
	h.live("2", "")
	entries, err := os.ReadDir(h.dir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d artefacts, %v", len(entries), err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(h.dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if _, err := h.rollouts.Rollback(t.Context(), "m", "ann", "complaints"); err != nil { // the one call
		t.Fatal(err)
	}
	h.live("1", "")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("rolling back took %v", took)
	}
	if _, body, head := h.post("/v2/models/m/infer", askFor("f0", "[1]", "FP64", "[7]")); !strings.Contains(body, "[7.0]") || head.Get(variantHeader) != VariantChampion {
		t.Errorf("after the rollback: %s %v", body, head)
	}
	if _, err := h.rollouts.Promote(t.Context(), "m", "9", "ann", ""); !errors.Is(err, ErrUnknownVersion) {
		t.Errorf("a version that is not there: %v", err)
	}
}

// TestRollbacksWalkBack rolls back again and again: to the champion before, and the
// one before that, never forward to one that was rolled back.
func TestRollbacksWalkBack(t *testing.T) {
	h := newTrialHouse(t)
	h.apply(fmt.Sprintf(trialSpec, "1", "2", ""))
	h.live("1", "2")
	for _, step := range []string{"2", "3", "back 2", "back 1", "none", "3", "back 1", "none", "2", "1", "none"} {
		version, back := strings.CutPrefix(step, "back ")
		var err error
		switch {
		case step == "none":
			if _, err := h.rollouts.Rollback(t.Context(), "m", "ann", ""); !errors.Is(err, ErrRollout) {
				t.Fatalf("nothing is left to go back to: %v", err)
			}
			continue
		case back:
			_, err = h.rollouts.Rollback(t.Context(), "m", "ann", "complaints")
		default:
			_, err = h.rollouts.Promote(t.Context(), "m", version, "ann", "")
		}
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		h.live(version, "")
	}
	if got := champions([]Moment{{Spec: DeploymentSpec{Routing: Routing{Champion: "1"}}}, {Action: "deleted"}, {Action: "champion replaced", Spec: DeploymentSpec{Routing: Routing{Champion: "2"}}}}); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("over a deletion: %v", got)
	}
}

// TestPromotionWaits lets a canary that is surely better wait for what its
// guard-rails ask for, and then no longer.
func TestPromotionWaits(t *testing.T) {
	for name, c := range map[string]struct {
		rules string
		word  string                  // of why it waits
		then  func(h *trialHouse) int // fulfils the condition; seconds until the next look
		who   string                  // promotes in the end
	}{
		"cool-down":       {`,"cooldown":"1h"`, "stands for", func(*trialHouse) int { return 3600 }, GuardName},
		"minimum samples": {``, "want 200 of each", func(h *trialHouse) int { h.outcomes[0].Loss = losses(800, 0.3); return 1 }, GuardName},
		"approval": {`,"approval":true`, "difference -0.2", func(h *trialHouse) int {
			if _, err := h.rollouts.Promote(h.t.Context(), "m", "", "ann", "agreed"); err != nil {
				h.t.Error(err)
			}
			return 1
		}, "ann"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTrialHouse(t)
			h.apply(fmt.Sprintf(trialSpec, "1", "2", c.rules))
			h.live("1", "2")
			h.outcomes = []Outcome{{"1", "champion", 900, losses(800, 0.3)}, {"2", "canary", 900, losses(800, 0.1)}}
			if name == "minimum samples" {
				h.outcomes[0].Loss = losses(199, 0.3)
			}
			at := time.Now()
			for range 3 {
				at = at.Add(time.Second)
				h.guard.Tick(t.Context(), at)
			}
			h.live("1", "2")
			j, _ := h.guard.Last("m")
			if n := len(h.rollouts.History("m")); n != 1 || !strings.Contains(j.Sentence, c.word) || j.Awaits != (name == "approval") {
				t.Fatalf("%d entries, %+v", n, j)
			}
			at = at.Add(time.Duration(c.then(h)) * time.Second)
			h.guard.Tick(t.Context(), at)
			h.live("2", "")
			if m, err := h.rollouts.At("m", time.Now()); err != nil || m.Action != "promoted" || m.Who != c.who {
				t.Errorf("%+v %v", m, err)
			}
		})
	}
}

// aaSpec is an A/A test: one version, two arms.
const aaSpec = `{"versions":[{"version":"1","artifact":"$1"}],"champion":"1","experiment":{"name":"aa","arms":[{"version":"1","variant":"a","weight":1},{"version":"1","variant":"b","weight":1}]}}`

// TestAATest asks for entities over HTTP, each twice, the key once as header
// and once as parameter. Both meet one arm; the readout, over what was answered, finds
// no effect and no mismatch; with every tenth unit of an arm lost it says so, and with
// an effect planted it sees that: a readout that sees nothing would pass the rest.
func TestAATest(t *testing.T) {
	h := newTrialHouse(t)
	h.apply(aaSpec)
	h.live("1", "")
	const overHTTP, entities = 200, 40_000
	arm := func(entity string) string { return h.s.find("m").state.Load().routing.Route("", entity, 0).Variant }
	for i := range overHTTP {
		entity := fmt.Sprint("user-", i)
		body := askFor("f0", "[1]", "FP64", "[1]")
		_, _, byHeader := h.post("/v2/models/m/infer", body, entityHeader, entity)
		_, _, byParameter := h.post("/v2/models/m/infer", strings.Replace(body, "{", fmt.Sprintf(`{"parameters":{"entity":%q},`, entity), 1))
		if a, b := byHeader.Get(variantHeader), byParameter.Get(variantHeader); a != b || a != arm(entity) {
			t.Fatalf("%s met %s and %s, its arm is %s", entity, a, b, arm(entity))
		}
	}
	tally := func(lost int, effect float64) Readout {
		t.Helper()
		at := map[string]*Outcome{"a": {Version: "1", Variant: "a"}, "b": {Version: "1", Variant: "b"}}
		for i := range entities {
			entity := fmt.Sprint("user-", i)
			o := at[arm(entity)]
			if lost > 0 && o.Variant == "b" && i%lost == 0 {
				continue
			}
			o.Units++
			wrong := 0.0
			if p := unit(mix("truth", entity)); p < 0.3 || o.Variant == "b" && p < 0.3+effect {
				wrong = 1
			}
			o.Loss.N, o.Loss.Sum, o.Loss.SumOfSqs = o.Loss.N+1, o.Loss.Sum+wrong, o.Loss.SumOfSqs+wrong
		}
		h.outcomes = []Outcome{*at["a"], *at["b"]}
		r, err := h.guard.Readout(t.Context(), "m", "error")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := tally(0, 0); r.Mismatch || r.Arms[1].Low > 0 || r.Arms[1].High < 0 || r.Arms[0].Units+r.Arms[1].Units != entities {
		t.Errorf("A/A: %+v", r)
	}
	if r := tally(10, 0); !r.Mismatch {
		t.Errorf("a tenth of arm b is gone: evidence %v, %+v", r.Evidence, r.Arms)
	}
	if r := tally(0, 0.05); r.Mismatch || r.Arms[1].Low <= 0 {
		t.Errorf("arm b is worse by 0.05: %+v", r)
	}
}

// TestPins pins versions and variants by path, header and parameter; what is
// pinned stands apart from the trial's arms.
func TestPins(t *testing.T) {
	h := newTrialHouse(t)
	h.apply(fmt.Sprintf(trialSpec, "1", "2", ""))
	h.live("1", "2")
	body := askFor("f0", "[1]", "FP64", "[7]")
	with := func(name, value string) string {
		return strings.Replace(body, "{", fmt.Sprintf(`{"parameters":{%q:%q},`, name, value), 1)
	}
	for _, c := range []struct {
		path, body, want string
		header           []string
	}{
		{"/versions/3/infer", body, "[21.0]", nil},
		{"/infer", body, "[21.0]", []string{versionHeader, "3"}},
		{"/infer", with("version", "3"), "[21.0]", nil},
		{"/infer", body, "[14.0]", []string{variantHeader, "canary"}},
		{"/infer", with("variant", "canary"), "[14.0]", nil},
		{"/infer", with("variant", "champion"), "[7.0]", []string{variantHeader, "canary"}},
		{"/infer", with("version", "3"), "[21.0]", []string{variantHeader, "canary"}},
	} {
		for range 3 { // a canary at one half would show
			status, got, head := h.post("/v2/models/m"+c.path, c.body, c.header...)
			if status != 200 || !strings.Contains(got, c.want) || head.Get(variantHeader) != VariantPinned {
				t.Errorf("%s %v %.60s: %d %s %s, want %s", c.path, c.header, c.body, status, got, head.Get(variantHeader), c.want)
			}
		}
	}
	if status, got, _ := h.post("/v2/models/m/infer", with("variant", "b")); status != 404 || !strings.Contains(got, "no variant") {
		t.Errorf("a variant that is not there: %d %s", status, got)
	}
}

// TestWhatWasLive asks for every moment of a walk: between two changes the
// answer is the first of them.
func TestWhatWasLive(t *testing.T) {
	h := newTrialHouse(t)
	h.apply(fmt.Sprintf(trialSpec, "1", "2", ""))
	steps := []string{"1 2"}
	for _, step := range []func() (Moment, error){
		func() (Moment, error) { return h.rollouts.Promote(t.Context(), "m", "", "ann", "") },
		func() (Moment, error) { return h.rollouts.Rollback(t.Context(), "m", "bob", "") },
	} {
		m, err := step()
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, m.Spec.Champion+" ")
	}
	history := h.rollouts.History("m")
	for i, m := range history {
		until := m.At.Add(time.Hour)
		if i+1 < len(history) {
			until = history[i+1].At.Add(-time.Microsecond)
		}
		for _, at := range []time.Time{m.At, m.At.Add(until.Sub(m.At) / 2), until} {
			if at.Before(m.At) {
				continue // two changes in one microsecond
			}
			was, err := h.rollouts.At("m", at)
			live := was.Spec.Champion + " "
			if was.Spec.Canary != nil {
				live += was.Spec.Canary.Version
			}
			if err != nil || live != steps[i] {
				t.Errorf("at %v: %q %v, want %q", at, live, err, steps[i])
			}
		}
	}
}

// TestActionsAreNamedByWhatTheyDid holds the words of the history, of changes by
// files as of commands.
func TestActionsAreNamedByWhatTheyDid(t *testing.T) {
	canary := func(v string) *Split { return &Split{Version: v, Weight: 0.1} }
	test := &Experiment{Name: "e", Arms: []Split{{Version: "1", Weight: 1}, {Version: "2", Weight: 1}}}
	history := []Moment{{Spec: DeploymentSpec{Routing: Routing{Champion: "1"}}}}
	for _, step := range []struct {
		now  Routing
		want string
	}{
		{Routing{Champion: "1", Canary: canary("2")}, "canary began"},
		{Routing{Champion: "1", Canary: &Split{Version: "2", Weight: 0.5}}, "changed"},
		{Routing{Champion: "1", Experiment: test}, "experiment began"},
		{Routing{Champion: "1", Canary: canary("2")}, "canary began"},
		{Routing{Champion: "1", Canary: canary("3")}, "canary began"},
		{Routing{Champion: "1"}, "rolled back"},
		{Routing{Champion: "1", Canary: canary("2")}, "canary began"},
		{Routing{Champion: "2"}, "promoted"},
		{Routing{Champion: "1"}, "rolled back"},
		{Routing{Champion: "4"}, "champion replaced"},
		{Routing{Champion: "4", Shadows: []string{"1"}}, "changed"},
	} {
		now := DeploymentSpec{Routing: step.now}
		if got := actionOf(history, &now); got != step.want {
			t.Errorf("%+v after %+v: %q, want %q", step.now, history[len(history)-1].Spec.Routing, got, step.want)
		}
		history = append(history, Moment{Spec: now})
	}
}
