package testenv

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Valkey is a server of a test's own, which keeps nothing on disk.
type Valkey struct {
	Addr string

	t    testing.TB
	args []string
	cmd  *exec.Cmd
}

// StartValkey runs the pinned server on a free port, with further arguments;
// with --cluster-enabled it has all slots. KEDGE_REDIS_SERVER names another
// server's binary: Debian's redis-server, for one.
func StartValkey(t testing.TB, args ...string) *Valkey {
	t.Helper()
	binary := os.Getenv("KEDGE_REDIS_SERVER")
	if binary == "" {
		binary = pinnedValkey(t)
	}
	return startRedis(t, binary, args)
}

// RedisServer is the redis-server that this machine has, if any.
func RedisServer() (binary string, ok bool) {
	binary, err := exec.LookPath("redis-server")
	return binary, err == nil
}

// StartRedis is StartValkey with the machine's own redis-server.
func StartRedis(t testing.TB, args ...string) *Valkey {
	t.Helper()
	binary, ok := RedisServer()
	if !ok {
		t.Fatal("this machine has no redis-server")
	}
	return startRedis(t, binary, args)
}

func pinnedValkey(t testing.TB) (binary string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(Dep(t, "python/valkey/lib")), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "valkey-server" {
			binary = path
		}
		return err
	})
	if err != nil || binary == "" {
		t.Fatalf("no valkey-server in the pinned wheel: %v", err)
	}
	return binary
}

func startRedis(t testing.TB, binary string, args []string) *Valkey {
	t.Helper()
	v := &Valkey{t: t, Addr: Address(t)}
	_, port, _ := net.SplitHostPort(v.Addr)
	v.args = append([]string{binary, "--port", port, "--bind", "127.0.0.1", "--save", ""}, args...)
	v.Start()
	t.Cleanup(v.Kill)
	return v
}

// Start runs the server again after Kill, empty and on the same port.
func (v *Valkey) Start() {
	v.t.Helper()
	v.cmd = exec.Command(v.args[0], append(v.args[1:], "--dir", v.t.TempDir())...)
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	cluster := slices.Contains(v.args, "--cluster-enabled")
	Eventually(v.t, 20*time.Second, func() error {
		if cluster {
			if _, err := v.Say("CLUSTER ADDSLOTSRANGE 0 16383"); err != nil { // refused the second time
				return err
			}
		}
		got, err := v.Say("GET nothing")
		if err == nil && strings.HasPrefix(got, "-CLUSTERDOWN") {
			err = errors.New(got)
		}
		return err
	})
}

// Kill ends the server at once; what it held is gone.
func (v *Valkey) Kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
}

// Say sends one command and returns the first line of the answer.
func (v *Valkey) Say(command string) (string, error) {
	conn, err := net.Dial("tcp", v.Addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// PID is the server's process.
func (v *Valkey) PID() int { return v.cmd.Process.Pid }

// CPU is what the server has used of all cores.
func (v *Valkey) CPU() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.cmd.Process.Pid))
	if err != nil {
		v.t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // user and system, in hundredths of a second
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			v.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
