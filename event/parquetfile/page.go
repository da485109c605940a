package parquetfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/format"
)

// page looks at one page, whose bytes begin at an offset.
func (c *chunk) page(h header, at int64) error {
	if h.kind == indexPage {
		return nil // nobody reads it
	}
	if h.kind != dataPage && h.kind != dictionaryPage && h.kind != dataPageV2 {
		return hostile("a page of the unknown kind %d", h.kind)
	}
	if h.uncompressed < 0 || h.uncompressed > maxPage || h.compressed > maxPage {
		return hostile("a page of %d bytes, %d compressed, of %d at most", h.uncompressed, h.compressed, int64(maxPage))
	}
	if h.values < 0 || h.values > maxPageValues {
		return hostile("a page of %d values, of %d at most", h.values, int64(maxPageValues))
	}
	body := make([]byte, h.compressed)
	if _, err := c.r.ReadAt(body, at); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if h.kind == dataPageV2 {
		return c.second(h, body)
	}
	body, err := c.plain(body, h.uncompressed)
	if err != nil {
		return err
	}
	if h.kind == dictionaryPage {
		return nil // plain values: their bytes bound them, and their count is bounded
	}
	return c.first(h, body)
}

// first looks at a data page of the first version: levels with their lengths
// before them, then values.
func (c *chunk) first(h header, body []byte) (err error) {
	for _, level := range []struct {
		highest  int
		encoding int64
		lists    bool
	}{{c.repetition, h.repEncoding, true}, {c.definition, h.defEncoding, false}} {
		if level.highest == 0 {
			continue
		}
		if level.encoding != int64(format.RLE) {
			return fmt.Errorf("levels in the encoding %d, which was given up in 2013, are not read", level.encoding)
		}
		if len(body) < 4 {
			return io.ErrUnexpectedEOF
		}
		n := int64(binary.LittleEndian.Uint32(body))
		if n > int64(len(body)-4) {
			return hostile("levels of %d bytes in a page of %d", n, len(body))
		}
		if err := c.levels(body[4:4+n], h.values, level.highest, level.lists); err != nil {
			return err
		}
		body = body[4+n:]
	}
	c.values += h.values
	return c.data(h, body)
}

// second looks at a data page of the second version, whose levels are not
// compressed.
func (c *chunk) second(h header, body []byte) error {
	if h.repBytes < 0 || h.defBytes < 0 || h.repBytes+h.defBytes > int64(len(body)) || h.repBytes+h.defBytes > h.uncompressed {
		return hostile("levels of %d and %d bytes in a page of %d", h.repBytes, h.defBytes, len(body))
	}
	if c.repetition > 0 {
		if err := c.levels(body[:h.repBytes], h.values, c.repetition, true); err != nil {
			return err
		}
	}
	if c.definition > 0 {
		if err := c.levels(body[h.repBytes:h.repBytes+h.defBytes], h.values, c.definition, false); err != nil {
			return err
		}
	}
	c.values += h.values
	body = body[h.repBytes+h.defBytes:]
	if h.plain {
		return c.data(h, body)
	}
	body, err := c.plain(body, h.uncompressed-h.repBytes-h.defBytes)
	if err != nil {
		return err
	}
	return c.data(h, body)
}

// plain is what a page holds, which must not be more than it says.
func (c *chunk) plain(body []byte, size int64) ([]byte, error) {
	if c.meta.Codec == format.Uncompressed {
		return body, nil
	}
	stream, err := c.codecs.open(c.meta.Codec, body)
	if err != nil {
		return nil, err
	}
	if stream == nil {
		if n, err := block(c.meta.Codec, body); err != nil || n != size {
			return nil, errors.Join(err, hostile("a page that decompresses to %d bytes and says %d", n, size))
		}
		return parquet.LookupCompressionCodec(c.meta.Codec).Decode(make([]byte, 0, size), body)
	}
	out := make([]byte, size+1)
	switch n, err := io.ReadFull(stream, out); {
	case err == nil:
		return nil, hostile("a page that decompresses to more than the %d bytes that it says", size)
	case int64(n) != size || err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("a page that says %d bytes and has %d: %w", size, n, err)
	}
	return out[:size], nil
}

// data looks at the values of a page.
func (c *chunk) data(h header, body []byte) error {
	switch format.Encoding(h.encoding) {
	//lint:ignore SA1019 older writers use it
	case format.PlainDictionary, format.RLEDictionary:
		if len(body) == 0 {
			return nil
		}
		return runs(body[1:], h.values, int(body[0]), nil)
	case format.RLE: // of truth values, after their length
		if len(body) < 4 {
			return io.ErrUnexpectedEOF
		}
		n := min(int64(binary.LittleEndian.Uint32(body)), int64(len(body)-4))
		return runs(body[4:4+n], h.values, 1, nil)
	case format.DeltaBinaryPacked, format.DeltaLengthByteArray:
		return packed(body, h.values)
	case format.DeltaByteArray:
		return prefixed(body, h.values)
	}
	return nil // as many bytes as values take
}

// packed holds the number of values that a block of differences says against the
// page's: block size, miniblocks, values.
func packed(body []byte, values int64) error {
	if values == 0 || len(body) == 0 {
		return nil
	}
	var n [3]uint64
	for i := range n {
		u, length := binary.Uvarint(body)
		if length <= 0 {
			return io.ErrUnexpectedEOF
		}
		n[i], body = u, body[length:]
	}
	if n[0] > 1<<16 || n[1] > 1<<16 || n[2] > uint64(values) {
		return hostile("differences of %d values in blocks of %d, in a page of %d values", n[2], n[0], values)
	}
	return nil
}

// prefixed adds up what texts take that share their beginnings with those before.
func prefixed(body []byte, values int64) error {
	if err := packed(body, values); err != nil || values == 0 || len(body) == 0 {
		return err
	}
	prefixes, err := new(delta.BinaryPackedEncoding).DecodeInt32(nil, body)
	if err != nil {
		return err
	}
	total := int64(len(body))
	for _, p := range prefixes {
		if p < 0 {
			return hostile("a text whose beginning has %d bytes", p)
		}
		if total += int64(p); total > maxPage {
			return hostile("a page of texts that share their beginnings, of more than %d bytes, which is the most", int64(maxPage))
		}
	}
	return nil
}

// levels looks at the runs of levels; of repetition, at the longest list, too.
func (c *chunk) levels(b []byte, values int64, highest int, lists bool) error {
	if !lists || highest > 1 { // lists of lists are read by nobody
		return runs(b, values, bits.Len(uint(highest)), nil)
	}
	return runs(b, values, 1, func(bit byte, n int64) error {
		if bit == 0 {
			c.list = 0
			return nil
		}
		if c.list += n; c.list > maxListValues {
			return hostile("a list of more than %d values in one row", maxListValues)
		}
		return nil
	})
}

// runs adds up the values of Parquet's hybrid of runs and packed bits. The last
// packed group may have more than are meant. Where values have one bit, tell gets
// each run of equal ones.
func runs(b []byte, values int64, width int, tell func(bit byte, n int64) error) error {
	if width > 32 {
		return hostile("values of %d bits", width)
	}
	total := uint64(0)
	for len(b) > 0 {
		head, n := binary.Uvarint(b)
		if n <= 0 {
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
		count, size := head>>1, uint64(width+7)/8
		if head&1 == 1 {
			if count > uint64(maxPageValues) {
				return hostile("a run of %d groups", count)
			}
			size, count = count*uint64(width), count*8
		}
		if total += count; count > maxPageValues || total > uint64(values)+504 { // 63 groups of 8 are the most that one header byte says
			return hostile("runs of %d values in a page of %d", total, values)
		}
		if size > uint64(len(b)) {
			return io.ErrUnexpectedEOF
		}
		if err := each(b[:size], head&1 == 1, count, tell); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// each tells the bits of a run.
func each(b []byte, packed bool, count uint64, tell func(bit byte, n int64) error) error {
	if tell == nil || len(b) == 0 {
		return nil
	}
	if !packed {
		return tell(b[0]&1, int64(count))
	}
	for _, x := range b {
		for i := range 8 {
			if err := tell(x>>i&1, 1); err != nil {
				return err
			}
		}
	}
	return nil
}
