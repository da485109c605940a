package parquetfile

import (
	"bytes"
	"errors"
	"os"
	"testing"
)

// Files that pyarrow 25 wrote: one without rows has a page of its dictionary and
// none of values; one that is compressed by LZ4 is refused, which the library
// would read as other numbers.
func TestFilesOfPyarrow(t *testing.T) {
	for name, check := range map[string]func(rows int64, err error) bool{
		"empty.parquet": func(rows int64, err error) bool { return err == nil && rows == 0 },
		"lz4.parquet":   func(_ int64, err error) bool { return errors.Is(err, errLZ4) && !errors.Is(err, ErrHostile) },
	} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Open(bytes.NewReader(b), int64(len(b)))
		rows := int64(-1)
		if err == nil {
			rows = f.NumRows()
		}
		if !check(rows, err) {
			t.Errorf("%s: %d rows, %v", name, rows, err)
		}
	}
}
