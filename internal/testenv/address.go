package testenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Addresses that are given out lie below the ports that systems hand out by
// themselves, so that nothing else takes one while its server is down.
const lowestPort, highestPort = 20_000, 32_000

// Address returns a loopback address for a server that is started, killed and
// started again by its address. No other test on this machine is given it until
// this one ends.
func Address(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		// A name in the abstract namespace is this process's as long as it lives.
		claim, err := net.Listen("unix", fmt.Sprintf("@kedge-test-port-%d", port))
		if err != nil {
			continue
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", address)
		if err != nil {
			claim.Close()
			continue
		}
		l.Close()
		t.Cleanup(func() { claim.Close() })
		return address
	}
	t.Fatalf("no free port between %d and %d on loopback", lowestPort, highestPort)
	return ""
}
