package source

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"

	"github.com/kedge-ml/kedge/event"
)

type parquetRow struct {
	ID     int64      `parquet:"id"`
	Name   *string    `parquet:"name,optional"`
	Small  int32      `parquet:"small"`
	Ratio  float32    `parquet:"ratio"`
	Score  *float64   `parquet:"score,optional"`
	OK     bool       `parquet:"ok"`
	Millis time.Time  `parquet:"millis,timestamp(millisecond)"`
	Nanos  time.Time  `parquet:"nanos,timestamp(nanosecond)"`
	Price  int64      `parquet:"price,decimal(2:18)"`
	Ref    uuid.UUID  `parquet:"ref,uuid"`
	Raw    []byte     `parquet:"raw"`
	Tags   []string   `parquet:"tags,list"`
	Nums   []*float64 `parquet:"nums,list"`
	Place  struct {
		City string `parquet:"city"`
	} `parquet:"place"`
}

func parquetBytes(t testing.TB, rows []parquetRow) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := parquet.NewGenericWriter[parquetRow](&buf, parquet.MaxRowsPerRowGroup(100), parquet.Compression(&parquet.Snappy))
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func sampleRows(n int) []parquetRow {
	rows := make([]parquetRow, n)
	for i := range rows {
		r := &rows[i]
		r.ID, r.Small, r.Ratio, r.OK, r.Price = int64(i), int32(-i), 0.1, i%2 == 0, int64(i*100+25)
		r.Millis = time.Date(2026, 1, 1, 0, 0, i, 5_000_000, time.UTC)
		r.Nanos = time.Date(1969, 12, 31, 23, 59, 59, 999_999_500, time.UTC)
		r.Ref, r.Raw, r.Place.City = uuid.UUID{15: byte(i)}, []byte{0xff, byte(i)}, "Köln"
		if i%3 != 0 {
			name, score := strings.Repeat("x", i%5), float64(i)/3
			r.Name, r.Score, r.Tags, r.Nums = &name, &score, []string{"a", name}, []*float64{&score, nil}
		}
	}
	return rows
}

func TestParquetTypes(t *testing.T) {
	data := parquetBytes(t, sampleRows(250))
	f, err := NewFile("x.parquet", bytes.NewReader(data), int64(len(data)), &Mapping{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for row, err := range f.Rows() {
		if err != nil {
			t.Fatal(err)
		}
		var line []byte
		for _, v := range row.Fields {
			line = event.AppendValue(append(append(append(line, ' '), v.Name...), '='), v.Value)
		}
		got = append(got, string(line))
	}
	if len(got) != 250 || f.Total() != 250 {
		t.Fatalf("%d rows, total %d", len(got), f.Total())
	}
	expectLines(t, []string{got[0], got[248]},
		` id=0 name=null small=0 ratio=0.1 score=null ok=true millis="2026-01-01T00:00:00.005Z" nanos="1969-12-31T23:59:59.999999Z" price=0.25 ref="00000000-0000-0000-0000-000000000000" raw="/wA=" tags=null nums=null place.city="Köln"`,
		` id=248 name="xxx" small=-248 ratio=0.1 score=82.66666666666667 ok=true millis="2026-01-01T00:04:08.005Z" nanos="1969-12-31T23:59:59.999999Z" price=248.25 ref="00000000-0000-0000-0000-0000000000f8" raw="//g=" tags=["a","xxx"] nums=[82.66666666666667,null] place.city="Köln"`)
}

// readAll reads what it can of a damaged file.
func readAll(data []byte) (rows int, err error) {
	f, err := NewFile("x.parquet", bytes.NewReader(data), int64(len(data)), &Mapping{})
	if err != nil {
		return 0, err
	}
	for _, e := range f.Rows() {
		if e != nil {
			err = e
		} else {
			rows++
		}
	}
	return rows, err
}

func TestDamagedParquetNeverPanics(t *testing.T) {
	data := parquetBytes(t, sampleRows(250))
	for cut := 0; cut < len(data); cut += 1 + len(data)/97 {
		if _, err := readAll(data[:cut]); err == nil || !strings.Contains(err.Error(), "not a whole Parquet file") {
			t.Errorf("cut at %d of %d: %v", cut, len(data), err)
		}
	}
	r := rand.New(rand.NewPCG(7, 7))
	failed := 0
	for range 400 {
		bad := bytes.Clone(data)
		for range 1 + r.IntN(4) {
			bad[r.IntN(len(bad))] ^= byte(1 + r.IntN(255))
		}
		if n, err := readAll(bad); err != nil {
			failed++
		} else if n != 250 {
			t.Errorf("%d rows without an error", n)
		}
	}
	if failed < 100 {
		t.Errorf("only %d of 400 damaged files gave an error", failed)
	}
	holed := bytes.Clone(data)
	clear(holed[100 : len(holed)/2])
	if _, err := readAll(holed); err == nil {
		t.Error("a hole of zeros went unnoticed")
	}
}
