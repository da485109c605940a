package event

// Len returns the number of complete rows of the column.
func (c *Column) Len() int {
	switch {
	case c.Items != nil:
		return len(c.Ends)
	case c.Nulls != nil:
		return len(c.Nulls)
	}
	switch c.Type.Elem {
	case Bool:
		return len(c.Bools)
	case Int32:
		return len(c.Int32s)
	case Int64, Timestamp:
		return len(c.Int64s)
	case Float32:
		return len(c.Float32s)
	case Float64:
		return len(c.Float64s)
	}
	return len(c.StrEnds)
}

// Truncate drops all rows from n on, and whatever an unfinished row n left
// behind. It does nothing to a column of fewer rows.
func (c *Column) Truncate(n int) {
	if c.Nulls != nil {
		c.Nulls = c.Nulls[:min(n, len(c.Nulls))]
	}
	if c.Items != nil {
		c.truncateList(n)
		return
	}
	switch c.Type.Elem {
	case Bool:
		c.Bools = c.Bools[:min(n, len(c.Bools))]
	case Int32:
		c.Int32s = c.Int32s[:min(n, len(c.Int32s))]
	case Int64, Timestamp:
		c.Int64s = c.Int64s[:min(n, len(c.Int64s))]
	case Float32:
		c.Float32s = c.Float32s[:min(n, len(c.Float32s))]
	case Float64:
		c.Float64s = c.Float64s[:min(n, len(c.Float64s))]
	default:
		c.StrEnds = c.StrEnds[:min(n, len(c.StrEnds))]
		c.Data = c.Data[:lastOf(c.StrEnds)]
	}
}

func (c *Column) truncateList(n int) {
	c.Ends = c.Ends[:min(n, len(c.Ends))]
	end := int(lastOf(c.Ends))
	c.Items.Truncate(end)
	if c.Names != nil {
		c.Names.Truncate(end)
	}
}

func lastOf[T uint32 | uint64](ends []T) T {
	if len(ends) == 0 {
		return 0
	}
	return ends[len(ends)-1]
}

// AppendNull adds a row without a value: null where the column is nullable,
// else the zero value; an empty list or map.
func (c *Column) AppendNull() {
	if c.Items != nil {
		c.Ends = append(c.Ends, lastOf(c.Ends))
		return
	}
	if c.Nulls != nil {
		c.Nulls = append(c.Nulls, 1)
	}
	switch c.Type.Elem {
	case Bool:
		c.Bools = append(c.Bools, 0)
	case Int32:
		c.Int32s = append(c.Int32s, 0)
	case Int64, Timestamp:
		c.Int64s = append(c.Int64s, 0)
	case Float32:
		c.Float32s = append(c.Float32s, 0)
	case Float64:
		c.Float64s = append(c.Float64s, 0)
	default:
		c.StrEnds = append(c.StrEnds, uint32(len(c.Data)))
	}
}

func (c *Column) notNull() {
	if c.Nulls != nil {
		c.Nulls = append(c.Nulls, 0)
	}
}

// AppendBool adds a row to a Bool column.
func (c *Column) AppendBool(v bool) {
	b := uint8(0)
	if v {
		b = 1
	}
	c.Bools = append(c.Bools, b)
	c.notNull()
}

// AppendInt32 adds a row to an Int32 column.
func (c *Column) AppendInt32(v int32) {
	c.Int32s = append(c.Int32s, v)
	c.notNull()
}

// AppendInt64 adds a row to an Int64 or Timestamp column.
func (c *Column) AppendInt64(v int64) {
	c.Int64s = append(c.Int64s, v)
	c.notNull()
}

// AppendFloat32 adds a row to a Float32 column.
func (c *Column) AppendFloat32(v float32) {
	c.Float32s = append(c.Float32s, v)
	c.notNull()
}

// AppendFloat64 adds a row to a Float64 column.
func (c *Column) AppendFloat64(v float64) {
	c.Float64s = append(c.Float64s, v)
	c.notNull()
}

// AppendBytes adds a row to a String, Bytes or JSON column.
func (c *Column) AppendBytes(v []byte) {
	c.Data = append(c.Data, v...)
	c.endBytes()
}

// endBytes ends the row whose bytes were appended to Data.
func (c *Column) endBytes() {
	c.StrEnds = append(c.StrEnds, uint32(len(c.Data)))
	c.notNull()
}

// endList ends the row whose elements were appended to Items.
func (c *Column) endList() { c.Ends = append(c.Ends, uint64(c.Items.Len())) }
