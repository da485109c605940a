// Package ort runs ONNX models in ONNX Runtime's C library, in a process of
// their own.
//
// Holds: the library's binding (opened at run time, without cgo), the worker
// that a child process is, and [Process], the parent's side of one.
// Promises: whatever the library does with a model (crash, hang, eat its
// memory), the parent gets an error within the time limit and starts another
// child; a child reads and writes nothing but its pipes. Units: rows are
// row-major float32, NaN is missing. May not: know requests or routing.
package ort

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// ErrNoLibrary means that libonnxruntime is not there, or too old.
var ErrNoLibrary = errors.New("no ONNX Runtime library")

// Environment is the variable that names the library's path.
const Environment = "KEDGE_LIBONNXRUNTIME"

// apiVersion is the edition of the library's table of functions that is asked
// for; every release since 1.16 has it.
const apiVersion = 16

// Find returns the library's path: the one given, the one that the environment
// names, or the one that `make deps` fetched below root.
func Find(given, root string) (string, error) {
	for _, path := range []string{given, os.Getenv(Environment)} {
		if path != "" {
			return path, nil
		}
	}
	found, _ := filepath.Glob(filepath.Join(root, ".deps/python/onnx/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.1.*"))
	if len(found) == 0 {
		return "", fmt.Errorf("%w: set %s to the path of libonnxruntime.so (the wheel onnxruntime carries it)", ErrNoLibrary, Environment)
	}
	return found[0], nil
}

// handle is an object of the library.
type handle = uintptr

// library is an opened libonnxruntime: the functions that a worker needs, by
// their place in OrtApi (onnxruntime_c_api.h; the table only ever grows).
type library struct {
	env, memory, allocator handle

	errorMessage   func(status handle) string
	createEnv      func(level int32, id string, out *handle) handle
	createSession  func(env handle, model unsafe.Pointer, n uintptr, options handle, out *handle) handle
	run            func(session, options handle, names **byte, in *handle, n uintptr, outNames **byte, nOut uintptr, out *handle) handle
	createOptions  func(out *handle) handle
	noMemPattern   func(options handle) handle
	noArena        func(options handle) handle
	intraThreads   func(options handle, n int32) handle
	interThreads   func(options handle, n int32) handle
	inputCount     func(session handle, out *uintptr) handle
	outputCount    func(session handle, out *uintptr) handle
	inputType      func(session handle, i uintptr, out *handle) handle
	outputType     func(session handle, i uintptr, out *handle) handle
	inputName      func(session handle, i uintptr, allocator handle, out *unsafe.Pointer) handle
	outputName     func(session handle, i uintptr, allocator handle, out *unsafe.Pointer) handle
	createTensor   func(memory handle, data unsafe.Pointer, n uintptr, shape *int64, rank uintptr, element int32, out *handle) handle
	tensorData     func(value handle, out *unsafe.Pointer) handle
	castType       func(info handle, out *handle) handle
	elementType    func(info handle, out *int32) handle
	dimensionCount func(info handle, out *uintptr) handle
	dimensions     func(info handle, out *int64, n uintptr) handle
	tensorShape    func(value handle, out *handle) handle
	cpuMemory      func(allocator, kind int32, out *handle) handle
	free           func(allocator handle, p unsafe.Pointer) handle
	allocatorOf    func(out *handle) handle
	releaseStatus  func(handle)
	releaseValue   func(handle)
	releaseType    func(handle)
	releaseShape   func(handle)
	configEntry    func(options handle, key, value string) handle
}

func (l *library) table() map[int]any {
	return map[int]any{
		2: &l.errorMessage, 3: &l.createEnv, 8: &l.createSession, 9: &l.run, 10: &l.createOptions,
		17: &l.noMemPattern, 19: &l.noArena, 24: &l.intraThreads, 25: &l.interThreads,
		30: &l.inputCount, 31: &l.outputCount, 33: &l.inputType, 34: &l.outputType,
		36: &l.inputName, 37: &l.outputName, 49: &l.createTensor, 51: &l.tensorData, 55: &l.castType,
		60: &l.elementType, 61: &l.dimensionCount, 62: &l.dimensions, 65: &l.tensorShape,
		69: &l.cpuMemory, 76: &l.free, 78: &l.allocatorOf, 93: &l.releaseStatus, 96: &l.releaseValue,
		98: &l.releaseType, 99: &l.releaseShape, 130: &l.configEntry,
	}
}

// open loads the library and its environment: one per process.
func open(path string) (*library, error) {
	so, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("%w: open %s: %v", ErrNoLibrary, path, err)
	}
	at, err := purego.Dlsym(so, "OrtGetApiBase")
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrNoLibrary, path, err)
	}
	var apiBase func() *[2]uintptr // GetApi, GetVersionString
	purego.RegisterFunc(&apiBase, at)
	var getAPI func(version uint32) unsafe.Pointer
	purego.RegisterFunc(&getAPI, apiBase()[0])
	api := getAPI(apiVersion)
	if api == nil {
		return nil, fmt.Errorf("%w: %s is older than 1.%d", ErrNoLibrary, path, apiVersion)
	}
	l := new(library)
	for i, f := range l.table() {
		purego.RegisterFunc(f, *(*uintptr)(unsafe.Add(api, i*int(unsafe.Sizeof(uintptr(0))))))
	}
	const levelError, deviceAllocator, defaultMemory = 3, 0, 0
	if err := l.check("CreateEnv", l.createEnv(levelError, "kedge", &l.env)); err != nil {
		return nil, err
	}
	if err := l.check("CreateCpuMemoryInfo", l.cpuMemory(deviceAllocator, defaultMemory, &l.memory)); err != nil {
		return nil, err
	}
	return l, l.check("GetAllocatorWithDefaultOptions", l.allocatorOf(&l.allocator))
}

// check turns a status into an error and frees it.
func (l *library) check(call string, status handle) error {
	if status == 0 {
		return nil
	}
	text := l.errorMessage(status)
	l.releaseStatus(status)
	return fmt.Errorf("onnxruntime %s: %s", call, text)
}

// Element types (ONNXTensorElementDataType) that rows and answers may have.
const (
	elementFloat  = 1
	elementInt32  = 6
	elementInt64  = 7
	elementDouble = 11
)

// tensorType is what a model says of one of its tensors.
type tensorType struct {
	name    string
	element int32
	dims    []int64 // -1 is free
}

func (t tensorType) String() string { return fmt.Sprintf("%q %v", t.name, t.dims) }

type (
	typeCall = func(session handle, i uintptr, out *handle) handle
	nameCall = func(session handle, i uintptr, allocator handle, out *unsafe.Pointer) handle
)

// describe reads the name and type of input or output i. What is no tensor has
// element type 0.
func (l *library) describe(session handle, i int, typeOf typeCall, nameOf nameCall) (t tensorType, err error) {
	var name unsafe.Pointer
	if err := l.check("GetName", nameOf(session, uintptr(i), l.allocator, &name)); err != nil {
		return t, err
	}
	t.name = text(name)
	l.free(l.allocator, name)
	var info, shape handle
	if err := l.check("GetTypeInfo", typeOf(session, uintptr(i), &info)); err != nil {
		return t, err
	}
	defer l.releaseType(info)
	if err := l.check("CastTypeInfoToTensorInfo", l.castType(info, &shape)); err != nil || shape == 0 {
		return t, err
	}
	t.element, t.dims, err = l.shape(shape)
	return t, err
}

func (l *library) shape(info handle) (element int32, dims []int64, err error) {
	var n uintptr
	err1 := l.check("GetTensorElementType", l.elementType(info, &element))
	err2 := l.check("GetDimensionsCount", l.dimensionCount(info, &n))
	if err := errors.Join(err1, err2); err != nil || n == 0 {
		return element, nil, err
	}
	dims = make([]int64, n)
	return element, dims, l.check("GetDimensions", l.dimensions(info, &dims[0], n))
}

// maxText bounds a name that the library returns.
const maxText = 1 << 16

// text copies a C string.
func text(p unsafe.Pointer) string {
	if p == nil {
		return ""
	}
	var b []byte
	for i := 0; i < maxText; i++ {
		c := *(*byte)(unsafe.Add(p, i))
		if c == 0 {
			break
		}
		b = append(b, c)
	}
	return string(b)
}

// cString returns a name as the library takes it.
func cString(s string) *byte { return &append([]byte(s), 0)[0] }

// session is a model that the library has read.
type session struct {
	l       *library
	h       handle
	input   tensorType
	output  tensorType
	job     Model
	names   [2]*byte
	doubles []float64
}

// load reads a model and finds the tensors that its signature names.
func (l *library) load(m Model, threads int) (*session, error) {
	options, err := l.options(threads)
	if err != nil {
		return nil, err
	}
	if len(m.File) == 0 {
		return nil, errors.New("an empty model")
	}
	s := &session{l: l, job: m}
	err = l.check("CreateSession", l.createSession(l.env, unsafe.Pointer(&m.File[0]), uintptr(len(m.File)), options, &s.h))
	runtime.KeepAlive(m.File)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.findInput(), s.findOutput()); err != nil {
		return nil, err
	}
	s.names = [2]*byte{cString(s.input.name), cString(s.output.name)}
	return s, nil
}

// options: one thread that does not spin, and no arena, so that what a batch
// took is given back.
func (l *library) options(threads int) (handle, error) {
	var o handle
	if err := l.check("CreateSessionOptions", l.createOptions(&o)); err != nil {
		return 0, err
	}
	return o, errors.Join(
		l.check("SetIntraOpNumThreads", l.intraThreads(o, int32(max(1, threads)))),
		l.check("SetInterOpNumThreads", l.interThreads(o, 1)),
		l.check("DisableCpuMemArena", l.noArena(o)),
		l.check("DisableMemPattern", l.noMemPattern(o)),
		l.check("AddSessionConfigEntry", l.configEntry(o, "session.intra_op.allow_spinning", "0")),
	)
}

func (s *session) findInput() error {
	var n uintptr
	if err := s.l.check("SessionGetInputCount", s.l.inputCount(s.h, &n)); err != nil {
		return err
	}
	if n != 1 {
		return fmt.Errorf("the model has %d inputs: want one tensor [rows, %d]", n, s.job.Inputs)
	}
	var err error
	if s.input, err = s.l.describe(s.h, 0, s.l.inputType, s.l.inputName); err != nil {
		return err
	}
	t := s.input
	if t.element != elementFloat && t.element != elementDouble {
		return fmt.Errorf("input %v is not of float or double (element type %d)", t, t.element)
	}
	if len(t.dims) != 2 || t.dims[1] > 0 && t.dims[1] != int64(s.job.Inputs) {
		return fmt.Errorf("input %v: want [rows, %d]", t, s.job.Inputs)
	}
	if t.dims[0] > 1 {
		return fmt.Errorf("input %v takes %d rows at a time: export it with a free first dimension", t, t.dims[0])
	}
	return nil
}

func (s *session) findOutput() error {
	var n uintptr
	if err := s.l.check("SessionGetOutputCount", s.l.outputCount(s.h, &n)); err != nil {
		return err
	}
	want := s.job.Tensor
	if want == "" {
		want = "output"
	}
	var all []tensorType
	for i := range int(n) {
		t, err := s.l.describe(s.h, i, s.l.outputType, s.l.outputName)
		if err != nil {
			return err
		}
		all = append(all, t)
		if t.name == want || s.job.Tensor == "" && n == 1 {
			s.output = t
			return s.fits(t)
		}
	}
	return fmt.Errorf("the model has no output %q among %v", want, all)
}

func (s *session) fits(t tensorType) error {
	switch t.element {
	case elementFloat, elementDouble, elementInt32, elementInt64:
	case 0:
		return fmt.Errorf("output %q is no tensor: export it without ZipMap", t.name)
	default:
		return fmt.Errorf("output %v is not of numbers (element type %d)", t, t.element)
	}
	if len(t.dims) == 2 && t.dims[1] >= 0 && t.dims[1] < int64(s.job.Column+s.job.Width) {
		return fmt.Errorf("output %v has no columns %d to %d", t, s.job.Column, s.job.Column+s.job.Width)
	}
	return nil
}
