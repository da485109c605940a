package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/store/chdb"
)

// Reading many rows goes past the driver, as writing them does: the engine's
// Native blocks are read into the batch's own slices.

// selectBlocks yields the blocks of a SELECT whose columns are, in order, those
// of the batch that at lists. The batch is reused: it is valid until the next.
func (s *Store) selectBlocks(ctx context.Context, sql string, p params, settings map[string]string, b *event.Batch, at []int) iter.Seq2[*event.Batch, error] {
	return func(yield func(*event.Batch, error) bool) {
		stopped := errors.New("stopped")
		err := s.engine.query(ctx, sql, p, settings, func(r io.Reader) error {
			d := &blockReader{r: r, buf: make([]byte, 0, 1<<20)}
			for {
				if err := d.block(b, at); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if b.Rows > 0 && !yield(b, nil) {
					return stopped
				}
			}
		})
		if err != nil && !errors.Is(err, stopped) {
			yield(nil, err)
		}
	}
}

func (e embeddedEngine) query(ctx context.Context, sql string, p params, settings map[string]string, read func(io.Reader) error) error {
	st := chdb.Statement{SQL: sql, Params: map[string]string{}, Settings: settings}
	for k, v := range p {
		st.Params[k] = chdb.EscapeParam(v)
	}
	r, w := io.Pipe()
	asked := make(chan error, 1)
	go func() {
		err := e.db.Query(ctx, st, "Native", func(b []byte) error {
			_, err := w.Write(b)
			return err
		})
		w.CloseWithError(err)
		asked <- err
	}()
	err := read(r)
	r.CloseWithError(io.ErrClosedPipe)
	if asked := <-asked; asked != nil && !errors.Is(asked, io.ErrClosedPipe) {
		return asked
	}
	return err
}

func (e *serverEngine) query(ctx context.Context, sql string, p params, settings map[string]string, read func(io.Reader) error) error {
	q := url.Values{"default_format": {"Native"}}
	for k, v := range settings {
		q.Set(k, v)
	}
	for k, v := range p {
		q.Set("param_"+k, chdb.EscapeParam(v))
	}
	u := e.url
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(sql))
	if err != nil {
		return err
	}
	req.Header = e.header.Clone()
	res, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("select over HTTP: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return read(res.Body)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err := errors.Join(err, chdb.ParseError(string(text))); err != nil {
		return err
	}
	return fmt.Errorf("select over HTTP: status %s", res.Status)
}

// blockReader reads Native blocks of protocol revision 0.
type blockReader struct {
	r   io.Reader
	buf []byte // read and not used yet
	at  int
}

// block reads the next block into b; io.EOF when there is none.
func (d *blockReader) block(b *event.Batch, at []int) error {
	columns, err := d.uvarint()
	if err != nil {
		return err // io.EOF before the first byte is the end
	}
	rows, err := d.uvarint()
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	if columns != uint64(len(at)) && rows > 0 {
		return d.notBlock(fmt.Sprintf("a block has %d columns, want %d", columns, len(at)))
	}
	b.Reset()
	b.Rows = int(rows)
	for i := range int(columns) {
		if err := errors.Join(d.skipText(), d.skipText()); err != nil { // name and type
			return err
		}
		if rows == 0 {
			continue
		}
		if err := d.column(&b.Columns[at[i]], int(rows)); err != nil {
			return d.notBlock(err.Error())
		}
	}
	return nil
}

// notBlock says what the engine wrote instead of a block, if it is words.
func (d *blockReader) notBlock(what string) error {
	if _, text, ok := bytes.Cut(d.buf[max(0, d.at-4096):], []byte("__exception__\r\n")); ok {
		if err := chdb.ParseError(string(text)); err != nil {
			return err
		}
	}
	return fmt.Errorf("read a block: %s", what)
}

func (d *blockReader) column(c *event.Column, rows int) (err error) {
	if c.Type.List {
		c.Ends = slices.Grow(c.Ends[:0], rows)[:rows]
		if err := readFixed(d, c.Ends); err != nil {
			return err
		}
		if n := int(c.Ends[rows-1]); n > 0 {
			return d.column(c.Items, n)
		}
		return nil
	}
	if c.Nulls != nil {
		c.Nulls = slices.Grow(c.Nulls[:0], rows)[:rows]
		if err := readFixed(d, c.Nulls); err != nil {
			return err
		}
	}
	switch c.Type.Elem {
	case event.Bool:
		c.Bools, err = readInto(d, c.Bools, rows)
	case event.Int32:
		c.Int32s, err = readInto(d, c.Int32s, rows)
	case event.Int64, event.Timestamp:
		c.Int64s, err = readInto(d, c.Int64s, rows)
	case event.Float32:
		c.Float32s, err = readInto(d, c.Float32s, rows)
	case event.Float64:
		c.Float64s, err = readInto(d, c.Float64s, rows)
	default:
		err = d.texts(c, rows)
	}
	return err
}

func readInto[T any](d *blockReader, dst []T, rows int) ([]T, error) {
	dst = slices.Grow(dst[:0], rows)[:rows]
	return dst, readFixed(d, dst)
}

// readFixed fills a slice with the bytes that come next. The engine and all
// machines that Kedge runs on are little-endian.
func readFixed[T any](d *blockReader, dst []T) error {
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), len(dst)*int(unsafe.Sizeof(dst[0])))
	n := copy(b, d.buf[d.at:])
	d.at += n
	if n == len(b) {
		return nil
	}
	_, err := io.ReadFull(d.r, b[n:])
	return unexpected(err)
}

func (d *blockReader) texts(c *event.Column, rows int) error {
	c.Data, c.StrEnds = c.Data[:0], slices.Grow(c.StrEnds[:0], rows)
	for range rows {
		n, err := d.uvarint()
		if err != nil {
			return unexpected(err)
		}
		if c.Data, err = d.appendBytes(c.Data, int(n)); err != nil {
			return err
		}
		c.StrEnds = append(c.StrEnds, uint32(len(c.Data)))
	}
	return nil
}

func (d *blockReader) appendBytes(dst []byte, n int) ([]byte, error) {
	for n > 0 {
		if d.at == len(d.buf) {
			if err := d.fill(); err != nil {
				return dst, unexpected(err)
			}
		}
		take := min(n, len(d.buf)-d.at)
		dst = append(dst, d.buf[d.at:d.at+take]...)
		d.at += take
		n -= take
	}
	return dst, nil
}

func (d *blockReader) skipText() error {
	n, err := d.uvarint()
	if err != nil {
		return unexpected(err)
	}
	_, err = d.appendBytes(nil, int(n))
	return err
}

func (d *blockReader) uvarint() (v uint64, err error) {
	if v, n := binary.Uvarint(d.buf[d.at:]); n > 0 {
		d.at += n
		return v, nil
	}
	for shift := 0; ; shift += 7 {
		if d.at == len(d.buf) {
			if err := d.fill(); err != nil {
				if shift > 0 {
					err = unexpected(err)
				}
				return 0, err
			}
		}
		b := d.buf[d.at]
		d.at++
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
		if shift > 56 {
			return 0, errors.New("a length is out of range")
		}
	}
}

// fill reads on when everything read was used.
func (d *blockReader) fill() error {
	n, err := d.r.Read(d.buf[:cap(d.buf)])
	d.buf, d.at = d.buf[:max(n, 0)], 0
	if n > 0 {
		return nil
	}
	if err == nil {
		return d.fill()
	}
	return err
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// withMemory are the settings of a statement that sorts much: beyond a share of
// the memory it goes to disk. Every thread sorts by itself, so that each gets a
// part of the share; the engine's own rule, a ratio of what the machine has free,
// knows nothing of the statement's bound and is switched off.
func withMemory(memory int64, more map[string]string) map[string]string {
	out := map[string]string{}
	if memory > 0 {
		threads := max(1, min(int64(runtime.GOMAXPROCS(0)), memory/(32<<20), 4))
		share := fmt.Sprint(memory / 4 / threads)
		out["max_memory_usage"] = fmt.Sprint(memory)
		out["max_threads"] = fmt.Sprint(threads)
		out["temporary_files_buffer_size"] = fmt.Sprint(128 << 10) // of each run on disk
		out["max_bytes_before_external_sort"], out["max_bytes_ratio_before_external_sort"] = share, "0"
		out["max_bytes_before_external_group_by"], out["max_bytes_ratio_before_external_group_by"] = share, "0"
	}
	maps.Copy(out, more)
	return out
}

// OutOfMemory reports whether the engine gave a statement up because it would
// have taken more memory than it may.
func OutOfMemory(err error) bool {
	const memoryLimitExceeded = 241
	var e *chdb.Error
	return errors.As(err, &e) && e.Code == memoryLimitExceeded
}
