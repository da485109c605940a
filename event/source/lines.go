package source

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/kedge-ml/kedge/event"
)

// lines reads JSON lines. Blank lines are skipped.
type lines struct {
	r    io.ReaderAt
	size int64
	n    int64
}

func newLines(r io.ReaderAt, size int64) (*lines, error) {
	n, err := countLines(r, size)
	return &lines{r, size, n}, err
}

func (l *lines) total() int64 { return l.n }

// read yields a row per line; a line that is an array is one field ".", for
// mappings that explode it.
func (l *lines) read(yield func(Row, error) bool) {
	in := bufio.NewReaderSize(io.NewSectionReader(l.r, 0, l.size), 1<<16)
	p := newRecordParser()
	var line []byte
	for index := int64(0); ; {
		var err error
		line, err = readLine(in, line[:0])
		if text := bytes.TrimSpace(line); len(text) > 0 {
			row, bad := p.row(index, text)
			if !yield(row, bad) {
				return
			}
			index++
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			yield(Row{Index: index}, err)
			return
		}
	}
}

// readLine appends the next line to dst, without its end. Of a line longer
// than any record may be it keeps only so much that it is refused.
func readLine(in *bufio.Reader, dst []byte) ([]byte, error) {
	limit := event.DefaultDecoderConfig().MaxRecordBytes + 1
	for {
		part, err := in.ReadSlice('\n')
		if room := limit - len(dst); room > 0 {
			dst = append(dst, part[:min(len(part), room)]...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return dst, err
		}
	}
}

// recordParser turns one JSON text into a row.
type recordParser struct {
	reader *event.FieldReader
	fields []event.NamedValue
}

func newRecordParser() *recordParser {
	return &recordParser{reader: event.NewFieldReader(event.DefaultDecoderConfig())}
}

func (p *recordParser) row(index int64, text []byte) (Row, error) {
	if text[0] == '[' {
		p.fields = append(p.fields[:0], event.NamedValue{Name: wholeRecord, Value: event.Value{Type: event.ColumnType{Elem: event.JSON}, Text: string(text)}})
		return Row{Index: index, Fields: p.fields}, nil
	}
	var err error
	if p.fields, err = p.reader.Fields(p.fields[:0], text); err != nil {
		return Row{Index: index}, RowError{index, err}
	}
	return Row{Index: index, Fields: p.fields}, nil
}
