package serving

import (
	"context"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kedge-ml/kedge/serving/oip"
)

// appendMessage appends a field that holds a message.
func appendMessage(dst []byte, num protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), b)
}

func appendVarint(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

// named adapts what is done to a model by name; the name is field num of the
// request, and the response is empty.
func (h *rpc) named(num protowire.Number, do func(context.Context, string) error) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, b []byte) ([]byte, error) {
		name, err := oip.ProtoString(b, num)
		if err != nil {
			return nil, err
		}
		return nil, do(ctx, name)
	}
}

// statistics answers Triton's ModelStatistics, of one model or of all.
func (h *rpc) statistics(_ context.Context, b []byte) ([]byte, error) {
	name, version, err := oip.ParseNameVersion(b)
	if err != nil {
		return nil, err
	}
	var out []byte
	if name != "" {
		d, st, _, err := h.s.model(name, version)
		if err != nil {
			return nil, err
		}
		return appendMessage(nil, 1, d.protoStatistics(orElse(version, st.routing.Champion))), nil
	}
	for _, m := range h.s.Models() {
		if d := h.s.find(m.Name); d != nil {
			out = appendMessage(out, 1, d.protoStatistics(m.Routing.Champion))
		}
	}
	return out, nil
}

func (d *deployed) protoStatistics(version string) []byte {
	ok, failed := d.stats.success.Load(), d.stats.failure.Load()
	queue, compute := d.stats.queueNS.Load(), d.stats.computeNS.Load()
	var inner []byte
	for i, p := range [][2]uint64{{ok, queue + compute}, {failed, 0}, {ok, queue}, {ok, 0}, {ok, compute}, {ok, 0}, {0, 0}, {0, 0}} {
		inner = appendMessage(inner, protowire.Number(i+1), appendVarint(appendVarint(nil, 1, p[0]), 2, p[1]))
	}
	b := oip.AppendProtoString(nil, 1, d.name)
	b = oip.AppendProtoString(b, 2, version)
	b = appendVarint(b, 3, uint64(d.stats.lastMS.Load()))
	b = appendVarint(b, 4, d.stats.rows.Load())
	b = appendVarint(b, 5, ok)
	return appendMessage(b, 6, inner)
}

// config answers Triton's ModelConfig, as far as it has a meaning here.
func (h *rpc) config(_ context.Context, b []byte) ([]byte, error) {
	name, version, err := oip.ParseNameVersion(b)
	if err != nil {
		return nil, err
	}
	_, _, m, err := h.s.model(name, version)
	if err != nil {
		return nil, err
	}
	c := oip.AppendProtoString(nil, 1, m.Name)
	c = oip.AppendProtoString(c, 2, m.platform())
	for _, t := range m.tensors() {
		in := oip.AppendProtoString(nil, 1, t.name)
		in = appendVarint(in, 2, tritonNumber(t.datatype))
		c = appendMessage(c, 5, oip.AppendProtoShape(in, 4, t.dims))
	}
	o := oip.AppendProtoString(nil, 1, m.output())
	o = appendVarint(o, 2, tritonNumber(oip.FP32))
	c = appendMessage(c, 6, oip.AppendProtoShape(o, 3, m.outputDims()))
	c = oip.AppendProtoString(c, 17, "kedge")
	return appendMessage(nil, 1, c), nil
}

// tritonNumber is a datatype's number in Triton's model_config.proto.
func tritonNumber(d oip.Datatype) uint64 {
	for i, name := range [...]oip.Datatype{"", oip.BOOL, oip.UINT8, oip.UINT16, oip.UINT32, oip.UINT64, oip.INT8, oip.INT16, oip.INT32, oip.INT64, oip.FP16, oip.FP32, oip.FP64, oip.BYTES, oip.BF16} {
		if name == d {
			return uint64(i)
		}
	}
	return 0
}
