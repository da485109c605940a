package source

import (
	"github.com/kedge-ml/kedge/event"
	"github.com/kedge-ml/kedge/event/expression"
)

// machine runs expressions over one row after the other: its fields under their
// names, with dots walking into flattened objects.
type machine struct {
	vm  *expression.Machine
	set bool
}

func newMachine() *machine { return &machine{vm: expression.NewMachine()} }

// reset forgets the row.
func (m *machine) reset() { m.set = false }

func (m *machine) run(e *expression.Program, row Row) (any, error) {
	if !m.set {
		m.load(row)
	}
	return m.vm.Run(e)
}

func (m *machine) load(row Row) {
	m.vm.Clear()
	for _, f := range row.Meta {
		m.vm.Put(f.Name, event.Native(f.Value))
	}
	for _, f := range row.Fields {
		m.vm.Put(f.Name, event.Native(f.Value))
	}
	m.set = true
}
