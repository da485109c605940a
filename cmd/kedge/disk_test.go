package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-ml/kedge/internal/testenv"
)

// TestFullDiskIsSaid fills the store's disk under a running kedge: it is not
// ready and says why, takes events all the same, and stores them all once there
// is space again.
func TestFullDiskIsSaid(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "store")
	if err := os.MkdirAll(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	testenv.MountSmall(t, disk, 256<<20)
	k := startKedge(t, dir)
	now := time.Now()
	k.send(rows("meter", now.Add(-time.Hour), now, 1)) // 1800
	k.caughtUp(1800)
	ballast := testenv.Fill(t, disk)
	sent := int64(1800)
	testenv.Eventually(t, time.Minute, func() error {
		k.send(rows("meter", now.Add(-time.Minute), now, 1)) // 30
		sent += 30
		status, body := get(t, k.http+"/readyz")
		if status != 503 || !strings.Contains(body, `"ready": false`) || !strings.Contains(strings.ToLower(body), "space") {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, func() error {
		if status, body := get(t, k.http+"/readyz"); status != 200 {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	k.caughtUp(sent)
	k.checkLedger(sent, 0)
}
