package broker

import (
	"encoding/binary"
	"hash/crc32"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// attrControl is the attribute of batches that brokers write.
const attrControl = 0x20

// produced looks at the batches of a produce request. kfake checks a batch's
// header and not what it holds, and believes any number of records: a batch that
// cannot be decompressed, or becomes gigabytes, or has none of its records, would
// wait in the log for whoever reads it next. Such a one is marked as a batch of
// control records, which kfake refuses as an invalid record (INVALID_RECORD):
// clients do not send it again, as they do after a wrong checksum.
func (l *listener) produced(version int16, frame []byte, from net.Addr) {
	req := kmsg.NewPtrProduceRequest()
	if _, _, err := request(frame, req, version); err != nil {
		return // kfake says so
	}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			if len(p.Records) < batchHeader {
				continue // kfake finds no batch in it
			}
			if err := l.check.Check(p.Records); err != nil {
				l.log.Warn("a record batch is refused", "from", from, "topic", t.Topic, "partition", p.Partition, "bytes", len(p.Records), "error", err)
				spoil(p.Records)
			}
		}
	}
}

// spoil marks a batch that lies in a frame. One whose checksum is wrong stays so.
func spoil(batch []byte) {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	if binary.BigEndian.Uint32(batch[batchCRC:]) != crc32.Checksum(batch[batchAttributes:], castagnoli) {
		return
	}
	batch[batchAttributes+1] |= attrControl
	binary.BigEndian.PutUint32(batch[batchCRC:], crc32.Checksum(batch[batchAttributes:], castagnoli))
}
