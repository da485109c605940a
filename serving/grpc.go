package serving

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kedge-ml/kedge/internal/telemetry"
	"github.com/kedge-ml/kedge/serving/oip"
	"github.com/kedge-ml/kedge/serving/ort"
)

// wire is a message as bytes: the protocol's messages are read and written by
// hand, straight from and into tensors.
type wire struct{ b []byte }

// bytesCodec hands messages over as bytes.
type bytesCodec struct{}

var _ encoding.CodecV2 = bytesCodec{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*wire)
	if !ok {
		return nil, fmt.Errorf("write a message: %T is not one", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(m.b)}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*wire)
	if !ok {
		return fmt.Errorf("read a message: %T is not one", v)
	}
	m.b = data.Materialize()
	return nil
}

// NewGRPC returns a gRPC server that answers the Open Inference Protocol over
// s. The caller serves and stops it.
func NewGRPC(s *Server, opts ...grpc.ServerOption) *grpc.Server {
	opts = append([]grpc.ServerOption{grpc.ForceServerCodecV2(bytesCodec{}), grpc.MaxRecvMsgSize(int(s.cfg.MaxBody))}, opts...)
	g := grpc.NewServer(opts...)
	h := &rpc{s: s, pool: &pool{}}
	g.RegisterService(h.service(), h)
	return g
}

// rpc answers the calls of inference.GRPCInferenceService.
type rpc struct {
	s    *Server
	pool *pool
}

func (h *rpc) service() *grpc.ServiceDesc {
	calls := map[string]func(context.Context, []byte) ([]byte, error){
		"ServerLive":            h.yes,
		"ServerReady":           h.yes,
		"ServerMetadata":        h.metadata,
		"ModelReady":            h.modelReady,
		"ModelMetadata":         h.modelMetadata,
		"ModelInfer":            h.infer,
		"RepositoryIndex":       h.index,
		"RepositoryModelLoad":   h.named(2, h.s.reload),
		"RepositoryModelUnload": h.named(2, h.s.retire),
		"ModelStatistics":       h.statistics,
		"ModelConfig":           h.config,
	}
	d := &grpc.ServiceDesc{ServiceName: "inference.GRPCInferenceService", HandlerType: (*any)(nil)}
	for name, call := range calls {
		d.Methods = append(d.Methods, grpc.MethodDesc{MethodName: name, Handler: method("/"+d.ServiceName+"/"+name, call)})
	}
	return d
}

// method adapts a call on bytes to gRPC, interceptors included.
func method(full string, call func(context.Context, []byte) ([]byte, error)) grpc.MethodHandler {
	return func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		var in wire
		if err := decode(&in); err != nil {
			return nil, err
		}
		run := func(ctx context.Context, req any) (any, error) {
			out, err := call(ctx, req.(*wire).b)
			if err != nil {
				return nil, statusOf(err)
			}
			return &wire{out}, nil
		}
		if interceptor == nil {
			return run(ctx, &in)
		}
		return interceptor(ctx, &in, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, run)
	}
}

// statusOf maps an error to gRPC's codes, in one place.
func statusOf(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, ErrUnknownModel), errors.Is(err, ErrUnknownVersion):
		code = codes.NotFound
	case errors.Is(err, ErrFeatures), errors.Is(err, ErrRuntime):
		code = codes.Unavailable
	case errors.Is(err, oip.ErrInvalid), errors.Is(err, ErrInput), errors.Is(err, ErrInUse):
		code = codes.InvalidArgument
	case errors.Is(err, ErrBusy):
		code = codes.ResourceExhausted
	case errors.Is(err, ErrDeadline), errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	if errors.Is(err, ort.ErrWorker) {
		return status.Error(code, ErrRuntime.Error()+": retry later")
	}
	if code == codes.Internal {
		return status.Error(code, "the prediction failed: see the server's log")
	}
	return status.Error(code, err.Error())
}

// yes is every response whose first field is a true bool.
func (h *rpc) yes(context.Context, []byte) ([]byte, error) {
	return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1), nil
}

func (h *rpc) metadata(context.Context, []byte) ([]byte, error) {
	b := oip.AppendProtoString(nil, 1, "kedge")
	b = oip.AppendProtoString(b, 2, "2")
	return oip.AppendProtoString(b, 3, "model_repository"), nil
}

func (h *rpc) modelReady(ctx context.Context, b []byte) ([]byte, error) {
	name, version, err := oip.ParseNameVersion(b)
	if err != nil {
		return nil, err
	}
	if _, _, _, err := h.s.model(name, version); err != nil {
		return nil, nil // ready: false, as Triton says of a model that it does not know
	}
	return h.yes(ctx, nil)
}

func (h *rpc) modelMetadata(_ context.Context, b []byte) ([]byte, error) {
	name, version, err := oip.ParseNameVersion(b)
	if err != nil {
		return nil, err
	}
	d, st, m, err := h.s.model(name, version)
	if err != nil {
		return nil, err
	}
	out := oip.AppendProtoString(nil, 1, d.name)
	for _, v := range versionNames(st) {
		out = oip.AppendProtoString(out, 2, v)
	}
	out = oip.AppendProtoString(out, 3, m.platform())
	for _, t := range m.tensors() {
		out = appendTensor(out, 4, t.name, t.datatype, t.dims)
	}
	return appendTensor(out, 5, m.output(), oip.FP32, m.outputDims()), nil
}

func appendTensor(dst []byte, num protowire.Number, name string, d oip.Datatype, dims []int64) []byte {
	b := oip.AppendProtoString(nil, 1, name)
	b = oip.AppendProtoString(b, 2, string(d))
	b = oip.AppendProtoShape(b, 3, dims)
	return appendMessage(dst, num, b)
}

func (h *rpc) index(context.Context, []byte) ([]byte, error) {
	var out []byte
	for _, e := range h.s.known() {
		var b []byte
		for i, text := range []string{e.name, e.version, e.state, e.reason} {
			b = oip.AppendProtoString(b, protowire.Number(i+1), text)
		}
		out = appendMessage(out, 1, b)
	}
	return out, nil
}

func (h *rpc) infer(ctx context.Context, b []byte) ([]byte, error) {
	sc := h.pool.get()
	defer h.pool.put(sc)
	name, version, err := sc.req.ParseProto(b, oip.DefaultLimits())
	if err != nil {
		h.s.refused(name)
		return nil, err
	}
	h.s.others.met.Add(1)
	call := h.call(ctx, name, version, &sc.req)
	a, err := h.s.predict(ctx, sc, call)
	if err != nil {
		return nil, err
	}
	res := oip.Response{Model: name, Version: a.Version, ID: sc.req.ID,
		Params: []oip.Param{{Name: "prediction_id", Value: a.ID}, {Name: "variant", Value: a.Variant}}}
	if err := outputs(&res, &sc.req, &a); err != nil {
		return nil, err
	}
	return res.AppendProto(nil), nil
}

// call takes what the caller says beside the tensors from the metadata, under
// the names that HTTP headers have.
func (h *rpc) call(ctx context.Context, name, version string, req *oip.Request) Call {
	md, _ := metadata.FromIncomingContext(ctx)
	first := func(key string) string {
		if v := md.Get(key); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	c := Call{
		Model: name, Version: orElse(version, orElse(req.Params["version"], first(versionHeader))), ID: req.ID,
		Variant: orElse(req.Params["variant"], first(variantHeader)), Entity: orElse(req.Params["entity"], first(entityHeader)),
		Parent: first("traceparent"), Trace: telemetry.TraceID(ctx),
	}
	if d, ok := ctx.Deadline(); ok {
		c.Deadline = d
	}
	if asked := until(h.s.now(), req.Timeout); c.Deadline.IsZero() || !asked.IsZero() && asked.Before(c.Deadline) {
		c.Deadline = asked
	}
	return c
}
