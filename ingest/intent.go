package ingest

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// intentVersion is the newest form of the commit metadata that this build
// writes and reads.
const intentVersion = 1

// intent is the metadata of a group offset: what this member is about to do
// with the records from that offset on. It is written before a unit's first
// insert and is what a successor repeats. Without a unit (Decoder 0) it says
// that everything before the offset is stored.
type intent struct {
	Version  int   `json:"v"`
	Epoch    int32 `json:"e"`
	From     int64 `json:"a,omitempty"` // the committed offset
	To       int64 `json:"b,omitempty"` // inclusive
	Decoder  int   `json:"d,omitempty"`
	Registry int64 `json:"r,omitempty"` // registry offset, −1 for an empty registry
	Window   int64 `json:"w,omitempty"` // id window in offsets
	Last     *mark `json:"l,omitempty"` // a record of an earlier unit of this epoch; nil before the first
}

// mark tells one incarnation of a topic from another: a record stored there
// before must still have its time.
type mark struct {
	Offset int64 `json:"o"`
	Time   int64 `json:"t"` // µs
}

func (i intent) pending() bool { return i.Decoder != 0 }

func (i intent) encode() string {
	i.Version = intentVersion
	b, err := json.Marshal(i)
	if err != nil {
		panic(err) // numbers only
	}
	return string(b)
}

// parseIntent reads commit metadata. own is false for metadata that this
// program did not write; an error says that a newer one did.
func parseIntent(metadata string) (i intent, own bool, err error) {
	if json.Unmarshal([]byte(metadata), &i) != nil || i.Version < 1 {
		return intent{}, false, nil
	}
	if i.Version > intentVersion {
		return intent{}, true, fmt.Errorf("the group's commit has form %d, this build reads up to %d: upgrade kedge", i.Version, intentVersion)
	}
	return i, true, nil
}

// tokens makes the tokens of a unit's inserts.
type tokens struct{ prefix string }

func newTokens(sink string, epoch int32, cluster, topic string, partition int32, from, to int64) tokens {
	b := make([]byte, 0, len(sink)+len(cluster)+len(topic)+64)
	b = append(append(b, sink...), '/')
	b = append(strconv.AppendInt(b, int64(epoch), 10), '/')
	b = append(append(b, cluster...), '/')
	b = append(append(b, topic...), '/')
	b = append(strconv.AppendInt(b, int64(partition), 10), '/')
	b = append(strconv.AppendInt(b, from, 10), '-')
	return tokens{string(strconv.AppendInt(b, to, 10))}
}

func (t tokens) table(name string) string { return t.prefix + "/" + name }
func (t tokens) dead() string             { return t.prefix + "/dead" }
func (t tokens) ledger() string           { return t.prefix + "/ledger" }
