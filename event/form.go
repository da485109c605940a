package event

// PredictionForm writes the predictions of one model's requests: what all of
// them share is put into JSON once, what those of a request share once per
// request. The result is that of [AppendPredictionJSON]. A form is made once
// per model and copied for each request.
type PredictionForm struct {
	model []byte   // up to the id's value
	names [][]byte // `"name":`, with a comma before all but the first
	head  []byte   // from the id's value to the first input
	tail  []byte   // from the output on
}

// NewPredictionForm prepares what all predictions of a version share.
func NewPredictionForm(model, version string, inputs []string) PredictionForm {
	f := PredictionForm{model: appendModel(nil, model, version)}
	for i, name := range inputs {
		var b []byte
		if i > 0 {
			b = append(b, ',')
		}
		f.names = append(f.names, appendMember(b, name))
	}
	return f
}

// Share sets what the rows of a request have in common: everything of r but
// its id, inputs and output. It reuses the form's memory.
func (f *PredictionForm) Share(r *Prediction) {
	f.head = appendTimes(f.head[:0], r.EventTime, r.Created, r.KnownAt)
	f.head = append(appendRaw(f.head, "key", r.Key), `,"inputs":{`...)
	f.tail = appendPredictionTail(f.tail[:0], r)
}

// Adopt takes over the memory that another form needed for its request.
func (f *PredictionForm) Adopt(old *PredictionForm) { f.head, f.tail = old.head, old.tail }

// Begin begins a row; its inputs follow, in the order of the form.
func (f *PredictionForm) Begin(dst []byte, id []byte) []byte {
	return append(AppendString(append(dst, f.model...), id), f.head...)
}

// Float32 appends input i as the shortest text of that width.
func (f *PredictionForm) Float32(dst []byte, i int, v float32) []byte {
	return appendFloatBits(append(dst, f.names[i]...), float64(v), 32)
}

// Value appends input i.
func (f *PredictionForm) Value(dst []byte, i int, v Value) []byte {
	return AppendValue(append(dst, f.names[i]...), v)
}

// End appends the output and ends the row.
func (f *PredictionForm) End(dst []byte, o Output) []byte {
	return append(appendOutput(append(dst, `},"output":`...), o), f.tail...)
}
