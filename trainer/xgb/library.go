// Package xgb calls XGBoost's C library, opened at run time, without cgo.
//
// Promises: every result is copied before another goroutine can reach the
// library's buffers. They and the last error are thread-local, and a Go
// routine may change threads between two calls, so each call and the copy of
// what it returned run under [runtime.LockOSThread]. Units: rows are float32,
// NaN is missing, categories are codes. May not: decide parameters.
package xgb

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// ErrNoLibrary means that libxgboost is not there or is no XGBoost library.
var ErrNoLibrary = errors.New("no XGBoost library")

// Environment is the variable that names the library's path.
const Environment = "KEDGE_LIBXGBOOST"

// Error is what the library answered instead of a result.
type Error struct {
	Call    string
	Message string
}

// Error returns the library's message without its stack trace.
func (e *Error) Error() string {
	text, _, _ := strings.Cut(e.Message, "\nStack trace")
	if _, after, ok := strings.Cut(text, "] "); ok && strings.HasPrefix(text, "[") {
		text = after // "[12:34:56] /src/file.cc:12: …"
	}
	return "xgboost " + e.Call + ": " + strings.TrimSpace(text)
}

// Library is an opened libxgboost. It stays open for the life of the process.
type Library struct {
	path string

	version           func(major, minor, patch *int32)
	lastError         func() string
	buildInfo         func(out **byte) int32
	registerLog       func(callback uintptr) int32
	setGlobal         func(config string) int32
	matrixFromDense   func(array, config string, out *uintptr) int32
	matrixSetInfo     func(h uintptr, field, array string) int32
	matrixSetStrings  func(h uintptr, field string, values **byte, n uint64) int32
	matrixFree        func(h uintptr) int32
	boosterCreate     func(mats *uintptr, n uint64, out *uintptr) int32
	boosterFree       func(h uintptr) int32
	boosterSetParam   func(h uintptr, name, value string) int32
	boosterUpdate     func(h uintptr, round int32, train uintptr) int32
	boosterEval       func(h uintptr, round int32, mats *uintptr, names **byte, n uint64, out **byte) int32
	boosterPredict    func(h, mat uintptr, config string, shape **uint64, dim *uint64, out **float32) int32
	boosterPredictRow func(h uintptr, array, config string, proxy uintptr, shape **uint64, dim *uint64, out **float32) int32
	boosterSave       func(h uintptr, config string, n *uint64, out **byte) int32
	boosterLoad       func(h uintptr, buf unsafe.Pointer, n uint64) int32
	boosterSerialize  func(h uintptr, n *uint64, out **byte) int32
	boosterRestore    func(h uintptr, buf unsafe.Pointer, n uint64) int32
	boosterConfig     func(h uintptr, n *uint64, out **byte) int32
	boosterSlice      func(h uintptr, begin, end, step int32, out *uintptr) int32
	boosterRounds     func(h uintptr, out *int32) int32
	boosterSetStrings func(h uintptr, field string, values **byte, n uint64) int32
}

// symbols pairs every function with its name in the library.
func (l *Library) symbols() map[string]any {
	return map[string]any{
		"XGBoostVersion":                 &l.version,
		"XGBGetLastError":                &l.lastError,
		"XGBuildInfo":                    &l.buildInfo,
		"XGBRegisterLogCallback":         &l.registerLog,
		"XGBSetGlobalConfig":             &l.setGlobal,
		"XGDMatrixCreateFromDense":       &l.matrixFromDense,
		"XGDMatrixSetInfoFromInterface":  &l.matrixSetInfo,
		"XGDMatrixSetStrFeatureInfo":     &l.matrixSetStrings,
		"XGDMatrixFree":                  &l.matrixFree,
		"XGBoosterCreate":                &l.boosterCreate,
		"XGBoosterFree":                  &l.boosterFree,
		"XGBoosterSetParam":              &l.boosterSetParam,
		"XGBoosterUpdateOneIter":         &l.boosterUpdate,
		"XGBoosterEvalOneIter":           &l.boosterEval,
		"XGBoosterPredictFromDMatrix":    &l.boosterPredict,
		"XGBoosterPredictFromDense":      &l.boosterPredictRow,
		"XGBoosterSaveModelToBuffer":     &l.boosterSave,
		"XGBoosterLoadModelFromBuffer":   &l.boosterLoad,
		"XGBoosterSerializeToBuffer":     &l.boosterSerialize,
		"XGBoosterUnserializeFromBuffer": &l.boosterRestore,
		"XGBoosterSaveJsonConfig":        &l.boosterConfig,
		"XGBoosterSlice":                 &l.boosterSlice,
		"XGBoosterBoostedRounds":         &l.boosterRounds,
		"XGBoosterSetStrFeatureInfo":     &l.boosterSetStrings,
	}
}

// Find returns the library's path: the one given, the one that the environment
// names, or the one that `make deps` fetched below root.
func Find(given, root string) (string, error) {
	for _, path := range []string{given, os.Getenv(Environment)} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil && strings.ContainsRune(path, filepath.Separator) { // a bare name is the linker's to find
			return "", fmt.Errorf("%w: %v: name libxgboost.so of the wheels xgboost or xgboost-cpu in %s or trainer.library, or train with back-end linear", ErrNoLibrary, err, Environment)
		}
		return path, nil
	}
	found, _ := filepath.Glob(filepath.Join(root, ".deps/python/xgboost/lib/python3*/site-packages/xgboost/lib/libxgboost.so"))
	if len(found) == 0 {
		return "", fmt.Errorf("%w: set %s to the path of libxgboost.so (the wheels xgboost and xgboost-cpu carry it), or train with back-end linear", ErrNoLibrary, Environment)
	}
	return found[0], nil
}

// Open loads the library. Versions 2 and 3 are known to work.
func Open(path string) (*Library, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("%w: open %s: %v", ErrNoLibrary, path, err)
	}
	l := &Library{path: path}
	for name, fn := range l.symbols() {
		at, err := purego.Dlsym(handle, name)
		if err != nil {
			return nil, fmt.Errorf("%w: %s has no %s: %v", ErrNoLibrary, path, name, err)
		}
		purego.RegisterFunc(fn, at)
	}
	if major, _, _ := l.Version(); major < 2 {
		return nil, fmt.Errorf("%w: %s is version %d, want 2 or later", ErrNoLibrary, path, major)
	}
	return l, nil
}

// Path is where the library was opened.
func (l *Library) Path() string { return l.path }

// Version is the library's version.
func (l *Library) Version() (major, minor, patch int) {
	var a, b, c int32
	l.version(&a, &b, &c)
	return int(a), int(b), int(c)
}

// BuildInfo says how the library was compiled.
type BuildInfo struct {
	CUDA    bool  `json:"USE_CUDA"`
	OpenMP  bool  `json:"USE_OPENMP"`
	NCCL    bool  `json:"USE_NCCL"`
	Debug   bool  `json:"DEBUG"`
	CUDAVer []int `json:"CUDA_VERSION"`
}

// BuildInfo asks the library how it was compiled.
func (l *Library) BuildInfo() (BuildInfo, error) {
	var info BuildInfo
	err := l.call("XGBuildInfo", func() int32 {
		var out *byte
		rc := l.buildInfo(&out)
		if rc == 0 {
			rc = boolToRC(json.Unmarshal([]byte(cString(out)), &info) == nil)
		}
		return rc
	})
	return info, err
}

func boolToRC(ok bool) int32 {
	if ok {
		return 0
	}
	return -1
}

// OnLog sends the library's log lines to fn, which must not call the library.
// The library keeps the receiver per thread: only what is called from the thread
// that called OnLog is heard, so a caller stays on it with [runtime.LockOSThread].
// A process has room for a limited number of callbacks: call it once.
func (l *Library) OnLog(fn func(line string)) error {
	callback := purego.NewCallback(func(text *byte) { fn(strings.TrimRight(cString(text), "\n")) })
	return l.call("XGBRegisterLogCallback", func() int32 { return l.registerLog(callback) })
}

// Verbosity sets how much the library logs: 0 silent, 1 warnings, 2 info.
func (l *Library) Verbosity(level int) error {
	return l.call("XGBSetGlobalConfig", func() int32 {
		return l.setGlobal(fmt.Sprintf(`{"verbosity": %d}`, level))
	})
}

// call runs fn, one call of the library and the copying of its results, on one
// thread, and reads the thread's last error when it fails.
func (l *Library) call(name string, fn func() int32) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if rc := fn(); rc != 0 {
		return &Error{Call: name, Message: l.lastError()}
	}
	return nil
}

// cString copies a zero-terminated string of the library.
func cString(p *byte) string {
	if p == nil {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}

// cStrings lays out strings as the library reads them. Keep the result alive
// until the call is over.
func cStrings(values []string) []*byte {
	out := make([]*byte, len(values))
	for i, v := range values {
		out[i] = unsafe.SliceData(append([]byte(v), 0))
	}
	return out
}
