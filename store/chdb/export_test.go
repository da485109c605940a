package chdb

import "time"

// Bare opens the engine without keeping its definitions.
func Bare(c Config) Config {
	c.bare = true
	return c
}

// WithoutRoom lets definitions change on a full disk.
func (db *DB) WithoutRoom() { db.defs.room = nil }

// Blind opens the engine without looking for failed writes.
func Blind(c Config) Config {
	c.blind = true
	return c
}

// Undo removes a table's parts since a time that can be made again.
func Undo(dirs []string, since time.Time) ([]string, error) { return undo(dirs, since) }
