// Package gpu says which GPUs this machine has and what they are doing.
//
// Holds: the inventory and its readings, and a meter that turns readings into
// the energy and idle time of one run. Promises: a machine without a GPU, a
// driver or cgo answers [ErrNoGPU] with the reason, never an empty list that
// looks like success. Units: bytes, watts, joules, shares from 0 to 1.
// May not: change any setting of a device.
package gpu

import (
	"context"
	"errors"
	"slices"
	"time"
)

// ErrNoGPU means that no GPU can be used here; the wrapping text says why.
var ErrNoGPU = errors.New("no GPU")

// Device is one GPU and its readings at one moment. A reading that the device
// does not give is 0.
type Device struct {
	Index       int     `json:"index"`
	UUID        string  `json:"uuid"`
	Name        string  `json:"name"`
	Memory      uint64  `json:"memory_bytes"`
	MemoryUsed  uint64  `json:"memory_used_bytes"`
	Utilization float64 `json:"utilization"` // share of the last sample period with work on it
	Power       float64 `json:"power_watts"`
	Energy      float64 `json:"energy_joules"` // since the driver was loaded
}

// idleBelow is the utilisation under which a held device counts as idle.
const idleBelow = 0.05

// Meter adds up what one run does to one device. Feed it readings; it has no
// clock of its own.
type Meter struct {
	first, last Device
	at          time.Time
	held, idle  time.Duration
	started     bool
	integrated  float64 // joules by power × time, where the device counts no energy
}

// Add notes a reading taken at now.
func (m *Meter) Add(now time.Time, d Device) {
	if !m.started {
		m.first, m.started = d, true
	} else if passed := now.Sub(m.at); passed > 0 {
		m.held += passed
		if d.Utilization < idleBelow {
			m.idle += passed
		}
		m.integrated += d.Power * passed.Seconds()
	}
	m.last, m.at = d, now
}

// Usage is what a run cost on one device.
type Usage struct {
	Held      time.Duration // from the first to the last reading
	Idle      time.Duration // of it, with nothing running
	EnergyKWh float64
}

// Usage returns the sums so far. Energy is the difference of the device's own
// counter where it has one, else power integrated over the readings.
func (m *Meter) Usage() Usage {
	const joulesPerKWh = 3.6e6
	joules := m.last.Energy - m.first.Energy
	if m.last.Energy == 0 || joules < 0 { // no counter, or the driver was reloaded
		joules = m.integrated
	}
	return Usage{Held: m.held, Idle: m.idle, EnergyKWh: joules / joulesPerKWh}
}

// Watch reads devices at once, then every so often, and a last time when the
// function that it returns is called: that answers what was used meanwhile,
// added up over them, also of a run shorter than the interval. They are named by
// their UUIDs; nil: the first one. A reading that fails is left out.
func Watch(ctx context.Context, inv *Inventory, uuids []string, every time.Duration) func() Usage {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	meters := map[string]*Meter{}
	read := func() {
		list, _ := inv.Devices()
		now := time.Now()
		for _, d := range list {
			if uuids == nil && d.Index != 0 || uuids != nil && !slices.Contains(uuids, d.UUID) {
				continue
			}
			if meters[d.UUID] == nil {
				meters[d.UUID] = new(Meter)
			}
			meters[d.UUID].Add(now, d)
		}
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			read()
			select {
			case <-ctx.Done():
				read()
				return
			case <-tick.C:
			}
		}
	}()
	return func() (sum Usage) {
		cancel()
		<-done
		for _, m := range meters {
			u := m.Usage()
			sum.Held, sum.Idle, sum.EnergyKWh = sum.Held+u.Held, sum.Idle+u.Idle, sum.EnergyKWh+u.EnergyKWh
		}
		return sum
	}
}
