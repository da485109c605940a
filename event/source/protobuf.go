package source

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kedge-ml/kedge/event"
)

// protobufText reads records that are one message of a descriptor set, bare or
// in the wire format of schema registries: a bare message never begins with a
// zero byte, for there is no field 0.
func protobufText(f Format) (func(Record) ([]byte, error), error) {
	if f.Descriptors == "" || f.Message == "" {
		return nil, errors.New("protobuf needs descriptors (base64 of what protoc --include_imports --descriptor_set_out writes) and message")
	}
	b, err := base64.StdEncoding.DecodeString(f.Descriptors)
	if err != nil {
		return nil, fmt.Errorf("descriptors: %w", err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(b, set); err != nil {
		return nil, fmt.Errorf("descriptors: %w", err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("descriptors: %w", err)
	}
	d, err := files.FindDescriptorByName(protoreflect.FullName(f.Message))
	if err != nil {
		return nil, fmt.Errorf("message %q: %w", f.Message, err)
	}
	md, ok := d.(protoreflect.MessageDescriptor)
	if !ok {
		return nil, fmt.Errorf("message: %q is no message", f.Message)
	}
	return func(r Record) ([]byte, error) {
		body, err := unframed(r.Value)
		m := dynamicpb.NewMessage(md)
		if err == nil {
			err = proto.Unmarshal(body, m)
		}
		if err != nil {
			return nil, notInSchema(fmt.Errorf("protobuf: %w", err))
		}
		return appendMessage(nil, m)
	}, nil
}

// unframed removes the registry's frame: zero, four bytes of id, and the path
// to the message within its file (a count and indexes, or one zero).
func unframed(b []byte) ([]byte, error) {
	if len(b) == 0 || b[0] != 0 {
		return b, nil
	}
	if len(b) < 6 {
		return nil, errors.New("the registry's frame is cut off")
	}
	b = b[5:]
	count, n := protowire.ConsumeVarint(b)
	if n < 0 {
		return nil, errors.New("the registry's frame is cut off")
	}
	b = b[n:]
	for range protowire.DecodeZigZag(count) {
		if _, n = protowire.ConsumeVarint(b); n < 0 {
			return nil, errors.New("the registry's frame is cut off")
		}
		b = b[n:]
	}
	return b, nil
}

// appendMessage appends a message as JSON under the fields' own names.
// Integers of 64 bits stay numbers, which protobuf's own JSON makes texts.
// Fields without presence are written with their defaults.
func appendMessage(dst []byte, m protoreflect.Message) ([]byte, error) {
	if known, ok, err := wellKnown(dst, m); ok || err != nil {
		return known, err
	}
	fields := m.Descriptor().Fields()
	dst = append(dst, '{')
	first := true
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.HasPresence() && !m.Has(fd) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		var err error
		dst = append(event.AppendString(dst, string(fd.Name())), ':')
		if dst, err = appendField(dst, fd, m.Get(fd)); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// wellKnown writes timestamps as times and wrappers as what they wrap.
func wellKnown(dst []byte, m protoreflect.Message) ([]byte, bool, error) {
	md := m.Descriptor()
	switch md.FullName() {
	case "google.protobuf.Timestamp":
		fields := md.Fields()
		ts := &timestamppb.Timestamp{Seconds: m.Get(fields.ByName("seconds")).Int(), Nanos: int32(m.Get(fields.ByName("nanos")).Int())}
		if err := ts.CheckValid(); err != nil {
			return nil, true, notInSchema(err)
		}
		out, err := appendAny(dst, ts.AsTime())
		return out, true, err
	case "google.protobuf.DoubleValue", "google.protobuf.FloatValue", "google.protobuf.Int64Value", "google.protobuf.UInt64Value",
		"google.protobuf.Int32Value", "google.protobuf.UInt32Value", "google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue":
		fd := md.Fields().ByName("value")
		out, err := appendScalar(dst, fd, m.Get(fd))
		return out, true, err
	}
	return dst, false, nil
}

func appendField(dst []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	switch {
	case fd.IsList():
		list := v.List()
		return appendList(dst, list.Len(), func(dst []byte, i int) ([]byte, error) { return appendScalar(dst, fd, list.Get(i)) })
	case fd.IsMap():
		return appendMap(dst, fd, v.Map())
	}
	return appendScalar(dst, fd, v)
}

func appendMap(dst []byte, fd protoreflect.FieldDescriptor, m protoreflect.Map) ([]byte, error) {
	var keys []protoreflect.MapKey
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int {
		if a.String() < b.String() {
			return -1
		}
		return 1
	})
	dst = append(dst, '{')
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendScalar(append(event.AppendString(dst, k.String()), ':'), fd.MapValue(), m.Get(k)); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func appendScalar(dst []byte, fd protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return appendMessage(dst, v.Message())
	case protoreflect.EnumKind:
		if ev := fd.Enum().Values().ByNumber(v.Enum()); ev != nil {
			return event.AppendString(dst, string(ev.Name())), nil
		}
		return strconv.AppendInt(dst, int64(v.Enum()), 10), nil
	}
	return appendAny(dst, v.Interface())
}
