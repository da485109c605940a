//go:build cgo && linux

package gpu

import (
	"errors"
	"math"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	"github.com/kedge-ml/kedge/internal/testenv"
)

func TestInventoryOfMockedServer(t *testing.T) {
	host := dgxa100.New()
	for _, d := range host.Devices { // what the mock leaves out
		d := d.(*server.Device)
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 50}, nvml.SUCCESS }
		d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 400_000, nvml.SUCCESS }
		d.GetTotalEnergyConsumptionFunc = func() (uint64, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	}
	inv, err := open(host)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := inv.Devices()
	if err != nil || len(devices) != 8 {
		t.Fatalf("%d devices, %v", len(devices), err)
	}
	for i, d := range devices {
		if d.Index != i || d.UUID == "" || d.Memory == 0 || d.Utilization != 0.5 || d.Power != 400 || d.Energy != 0 {
			t.Errorf("device %d: %+v", i, d)
		}
	}
}

// A run holds a GPU for ten minutes and works on it in the first four.
func TestWatchCountsIdleTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		host := dgxa100.New()
		d := host.Devices[0].(*server.Device)
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
			if time.Since(begin) <= 4*time.Minute {
				return nvml.Utilization{Gpu: 90}, nvml.SUCCESS
			}
			return nvml.Utilization{}, nvml.SUCCESS
		}
		d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 300_000, nvml.SUCCESS }
		d.GetTotalEnergyConsumptionFunc = func() (uint64, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
		for _, other := range host.Devices[1:] {
			o := other.(*server.Device)
			o.GetUtilizationRatesFunc, o.GetPowerUsageFunc, o.GetTotalEnergyConsumptionFunc = d.GetUtilizationRatesFunc, d.GetPowerUsageFunc, d.GetTotalEnergyConsumptionFunc
		}
		inv, err := open(host)
		if err != nil {
			t.Fatal(err)
		}
		used := Watch(t.Context(), inv, nil, time.Second)
		list, err := inv.Devices()
		if err != nil {
			t.Fatal(err)
		}
		usedThree := Watch(t.Context(), inv, []string{list[2].UUID, list[5].UUID, list[7].UUID, "GPU-absent"}, time.Second)
		usedNone := Watch(t.Context(), inv, []string{}, time.Second)
		time.Sleep(10*time.Minute + time.Millisecond)
		u := used()
		if three := usedThree(); three.Held.Round(time.Second) != 30*time.Minute || three.Idle.Round(time.Second) != 18*time.Minute || math.Abs(three.EnergyKWh-0.15) > 1e-6 {
			t.Errorf("three devices: %+v", three)
		}
		if none := usedNone(); none != (Usage{}) {
			t.Errorf("no device: %+v", none)
		}
		if u.Held != 10*time.Minute+time.Millisecond || u.Idle != 6*time.Minute+time.Millisecond || math.Abs(u.EnergyKWh-0.05) > 1e-6 {
			t.Errorf("%+v, want 10m held, 6m of them idle, 300 W for 10 minutes", u)
		}
	})
}

func TestNoGPUSaysWhy(t *testing.T) {
	for name, lib := range map[string]nvml.Interface{
		"no library": &mock.Interface{InitFunc: func() nvml.Return { return nvml.ERROR_LIBRARY_NOT_FOUND }},
		"not loaded": &mock.Interface{InitFunc: func() nvml.Return { return nvml.ERROR_DRIVER_NOT_LOADED }},
		"unknown":    &mock.Interface{InitFunc: func() nvml.Return { return nvml.ERROR_UNKNOWN }},
	} {
		_, err := open(lib)
		if !errors.Is(err, ErrNoGPU) {
			t.Errorf("%s: %v", name, err)
		}
		t.Log(err)
	}
	inv, err := open(&mock.Interface{
		InitFunc:           func() nvml.Return { return nvml.SUCCESS },
		DeviceGetCountFunc: func() (int, nvml.Return) { return 0, nvml.SUCCESS },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inv.Devices(); !errors.Is(err, ErrNoGPU) {
		t.Errorf("an empty machine answers %v", err)
	}
	if _, err := OpenLibrary("/nonexistent/libnvidia-ml.so"); !errors.Is(err, ErrNoGPU) {
		t.Errorf("no library: %v", err)
	}
}

// The real loader on a library that pretends to be the driver's.
func TestInventoryOfFakeLibrary(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		testenv.Skip(t, testenv.NoTool, "no C compiler")
	}
	lib := filepath.Join(t.TempDir(), "libfake.so")
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-o", lib, "testdata/fake.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	inv, err := OpenLibrary(lib)
	if err != nil {
		t.Fatal(err)
	}
	defer inv.Close()
	devices, err := inv.Devices()
	if err != nil || len(devices) != 2 {
		t.Fatalf("%+v, %v", devices, err)
	}
	want := Device{Index: 0, UUID: "GPU-1", Name: "Fake GPU", Memory: 1000, MemoryUsed: 400, Utilization: 0.25, Power: 70.5, Energy: 123.456}
	if devices[0] != want {
		t.Errorf("got %+v", devices[0])
	}
	if devices[1].Energy != 0 || devices[1].Power != 70.5 {
		t.Errorf("got %+v", devices[1])
	}
}

// Runs where there is a GPU.
func TestRealGPU(t *testing.T) {
	inv, err := Open()
	if err != nil {
		testenv.Skip(t, testenv.NoGPU, "%v", err)
	}
	defer inv.Close()
	devices, err := inv.Devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		if d.Name == "" || d.Memory == 0 {
			t.Errorf("%+v", d)
		}
		t.Logf("%+v", d)
	}
}
