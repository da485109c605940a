package trainer

import (
	"strconv"
	"syscall"
	"testing"
)

func kill(t *testing.T, pid string) bool {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Error(err)
		return false
	}
	return syscall.Kill(n, syscall.SIGKILL) == nil
}
