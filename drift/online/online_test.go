package online

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

func detectors() map[string]func() Detector {
	return map[string]func() Detector{
		"adwin":        func() Detector { return NewADWIN(DefaultADWIN()) },
		"page-hinkley": func() Detector { return NewPageHinkley(PageHinkleyConfig{30, 0.005, 5, 0.9999, Both}) },
		"ddm":          func() Detector { return NewDDM(DefaultDDM()) },
		"hddm-a":       func() Detector { return NewHDDMA(HDDMAConfig{0.001, 0.005, true}) },
	}
}

// errors draws a stream whose error rate rises from 5 to 40 percent.
func errors(n int) []float64 {
	rng := rand.New(rand.NewPCG(1, 1))
	out := make([]float64, n)
	for i := range out {
		rate := 0.05
		if i >= n/2 {
			rate = 0.4
		}
		if rng.Float64() < rate {
			out[i] = 1
		}
	}
	return out
}

// A watch stopped and read back goes on as if nothing had happened, and every
// watch finds the rise.
func TestStateSurvivesJSON(t *testing.T) {
	for name, make := range detectors() {
		whole, parted := make(), make()
		found := false
		for i, x := range errors(2000) {
			if i%97 == 0 {
				text, err := json.Marshal(parted)
				if err != nil {
					t.Fatal(err)
				}
				parted = make()
				if err := json.Unmarshal(text, parted); err != nil {
					t.Fatal(err)
				}
			}
			a, b := whole.Update(x), parted.Update(x)
			if a != b {
				t.Fatalf("%s: value %d gives %v, after a stop %v", name, i, a, b)
			}
			found = found || a == Drift && i >= 1000
		}
		if !found {
			t.Errorf("%s: the rise was not found", name)
		}
	}
}

func TestValuesThatAreNoNumbersAreIgnored(t *testing.T) {
	for name, make := range detectors() {
		plain, dirty := make(), make()
		for _, x := range errors(500) {
			plain.Update(x)
			for _, junk := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				if s := dirty.Update(junk); s != None {
					t.Errorf("%s: %v gives %v", name, junk, s)
				}
			}
			dirty.Update(x)
		}
		// a Drift clears on the next value, so the two may differ by that only
		if plain.Update(0) != dirty.Update(0) || !reflect.DeepEqual(plain, dirty) {
			t.Errorf("%s: states differ:\n%+v\n%+v", name, plain, dirty)
		}
	}
}
