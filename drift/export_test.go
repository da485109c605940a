package drift

// JudgeUnseen is judgeUnseen, for the tests that draw worlds.
func JudgeUnseen(c Column) Judgement { return judgeUnseen(c) }

// SmallestDistance is smallestDistance, which a preview answers.
func SmallestDistance(b *Baseline, rows float64, asked int, o Options) float64 {
	return smallestDistance(b, rows, asked, o)
}
