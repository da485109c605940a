package event

import "bytes"

// predictionColumn reads a member that predictions (and labels: weight) have.
func (d *Decoder) predictionColumn(p *plan, m member) bool {
	cols := p.batch.Columns
	switch m {
	case mOutput:
		return d.output(cols)
	case mSegments:
		return d.stringMap("segments", &cols[PredSegments])
	case mVariant:
		return d.stringColumn("variant", &cols[PredVariant])
	case mFeatureTimes:
		return d.timeMap("feature_times", &cols[PredFeatureTimes])
	case mLatency:
		return d.fields("latency", cols, latencyFields)
	case mThreshold:
		return d.floatColumn("threshold", &cols[PredThreshold])
	case mGroup:
		return d.fields("group", cols, groupFields)
	case mAttributions:
		return d.floatMap("attributions", &cols[PredAttributions])
	case mWeight:
		col := PredWeight
		if p.schema.Kind == Labels {
			col = LabelWeight
		}
		return d.floatColumn("weight", &cols[col])
	}
	return d.fail(ReasonMalformed, "unreachable member "+m.String())
}

// nested is a member of one of the envelope's small objects.
type nested struct {
	name string
	col  int
	read func(d *Decoder, what string, c *Column) bool
}

var latencyFields = []nested{
	{"queue", PredQueueMS, (*Decoder).floatColumn},
	{"features", PredFeaturesMS, (*Decoder).floatColumn},
	{"compute", PredComputeMS, (*Decoder).floatColumn},
}

var groupFields = []nested{
	{"id", PredGroupID, (*Decoder).wordColumn},
	{"position", PredGroupPos, (*Decoder).positionColumn},
}

var outputFields = []nested{
	{"score", PredScore, (*Decoder).floatColumn},
	{"class", PredClass, (*Decoder).classColumn},
	{"value", PredValue, (*Decoder).floatColumn},
	{"scores", PredScores, (*Decoder).floatMap},
	{"quantiles", PredQuantiles, (*Decoder).floatMap},
	{"vector", PredVector, (*Decoder).vector},
	{"items", PredItems, (*Decoder).items},
}

// output reads what the model said: at least one variant.
func (d *Decoder) output(cols []Column) bool {
	if !d.fields("output", cols, outputFields) {
		return false
	}
	for _, f := range outputFields {
		if d.wrote(&cols[f.col]) {
			return true
		}
	}
	return d.fail(ReasonMissing, "output has none of score, scores, class, value, quantiles, vector and items")
}

// wrote reports whether the row being read has a value in the column.
func (d *Decoder) wrote(c *Column) bool {
	row := d.env.plan.batch.Rows
	return c.Len() > row && !c.Null(row)
}

// fields reads one of the envelope's small objects. Members it does not know
// are counted.
func (d *Decoder) fields(what string, cols []Column, known []nested) bool {
	if d.peek() != '{' {
		return d.notObject(what)
	}
	d.pos++
	rows := d.env.plan.batch.Rows
	for first := true; ; first = false {
		another, ok := d.more(first, '}')
		if !ok || !another {
			return ok
		}
		d.depth = 2
		name, ok := d.name()
		if !ok {
			return false
		}
		f := nestedNamed(known, name)
		switch {
		case f == nil:
			d.env.unknown++
			if !d.skip() {
				return false
			}
		case cols[f.col].Len() != rows:
			return d.twice(name)
		case d.peek() == 'n':
			if !d.literal("null") {
				return false
			}
		case !f.read(d, f.name, &cols[f.col]):
			return false
		}
	}
}

func nestedNamed(known []nested, name []byte) *nested {
	for i := range known {
		if known[i].name == string(name) {
			return &known[i]
		}
	}
	return nil
}

func (d *Decoder) floatColumn(what string, c *Column) bool {
	f, ok := d.real(what)
	if ok {
		c.AppendFloat64(f)
	}
	return ok
}

func (d *Decoder) stringColumn(what string, c *Column) bool {
	b, ok := d.text(what)
	if ok {
		c.AppendBytes(b)
	}
	return ok
}

func (d *Decoder) wordColumn(what string, c *Column) bool {
	b, ok := d.word(what)
	if ok {
		c.AppendBytes(b)
	}
	return ok
}

func (d *Decoder) positionColumn(what string, c *Column) bool {
	v, ok := d.whole(what)
	if ok && int64(int32(v)) != v {
		return d.fail(ReasonType, sentence(what, " is beyond the range of Int32"))
	}
	c.AppendInt32(int32(v))
	return ok
}

// classColumn takes a class name; an integer or a boolean stands for its text.
func (d *Decoder) classColumn(what string, c *Column) bool {
	b, ok := d.classText(what)
	if ok {
		c.AppendBytes(b)
	}
	return ok
}

// classText reads a string, an integer or a boolean as text.
func (d *Decoder) classText(what string) ([]byte, bool) {
	if c := d.peek(); c == 't' || c == 'f' {
		start := d.pos
		_, ok := d.flag(what)
		return d.buf[start:d.pos], ok
	}
	return d.word(what)
}

func (d *Decoder) vector(what string, c *Column) bool {
	return d.list(d.env.plan, &slot{name: what, typ: ColumnType{Float64, true}}, c)
}

func (d *Decoder) items(what string, c *Column) bool {
	if d.peek() != '[' {
		return d.fail(ReasonType, sentence(what, " must be an array, found ", d.found()))
	}
	b, ok := d.raw()
	if ok {
		c.AppendBytes(b)
	}
	return ok
}

func (d *Decoder) floatMap(what string, c *Column) bool {
	return d.mapping(what, c, func(d *Decoder, name []byte, items *Column) bool {
		f, ok := d.real(what)
		items.AppendFloat64(f)
		return ok
	})
}

func (d *Decoder) stringMap(what string, c *Column) bool {
	return d.mapping(what, c, func(d *Decoder, name []byte, items *Column) bool {
		b, ok := d.classText(what)
		items.AppendBytes(b)
		return ok
	})
}

func (d *Decoder) timeMap(what string, c *Column) bool {
	return d.mapping(what, c, func(d *Decoder, name []byte, items *Column) bool {
		t, ok := d.when(what)
		items.AppendInt64(t)
		return ok
	})
}

// mapping reads an object into a map column. Members that are null are left
// out.
func (d *Decoder) mapping(what string, c *Column, item func(*Decoder, []byte, *Column) bool) bool {
	if d.peek() != '{' {
		return d.notObject(what)
	}
	d.pos++
	for first := true; ; first = false {
		another, ok := d.more(first, '}')
		if !ok {
			return false
		}
		if !another {
			break
		}
		name, ok := d.name()
		if !ok {
			return false
		}
		if d.peek() == 'n' {
			if !d.literal("null") {
				return false
			}
			continue
		}
		c.Names.AppendBytes(name)
		if !item(d, name, c.Items) {
			return false
		}
	}
	c.endList()
	return d.distinct(c)
}

// distinct refuses a map whose last row names a member twice. Rows mostly have
// the names of the row before, which was distinct.
func (d *Decoder) distinct(c *Column) bool {
	row := len(c.Ends) - 1
	from, to := c.Span(row)
	if row > 0 && sameNames(c, row) {
		return true
	}
	for i := from; i < to; i++ {
		for k := from; k < i; k++ {
			if bytes.Equal(c.Names.Str(int(i)), c.Names.Str(int(k))) {
				return d.twice(c.Names.Str(int(i)))
			}
		}
	}
	return true
}

func sameNames(c *Column, row int) bool {
	from, to := c.Span(row)
	before, _ := c.Span(row - 1)
	if from-before != to-from {
		return false
	}
	for i := from; i < to; i++ {
		if !bytes.Equal(c.Names.Str(int(i)), c.Names.Str(int(before+i-from))) {
			return false
		}
	}
	return true
}

// label reads the truth: a number, a boolean (1 or 0), a class name, one of
// the words for floats, or null, which withdraws the label.
func (d *Decoder) label(p *plan) bool {
	number, class := &p.batch.Columns[LabelNumber], &p.batch.Columns[LabelClass]
	switch d.peek() {
	case 'n':
		d.env.withdrawn = true
		return d.literal("null")
	case 't', 'f':
		v, ok := d.flag("label")
		f := 0.0
		if v {
			f = 1
		}
		number.AppendFloat64(f)
		return ok
	case '"':
		b, ok := d.str()
		if f, is := floatWord(b); is {
			number.AppendFloat64(f)
			return ok
		}
		class.AppendBytes(b)
		return ok
	case '{', '[':
		return d.fail(ReasonType, sentence("label must be a number, a string, a boolean or null, found ", d.found()))
	}
	return d.floatColumn("label", number)
}
