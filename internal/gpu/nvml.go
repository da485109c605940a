//go:build cgo && linux

package gpu

import (
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Inventory reads NVIDIA GPUs through NVML. Close it.
type Inventory struct{ lib nvml.Interface }

// Open connects to the driver. It answers [ErrNoGPU] where there is none.
func Open() (*Inventory, error) { return open(nvml.New()) }

// OpenLibrary is Open with the path of the driver's library.
func OpenLibrary(path string) (*Inventory, error) {
	return open(nvml.New(nvml.WithLibraryPath(path)))
}

func open(lib nvml.Interface) (*Inventory, error) {
	if ret := lib.Init(); ret != nvml.SUCCESS {
		return nil, fmt.Errorf("%w: the NVIDIA driver answers: %s", ErrNoGPU, reason(ret))
	}
	return &Inventory{lib: lib}, nil
}

// reason does not ask the library for a text: it may be what is missing.
func reason(ret nvml.Return) string {
	switch ret {
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return "its library is not installed"
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return "it is not loaded"
	case nvml.ERROR_NO_PERMISSION:
		return "no permission"
	}
	return fmt.Sprintf("NVML error %d", int(ret))
}

// Devices reads all devices. An empty machine answers [ErrNoGPU].
func (i *Inventory) Devices() ([]Device, error) {
	n, ret := i.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("count GPUs: %s", reason(ret))
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: the driver lists none", ErrNoGPU)
	}
	out := make([]Device, 0, n)
	for k := range n {
		h, ret := i.lib.DeviceGetHandleByIndex(k)
		if ret != nvml.SUCCESS {
			return nil, fmt.Errorf("open GPU %d: %s", k, reason(ret))
		}
		out = append(out, read(k, h))
	}
	return out, nil
}

// read takes what a device gives; what it does not stays 0.
func read(index int, h nvml.Device) Device {
	d := Device{Index: index}
	if v, ret := h.GetUUID(); ret == nvml.SUCCESS {
		d.UUID = v
	}
	if v, ret := h.GetName(); ret == nvml.SUCCESS {
		d.Name = v
	}
	if v, ret := h.GetMemoryInfo(); ret == nvml.SUCCESS {
		d.Memory, d.MemoryUsed = v.Total, v.Used
	}
	if v, ret := h.GetUtilizationRates(); ret == nvml.SUCCESS {
		d.Utilization = float64(v.Gpu) / 100
	}
	if v, ret := h.GetPowerUsage(); ret == nvml.SUCCESS {
		d.Power = float64(v) / 1000
	}
	if v, ret := h.GetTotalEnergyConsumption(); ret == nvml.SUCCESS {
		d.Energy = float64(v) / 1000
	}
	return d
}

// Close disconnects from the driver.
func (i *Inventory) Close() error {
	if ret := i.lib.Shutdown(); ret != nvml.SUCCESS {
		return fmt.Errorf("close NVML: %s", reason(ret))
	}
	return nil
}
