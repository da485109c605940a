package chdb

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Volume is a folder, as a rule on another and cheaper disk, to which tables may
// move rows that have aged. Statements name it: TTL … TO VOLUME 'cold'.
type Volume struct {
	Name string // letters, digits and _, from a lower-case letter
	Path string // exists; this engine's alone
}

// ErrVolume means that the folder of a volume is not what it has to be.
var ErrVolume = errors.New("volume")

var volumeName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Validate says whether a volume may have its name and path.
func (v Volume) Validate() error {
	if !volumeName.MatchString(v.Name) || v.Name == "default" {
		return fmt.Errorf("volume %q: want a lower-case letter, then letters, digits or _, and not default, which is the data directory's", v.Name)
	}
	if !filepath.IsAbs(v.Path) {
		return fmt.Errorf("volume %s: the path %q is not absolute", v.Name, v.Path)
	}
	return nil
}

// markName is the file of a volume's folder that says whose it is. A disk that
// is not mounted leaves a folder without it.
const markName = "kedge-volume"

// volumes is what the data directory remembers of them: an engine that opens
// without a folder that it moved rows to would have lost these without a word.
type volumes struct {
	ID    string            `json:"id"`    // of the data directory
	Paths map[string]string `json:"paths"` // by name
}

func (c Config) volumesFile() string { return filepath.Join(c.DataDir, "engine.volumes") }

// readyVolumes looks, before the engine opens, whether every folder that may hold
// rows is there and this engine's, and takes new ones.
func (c Config) readyVolumes() error {
	have := volumes{Paths: map[string]string{}}
	text, err := os.ReadFile(c.volumesFile())
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(c.Volumes) == 0:
		return nil
	case err == nil:
		err = json.Unmarshal(text, &have)
	case errors.Is(err, fs.ErrNotExist):
		have.ID, err = rand.Text(), nil
	}
	if err != nil {
		return fmt.Errorf("%w: read %s: %w", ErrVolume, c.volumesFile(), err)
	}
	was, gone := len(text), []string(nil)
	for name, path := range have.Paths {
		if slices.ContainsFunc(c.Volumes, func(v Volume) bool { return v.Name == name }) {
			continue
		}
		if err := emptied(name, path); err != nil {
			return err
		}
		delete(have.Paths, name)
		was, gone = 0, append(gone, path)
	}
	for _, v := range c.Volumes {
		if err := v.take(have.ID, have.Paths[v.Name] != ""); err != nil {
			return err
		}
		if have.Paths[v.Name] != v.Path {
			have.Paths[v.Name] = v.Path
			was = 0
		}
	}
	if was > 0 {
		return nil
	}
	if err := have.save(c.volumesFile()); err != nil {
		return err
	}
	for _, path := range gone { // not before it is noted: a known folder without its mark is refused
		if err := os.Remove(filepath.Join(path, markName)); err != nil {
			return fmt.Errorf("%w: let go of %s: %w", ErrVolume, path, err)
		}
	}
	return nil
}

func (v volumes) save(path string) error {
	text, err := json.Marshal(v)
	if err == nil {
		err = writeSynced(path+".part", text)
	}
	if err == nil {
		err = os.Rename(path+".part", path)
	}
	if err != nil {
		return fmt.Errorf("%w: note the volumes: %w", ErrVolume, err)
	}
	return nil
}

// take makes a folder this data directory's, or sees that it is. The mark is
// written before the data directory notes it, so that a process may die between.
func (v Volume) take(id string, known bool) error {
	mark := []byte(id + " " + v.Name + "\n")
	got, err := os.ReadFile(filepath.Join(v.Path, markName))
	switch {
	case err == nil && bytes.Equal(got, mark):
		return nil
	case err == nil:
		return fmt.Errorf("%w %s: %s belongs to another data directory or is another volume: name a folder of its own", ErrVolume, v.Name, v.Path)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w %s: %w", ErrVolume, v.Name, err)
	case known:
		return fmt.Errorf("%w %s: %s does not hold what was moved there: is its disk mounted? Without it those rows are missing, so nothing is opened", ErrVolume, v.Name, v.Path)
	}
	entries, err := os.ReadDir(v.Path)
	if err != nil {
		return fmt.Errorf("%w %s: %w: mount its disk, or make the folder", ErrVolume, v.Name, err)
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return fmt.Errorf("%w %s: %s is not empty (%s): name a folder of its own", ErrVolume, v.Name, v.Path, e.Name())
		}
	}
	if err := writeSynced(filepath.Join(v.Path, markName), mark); err != nil {
		return fmt.Errorf("%w %s: %w", ErrVolume, v.Name, err)
	}
	return nil
}

// emptied fails when a volume that is configured no more holds rows, or cannot
// be looked at.
func emptied(name, path string) error {
	if _, err := os.Stat(filepath.Join(path, markName)); err != nil {
		return fmt.Errorf("%w %s: it is not configured any more, and %s, where its rows were, cannot be looked at (%w): configure it again, with its disk mounted", ErrVolume, name, path, err)
	}
	parts, err := filepath.Glob(filepath.Join(path, "store", "*", "*", "*"))
	if err != nil {
		return fmt.Errorf("%w %s: %w", ErrVolume, name, err)
	}
	for _, p := range parts {
		if _, ok := parsePart(filepath.Base(p)); ok {
			return fmt.Errorf("%w %s: it is not configured any more, but %s holds rows: configure it again, and let no definition name it until its rows are back", ErrVolume, name, path)
		}
	}
	return nil
}

// volumeArgs configures disks, and volumes of the policy that every table has. The
// engine asks for the bare member volumes, so that it needs a value.
func (c Config) volumeArgs() (args []string, err error) {
	if len(c.Volumes) == 0 {
		return nil, nil
	}
	const policy = "--storage_configuration.policies.default."
	args = []string{policy + "move_factor=0", policy + "volumes=1", policy + "volumes.default.disk=default", policy + "volumes.default.volume_priority=1"}
	for i, v := range c.Volumes {
		keep, _, _, err := reserve(v.Path)
		if err != nil {
			return nil, err
		}
		disk, volume := "--storage_configuration.disks."+v.Name+".", policy+"volumes."+v.Name+"."
		args = append(args, disk+"path="+strings.TrimSuffix(v.Path, "/")+"/", disk+"keep_free_space_bytes="+strconv.FormatInt(keep, 10),
			volume+"disk="+v.Name, volume+"volume_priority="+strconv.Itoa(i+2))
	}
	return args, nil
}

// tableFolders are the folders of each table, one in every place that may hold
// parts of it.
func (c Config) tableFolders() ([][]string, error) {
	by := map[string][]string{}
	roots := []string{filepath.Join(c.DataDir, "engine")}
	for _, v := range c.Volumes {
		roots = append(roots, v.Path)
	}
	for _, root := range roots {
		dirs, err := filepath.Glob(filepath.Join(root, "store", "*", "*"))
		if err != nil {
			return nil, err
		}
		for _, dir := range dirs {
			by[filepath.Base(dir)] = append(by[filepath.Base(dir)], dir)
		}
	}
	out := make([][]string, 0, len(by))
	for _, dirs := range by {
		out = append(out, dirs)
	}
	return out, nil
}
