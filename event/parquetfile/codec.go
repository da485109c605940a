package parquetfile

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
)

// codecs keeps the decompressor that is dear to make.
type codecs struct{ zstd *zstd.Decoder }

// open decompresses a stream bit by bit, for the codecs whose pages do not say
// beforehand what they become; nil for the others.
func (c *codecs) open(codec format.CompressionCodec, body []byte) (r io.Reader, err error) {
	switch codec {
	case format.Gzip:
		return gzip.NewReader(bytes.NewReader(body))
	case format.Brotli:
		return brotli.NewReader(bytes.NewReader(body)), nil
	case format.Zstd:
		if c.zstd == nil {
			c.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxPage), zstd.WithDecoderLowmem(true))
		}
		if err == nil {
			err = c.zstd.Reset(bytes.NewReader(body))
		}
		return c.zstd, err
	}
	return nil, nil
}

func (c *codecs) close() {
	if c.zstd != nil {
		c.zstd.Close()
	}
}

// block is how many bytes a page of the other codecs becomes.
func block(codec format.CompressionCodec, body []byte) (int64, error) {
	if codec == format.Snappy {
		n, err := snappy.DecodedLen(body)
		return int64(n), err
	}
	return 0, fmt.Errorf("the compression %v is not read", codec)
}
