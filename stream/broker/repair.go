package broker

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"syscall"
)

// Files of kfake's data directory.
const (
	metaFile      = "meta.json"
	topicsFile    = "topics.json"
	groupsFile    = "groups.log"
	producersFile = "pids.log"
	sequencesFile = "seq_windows.json"
	partitionsDir = "partitions"
	lostDir       = "lost+found"
)

// entryHeader is what precedes an entry of the logs, little-endian: length of
// version and data, their CRC-32C; then the version.
const entryHeader = 4 + 4

// repair makes a data directory whole after a crash, and says what it did.
func repair(dir string) ([]string, error) {
	var notes []string
	for _, name := range []string{groupsFile, producersFile} {
		note, err := repairLog(filepath.Join(dir, name))
		if err != nil {
			return notes, fmt.Errorf("repair %s: %w", name, err)
		}
		if note != "" {
			notes = append(notes, note)
		}
	}
	more, err := setAside(dir)
	return append(notes, more...), err
}

// repairLog rewrites a log that holds torn entries with those that are whole.
func repairLog(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	whole := wholeEntries(raw)
	if len(whole) == len(raw) {
		return "", nil
	}
	err = replaceFile(path, whole)
	if errors.Is(err, syscall.ENOSPC) {
		err = rewrite(path, whole)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s: %d bytes of torn entries removed", filepath.Base(path), len(raw)-len(whole)), nil
}

// wholeEntries returns raw without what is no entry, looking for the next
// whole one behind each torn one.
func wholeEntries(raw []byte) []byte {
	var out bytes.Buffer
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	for len(raw) > 0 {
		n := entrySize(raw, castagnoli)
		if n == 0 {
			raw = raw[1:]
			continue
		}
		out.Write(raw[:n])
		raw = raw[n:]
	}
	return out.Bytes()
}

// entrySize returns the size of the entry that raw begins with; 0 for none.
func entrySize(raw []byte, castagnoli *crc32.Table) int {
	if len(raw) < entryHeader+2 {
		return 0
	}
	n := int64(binary.LittleEndian.Uint32(raw))
	if n < 2 || n > int64(len(raw)-entryHeader) {
		return 0
	}
	end := entryHeader + int(n)
	if crc32.Checksum(raw[entryHeader:end], castagnoli) != binary.LittleEndian.Uint32(raw[4:]) {
		return 0
	}
	return end
}

// replaceFile writes a file anew so that a crash leaves the old or the new.
func replaceFile(path string, content []byte) error {
	tmp := path + ".repair"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}

// rewrite shortens a file in place, which needs no space. A crash within
// leaves torn entries, to be repaired again.
func rewrite(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Truncate(int64(len(content))), f.Sync(), f.Close())
}

// setAside moves the partitions of unknown topics to lost+found: their topic
// was created or deleted while the list of topics could not be written, and a
// new topic of that name would append to their files.
func setAside(dir string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(dir, metaFile)); errors.Is(err, os.ErrNotExist) {
		return nil, nil // fresh
	}
	entries, err := os.ReadDir(filepath.Join(dir, partitionsDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	known, err := knownPartitions(filepath.Join(dir, topicsFile))
	if err != nil {
		return nil, err
	}
	var notes []string
	for _, e := range entries {
		if known[e.Name()] {
			continue
		}
		to := filepath.Join(dir, lostDir, e.Name())
		if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
			return notes, err
		}
		if err := errors.Join(os.RemoveAll(to), os.Rename(filepath.Join(dir, partitionsDir, e.Name()), to)); err != nil {
			return notes, err
		}
		notes = append(notes, fmt.Sprintf("partition %s belongs to no topic and was moved to %s", e.Name(), lostDir))
	}
	return notes, nil
}

// knownPartitions lists the folder names of the topics' partitions.
func knownPartitions(path string) (map[string]bool, error) {
	topics, err := readTopics(path)
	if err != nil {
		return nil, fmt.Errorf("%w; restore it from a backup, or move the data directory away", err)
	}
	known := make(map[string]bool)
	for _, t := range topics {
		for p := range t.Partitions {
			known[filepath.Base(partitionDir("", t.Name, p))] = true
		}
	}
	return known, nil
}

// listedTopic is a topic in kfake's list.
type listedTopic struct {
	Name       string `json:"name"`
	Partitions int    `json:"partitions"`
}

// readTopics reads the list of topics, which is replaced whenever it changes.
func readTopics(path string) ([]listedTopic, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the list of topics: %w", err)
	}
	var list struct {
		Topics []listedTopic `json:"topics"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("the list of topics %s: %w", path, err)
	}
	return list.Topics, nil
}
