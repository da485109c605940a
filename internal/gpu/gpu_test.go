package gpu

import (
	"math"
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	counted, integrated := new(Meter), new(Meter)
	for i := range 11 {
		d := Device{Power: 360, Energy: 1000 + 720*float64(i), Utilization: 0.9}
		if i > 5 {
			d.Utilization = 0
		}
		now := start.Add(time.Duration(i) * time.Second)
		counted.Add(now, d)
		d.Energy = 0
		integrated.Add(now, d)
	}
	u := counted.Usage()
	if u.Held != 10*time.Second || u.Idle != 5*time.Second || math.Abs(u.EnergyKWh-0.002) > 1e-12 {
		t.Errorf("%+v", u)
	}
	if u := integrated.Usage(); math.Abs(u.EnergyKWh-0.001) > 1e-12 {
		t.Errorf("integrated %+v", u)
	}
	if u := new(Meter).Usage(); u != (Usage{}) {
		t.Errorf("no readings: %+v", u)
	}
}
