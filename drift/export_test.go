package drift

// JudgeUnseen is judgeUnseen, for the tests that draw worlds.
func JudgeUnseen(c Column) Judgement { return judgeUnseen(c) }
