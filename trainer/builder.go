package trainer

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Chunk is some rows on their way into a [Builder], column by column. Numeric
// columns fill Numbers (NaN is missing); text columns fill Texts, with Missing
// true where there is none.
type Chunk struct {
	Columns []ChunkColumn
	Label   ChunkColumn
	Weight  []float64 // nil: every row weighs 1
	Time    []int64   // event time, microseconds; nil if unknown
}

// ChunkColumn is one column of a [Chunk].
type ChunkColumn struct {
	Numbers []float64
	Texts   []string
	Missing []bool // only beside Texts; nil: none is
}

// rows is the number of rows of the column.
func (c *ChunkColumn) rows() int {
	if c.Texts != nil {
		return len(c.Texts)
	}
	return len(c.Numbers)
}

func (c *ChunkColumn) missing(i int) bool { return c.Missing != nil && c.Missing[i] }

// BuilderConfig bounds what a training set may cost.
type BuilderConfig struct {
	MaxBytes      int64 // what a run on the rows may take, as [runBytes] counts it; 0: no bound
	MaxCategories int   // categories kept by name; rarer ones become OTHER
	MaxDistinct   int   // distinct values after which a column is refused
	MaxClasses    int   // classes of a text label
}

// DefaultBuilderConfig keeps 255 categories, and refuses columns of more than
// 100,000 distinct values: they are identifiers.
func DefaultBuilderConfig() BuilderConfig {
	return BuilderConfig{MaxCategories: 255, MaxDistinct: 100_000, MaxClasses: 1000}
}

// Builder gathers a [Matrix] from chunks. It keeps four bytes per value, so a
// stream of any size costs only what the matrix itself does.
type Builder struct {
	cfg     BuilderConfig
	columns []builderColumn
	label   builderColumn
	weight  []float32
	time    []int64
	rows    int
	digest  *rowDigest
}

type builderColumn struct {
	Field
	values []float32
	codes  map[string]int32
	names  []string
	counts []int
	// nameBytes is what names and their index take, roughly.
	nameBytes int64
}

// NewBuilder prepares for rows of the given inputs. labelType is the label's
// type as definitions spell it; a String label is a class.
func NewBuilder(fields []Field, labelType string, cfg BuilderConfig) (*Builder, error) {
	if len(fields) == 0 {
		return nil, fmt.Errorf("%w: no inputs", ErrParam)
	}
	b := &Builder{cfg: cfg, digest: newRowDigest(fields)}
	seen := make(map[string]bool)
	for _, f := range fields {
		if f.Name == "" || seen[f.Name] {
			return nil, fmt.Errorf("%w: an empty or repeated input name %q", ErrParam, f.Name)
		}
		if f.Type == "Bytes" || f.Type == "Json" || f.Type == "Unknown" {
			return nil, fmt.Errorf("%w: input %q is of type %s: derive a number or a category from it first", ErrType, f.Name, f.Type)
		}
		seen[f.Name] = true
		b.columns = append(b.columns, newBuilderColumn(f))
	}
	b.label = newBuilderColumn(Field{Name: "label", Type: labelType})
	return b, nil
}

func newBuilderColumn(f Field) builderColumn {
	c := builderColumn{Field: f}
	if f.Categorical() {
		c.codes = make(map[string]int32)
	}
	return c
}

// Append adds a chunk's rows. A row without a label is an error, not a row.
func (b *Builder) Append(c Chunk) error {
	n := c.Label.rows()
	if len(c.Columns) != len(b.columns) {
		return fmt.Errorf("%w: a chunk of %d columns for %d inputs", ErrType, len(c.Columns), len(b.columns))
	}
	for i := range c.Columns {
		if c.Columns[i].rows() != n {
			return fmt.Errorf("%w: %d values of %q beside %d labels", ErrType, c.Columns[i].rows(), b.columns[i].Name, n)
		}
	}
	if c.Weight != nil && len(c.Weight) != n || c.Time != nil && len(c.Time) != n {
		return fmt.Errorf("%w: %d weights and %d times beside %d labels", ErrType, len(c.Weight), len(c.Time), n)
	}
	if b.rows > 0 && ((c.Weight == nil) != (b.weight == nil) || (c.Time == nil) != (b.time == nil)) {
		return fmt.Errorf("%w: some chunks have weights or times and others have none", ErrType)
	}
	return b.append(c, n)
}

func (b *Builder) append(c Chunk, n int) error {
	if err := b.checkRows(c); err != nil {
		return err
	}
	if err := b.checkMemory(b.rows + n); err != nil {
		return err
	}
	for i := range c.Columns {
		if err := b.columns[i].append(&c.Columns[i], b.cfg.MaxDistinct); err != nil {
			return err
		}
	}
	if err := b.label.append(&c.Label, b.cfg.MaxClasses); err != nil {
		return err
	}
	for _, w := range c.Weight {
		b.weight = append(b.weight, float32(w))
	}
	b.time = append(b.time, c.Time...)
	for r := range n {
		b.digestRow(c, r)
	}
	b.rows += n
	return nil
}

// runBytes is what a run on so many rows takes at its peak: in the server the
// matrix and, while it is cut, its parts; in the training process the values as
// they came, the library's own copy (eight bytes a value) and its bins.
func runBytes(rows, columns int) int64 {
	server := 2 * (4*(columns+1) + 8 + 4) // label, time, weight
	process := (4+8+2)*columns + 8
	return int64(rows) * int64(server+process)
}

// checkMemory refuses rows before they are held that a run could not.
func (b *Builder) checkMemory(rows int) error {
	var names int64
	for i := range b.columns {
		names += b.columns[i].nameBytes
	}
	need := runBytes(rows, len(b.columns)) + 2*names
	if b.cfg.MaxBytes == 0 || need <= b.cfg.MaxBytes {
		return nil
	}
	return fmt.Errorf("%w: %d rows and more of %d inputs need over %d MiB, and trainer.memory is %d: sample them (sample: 0.2), take fewer inputs or a shorter range, or raise the setting",
		ErrMemory, b.rows, len(b.columns), need>>20, b.cfg.MaxBytes>>20)
}

// checkRows refuses labels and weights that no row can have.
func (b *Builder) checkRows(c Chunk) error {
	for r := range c.Label.rows() {
		if c.Label.missing(r) || c.Label.Texts == nil && (c.Label.Numbers[r]-c.Label.Numbers[r] != 0) {
			return fmt.Errorf("%w: row %d has none, or one that is NaN or infinite: leave rows without a label out", ErrLabel, b.rows+r)
		}
	}
	for r, w := range c.Weight {
		if !(w >= 0) || math.IsInf(w, 0) {
			return fmt.Errorf("%w: row %d has weight %v", ErrType, b.rows+r, w)
		}
	}
	return nil
}

func (b *Builder) digestRow(c Chunk, r int) {
	for i := range c.Columns {
		digestValue(b.digest, &c.Columns[i], r)
	}
	digestValue(b.digest, &c.Label, r)
	if c.Weight != nil {
		b.digest.number(c.Weight[r])
	}
	if c.Time != nil {
		b.digest.number(float64(c.Time[r]))
	}
	b.digest.endRow()
}

func digestValue(d *rowDigest, c *ChunkColumn, r int) {
	switch {
	case c.missing(r):
		d.missing()
	case c.Texts != nil:
		d.text(c.Texts[r])
	default:
		d.number(c.Numbers[r])
	}
}

func (c *builderColumn) append(in *ChunkColumn, maxDistinct int) error {
	if c.codes == nil {
		if in.Texts != nil {
			return fmt.Errorf("%w: %q is %s, but texts came", ErrType, c.Name, c.Type)
		}
		for _, v := range in.Numbers {
			if math.IsInf(v, 0) {
				v = math.NaN() // XGBoost refuses infinities; the digest keeps them
			}
			c.values = append(c.values, float32(v))
		}
		return nil
	}
	for r := range in.rows() {
		text, ok := in.category(r)
		if !ok {
			c.values = append(c.values, float32(math.NaN()))
			continue
		}
		code, err := c.code(text, maxDistinct)
		if err != nil {
			return err
		}
		c.values = append(c.values, float32(code))
	}
	return nil
}

// category is the text that names a row's category.
func (c *ChunkColumn) category(r int) (string, bool) {
	if c.Texts != nil {
		return c.Texts[r], !c.missing(r)
	}
	v := c.Numbers[r]
	return strconv.FormatFloat(v, 'f', -1, 64), v == v
}

func (c *builderColumn) code(text string, maxDistinct int) (int32, error) {
	if code, ok := c.codes[text]; ok {
		c.counts[code]++
		return code, nil
	}
	if len(c.names) >= maxDistinct {
		return 0, fmt.Errorf("%w: %q has more than %d: it looks like an identifier; leave it out, or group its values", ErrCardinality, c.Name, maxDistinct)
	}
	code := int32(len(c.names))
	c.codes[text] = code
	c.names = append(c.names, text)
	c.nameBytes += int64(len(text)) + 64
	c.counts = append(c.counts, 1)
	return code, nil
}

// Matrix returns what was gathered; the builder must not be used any more.
// Categories are numbered by name, whatever order the rows came in, and the
// rarest become OTHER where there are too many.
func (b *Builder) Matrix() (*Matrix, error) {
	if b.rows == 0 {
		return nil, fmt.Errorf("%w: the query returned none: check the time range, the label and the join keys", ErrNoRows)
	}
	m := &Matrix{Weight: b.weight, Time: b.time, Digest: b.digest.value()}
	for i := range b.columns {
		m.Columns = append(m.Columns, b.columns[i].finish(b.cfg.MaxCategories))
	}
	label := b.label.finish(math.MaxInt)
	m.Label, m.Classes = label.Values, label.Categories
	return m, nil
}

// OtherCategory is the name that all rarer categories share.
const OtherCategory = "OTHER"

// finish numbers the kept categories by name.
func (c *builderColumn) finish(maxCategories int) Column {
	out := Column{Field: c.Field, Values: c.values}
	if c.codes == nil {
		return out
	}
	kept := c.kept(maxCategories)
	out.Other = len(kept) < len(c.names)
	renumber := make([]float32, len(c.names))
	for i := range renumber {
		renumber[i] = float32(len(kept))
	}
	for code, old := range kept {
		renumber[old] = float32(code)
		out.Categories = append(out.Categories, c.names[old])
	}
	if out.Other {
		out.Categories = append(out.Categories, otherName(out.Categories))
	}
	for i, v := range out.Values {
		if v == v {
			out.Values[i] = renumber[int(v)]
		}
	}
	return out
}

// kept returns the old codes of the categories that keep their name, ordered
// by name: all, or the most frequent.
func (c *builderColumn) kept(limit int) []int {
	codes := make([]int, len(c.names))
	for i := range codes {
		codes[i] = i
	}
	if len(codes) > limit {
		slices.SortFunc(codes, func(a, b int) int {
			return cmp.Or(cmp.Compare(c.counts[b], c.counts[a]), cmp.Compare(c.names[a], c.names[b]))
		})
		codes = codes[:limit-1]
	}
	slices.SortFunc(codes, func(a, b int) int { return compareNames(c.names[a], c.names[b]) })
	return codes
}

// compareNames orders numbers by value and anything else as text, so that the
// classes "0", "1", … "10" keep their order.
func compareNames(a, b string) int {
	x, errA := strconv.ParseFloat(a, 64)
	y, errB := strconv.ParseFloat(b, 64)
	if errA == nil && errB == nil {
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
	}
	return cmp.Compare(a, b)
}

func otherName(taken []string) string {
	name := OtherCategory
	for slices.Contains(taken, name) {
		name = "_" + name
	}
	return name
}
