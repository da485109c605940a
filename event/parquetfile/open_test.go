package parquetfile

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// page is a page being made, with whatever its header says.
type page struct {
	header format.PageHeader
	body   []byte
}

func sized(h format.PageHeader, says int, body []byte) page {
	h.UncompressedPageSize, h.CompressedPageSize = int32(says), int32(len(body))
	return page{h, body}
}

func dictionary(values int32, body []byte) page {
	var h format.PageHeader
	h.Type = format.DictionaryPage
	h.DictionaryPageHeader.V, h.DictionaryPageHeader.Valid = format.DictionaryPageHeader{NumValues: values, Encoding: format.Plain}, true
	return sized(h, len(body), body)
}

func data(values int32, e format.Encoding, says int, body []byte) page {
	var h format.PageHeader
	h.Type = format.DataPage
	h.DataPageHeader.V, h.DataPageHeader.Valid = format.DataPageHeader{NumValues: values, Encoding: e, DefinitionLevelEncoding: format.RLE, RepetitionLevelEncoding: format.RLE}, true
	return sized(h, says, body)
}

// file makes a file of one column, "x", that says it has so many values.
func file(t testing.TB, kind format.Type, codec format.CompressionCodec, values int64, repetition format.FieldRepetitionType, pages ...page) []byte {
	t.Helper()
	protocol := new(thrift.CompactProtocol)
	out := []byte("PAR1")
	meta := format.ColumnMetaData{Type: kind, Encoding: []format.Encoding{format.Plain}, PathInSchema: []string{"x"}, Codec: codec, NumValues: values}
	for _, p := range pages {
		if p.header.Type == format.DictionaryPage {
			meta.DictionaryPageOffset = int64(len(out))
		} else if meta.DataPageOffset == 0 {
			meta.DataPageOffset = int64(len(out))
		}
		b, err := thrift.Marshal(protocol, &p.header)
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, b...), p.body...)
	}
	meta.TotalCompressedSize, meta.TotalUncompressedSize = int64(len(out)-4), int64(len(out)-4)
	rows := values
	if repetition == format.Repeated {
		rows = 1
	}
	var root, x format.SchemaElement
	root.Name, root.NumChildren.V, root.NumChildren.Valid = "root", 1, true
	x.Name, x.Type.V, x.Type.Valid, x.RepetitionType.V, x.RepetitionType.Valid = "x", kind, true, repetition, true
	b, err := thrift.Marshal(protocol, &format.FileMetaData{Version: 1, NumRows: rows, Schema: []format.SchemaElement{root, x},
		RowGroups: []format.RowGroup{{NumRows: rows, TotalByteSize: meta.TotalCompressedSize, Columns: []format.ColumnChunk{{FileOffset: 4, MetaData: meta}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return footed(out, b)
}

func footed(out, b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(append(out, b...), uint32(len(b))), "PAR1"...)
}

// openly reads a file as the library does for whoever believes it, and says how
// many bytes that asked for. What is wrong with it is no matter here.
func openly(b []byte) (asked uint64) {
	runtime.GC() // twice: what the library keeps in pools from the file before is not asked for again
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	func() {
		defer func() { _ = recover() }()
		f, err := parquet.OpenFile(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, g := range f.RowGroups() {
			rows := g.Rows()
			defer rows.Close()
			buf := make([]parquet.Row, 16)
			for range 4 { // enough to see it
				if _, err := rows.ReadRows(buf); err != nil {
					return
				}
			}
		}
	}()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func guarded(b []byte) (asked uint64, err error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = Open(bytes.NewReader(b), int64(len(b)))
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

func run(n uint64, value byte) []byte { return append(binary.AppendUvarint(nil, n<<1), value) }

func gzipped(t testing.TB, n int) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.CopyN(w, zeros{}, int64(n)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t testing.TB, n int) []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeros{}, int64(n)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestBombs: files of a few kilobytes that make the library ask for hundreds of
// megabytes, each by another lie, are refused for a few.
func TestBombs(t *testing.T) {
	const many = 64 << 20
	one := dictionary(1, []byte{7, 0, 0, 0, 0, 0, 0, 0})
	good := file(t, format.Int64, format.Uncompressed, 3, format.Required, one, data(3, format.RLEDictionary, 3, append([]byte{1}, run(3, 0)...)))
	if _, err := guarded(good); err != nil {
		t.Fatal(err)
	}
	members := func(n uint32) []byte { // a description whose list of columns says that it has n
		return footed([]byte("PAR1"), append([]byte{0x15, 2, 0x19, 0xfc}, append(binary.AppendUvarint(nil, uint64(n)), 0, 0, 0)...))
	}
	prefix := func(texts, length int) []byte { // texts that are the first one
		prefixes, lengths := make([]int32, texts), make([]int32, texts)
		for i := range prefixes {
			prefixes[i] = int32(length)
		}
		prefixes[0], lengths[0] = 0, int32(length)
		var e delta.BinaryPackedEncoding
		a, err := e.EncodeInt32(nil, prefixes)
		b, err2 := e.EncodeInt32(nil, lengths)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return append(append(a, b...), make([]byte, length)...)
	}
	footer := bytes.Clone(good)
	binary.LittleEndian.PutUint32(footer[len(footer)-8:], 512<<20)
	differences := append(binary.AppendUvarint(append(binary.AppendUvarint(nil, 128), 4), many), 0)
	texts := prefix(10_000, 32<<10)
	list := append(binary.AppendUvarint(nil, 8<<20<<1), 1) // levels
	lists := append(binary.LittleEndian.AppendUint32(nil, uint32(len(list)+2)), append(run(1, 0), list...)...)
	lists = append(lists, append(binary.LittleEndian.AppendUint32(nil, 5), append(binary.AppendUvarint(nil, (8<<20+1)<<1), 1)...)...)
	for _, c := range []struct {
		name, want string
		file       []byte
	}{
		{"a description of half a gigabyte", "its description has 536870912 bytes", footer},
		{"a list of two million members", "a list of 2097152 members", members(1 << 21)},
		{"a page of many values from five bytes", "a page of 67108864 values", file(t, format.Int64, format.Uncompressed, many, format.Required, one, data(many, format.RLEDictionary, 6, append([]byte{1}, run(many, 0)...)))},
		{"a run of more values than its page", "runs of 67108864 values", file(t, format.Int64, format.Uncompressed, 9, format.Required, one, data(9, format.RLEDictionary, 6, append([]byte{1}, run(many, 0)...)))},
		{"differences of more values than their page", "differences of 67108864 values", file(t, format.Int64, format.Uncompressed, 9, format.Required, data(9, format.DeltaBinaryPacked, len(differences), differences))},
		{"texts that share one beginning", "share their beginnings", file(t, format.ByteArray, format.Uncompressed, 10_000, format.Required, data(10_000, format.DeltaByteArray, len(texts), texts))},
		{"a page that says a gigabyte", "a page of 1073741824 bytes", file(t, format.Int64, format.Snappy, 9, format.Required, data(9, format.Plain, 1<<30, []byte{1, 0, 0}))},
		{"zstd that becomes more than it says", "more than the 72 bytes", file(t, format.Int64, format.Zstd, 9, format.Required, data(9, format.Plain, 72, zstded(t, 200<<20)))},
		{"gzip that becomes more than it says", "more than the 72 bytes", file(t, format.Int64, format.Gzip, 9, format.Required, data(9, format.Plain, 72, gzipped(t, 200<<20)))},
		{"a list of millions in one row", "a list of more than 65536 values", file(t, format.Int64, format.Uncompressed, 8<<20+1, format.Repeated, one, data(8<<20+1, format.RLEDictionary, len(lists)+6, append(append(lists, 1), run(8<<20+1, 0)...)))},
	} {
		if len(c.file) > 256<<10 {
			t.Errorf("%s: %d bytes are no bomb", c.name, len(c.file))
		}
		asked, err := guarded(c.file)
		if !errors.Is(err, ErrHostile) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if asked > 16<<20 {
			t.Errorf("%s: refusing it took %d bytes", c.name, asked)
		}
		if open := openly(c.file); open < 100<<20 {
			t.Errorf("%s: read openly it takes %d bytes: nothing is shown", c.name, open)
		}
	}
}

// TestNesting: a description nested deeper than any is refused before anybody
// recurses into it; the library does.
func TestNesting(t *testing.T) {
	deep := func(n int) []byte {
		b := bytes.Repeat([]byte{0xfc}, n) // a structure in a structure
		return footed([]byte("PAR1"), append(b, make([]byte, n+1)...))
	}
	if _, err := guarded(deep(10_000)); !errors.Is(err, ErrHostile) || !strings.Contains(err.Error(), "nested") {
		t.Error(err)
	}
}

// TestHonestFiles: what known writers make opens, and what is cut off or changed
// anywhere never asks for much.
func TestHonestFiles(t *testing.T) {
	type row struct {
		A *float64 `parquet:"a"`
		B string   `parquet:"b,dict"`
		C []int64  `parquet:"c,list"`
		D string   `parquet:"d,delta"`
		E bool     `parquet:"e"`
	}
	var rows []row
	for i := range 3000 {
		r := row{B: fmt.Sprint("b", i%7), D: fmt.Sprint("text ", i), E: i%3 == 0, C: make([]int64, i%5)}
		if i%4 > 0 {
			v := float64(i)
			r.A = &v
		}
		rows = append(rows, r)
	}
	for _, codec := range []parquet.WriterOption{parquet.Compression(&parquet.Uncompressed), parquet.Compression(&parquet.Snappy), parquet.Compression(&parquet.Zstd), parquet.Compression(&parquet.Gzip), parquet.Compression(&parquet.Brotli)} {
		for version := 1; version <= 2; version++ {
			var out bytes.Buffer
			w := parquet.NewGenericWriter[row](&out, codec, parquet.DataPageVersion(version), parquet.PageBufferSize(4096))
			if _, err := w.Write(rows); err != nil || w.Close() != nil {
				t.Fatal(err)
			}
			b := out.Bytes()
			f, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil || f.NumRows() != 3000 {
				t.Fatalf("version %d: %v", version, err)
			}
			for at := 0; at < len(b); at += 1 + len(b)/60 {
				lie := bytes.Clone(b)
				lie[at] ^= 0x7f
				if asked, err := guarded(lie); asked > 64<<20 {
					t.Errorf("byte %d: %d bytes, %v", at, asked, err)
				}
				if _, err := guarded(b[:at]); err == nil {
					t.Errorf("cut off at %d it opens", at)
				}
			}
		}
	}
}
