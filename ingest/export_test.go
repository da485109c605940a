package ingest

// Guards take protections away, to show that the tests around them can fail.
type Guards struct {
	NoTokens  bool // every attempt of an insert has a token of its own
	NoIntent  bool // a pending unit is not recorded, so it is not repeated as it was
	NoLedger  bool // the position is the group's commit alone
	NoOrphans bool // rows that nothing explains are not looked for
	NoCount   bool // a repeated unit counts as stored when its inserts succeed
	NoFence   bool // a member that slept does not ask whether the partition is still its own
	NoFair    bool // inserts go in the order in which they come, whose ever they are
}

// Without takes guards away from a consumer that does not run yet.
func (c *Consumer) Without(g Guards) {
	c.guards = guards{noTokens: g.NoTokens, noIntent: g.NoIntent, noLedger: g.NoLedger, noOrphans: g.NoOrphans, noCount: g.NoCount, noFence: g.NoFence}
	c.writing = newFairQueue(c.cfg.Writers, g.NoFair)
}

// Queued is how many inserts wait for a place.
func (c *Consumer) Queued() int {
	c.writing.mu.Lock()
	defer c.writing.mu.Unlock()
	return len(c.writing.waiting)
}
