package processes

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// laptop is a running `everpoint local`.
type laptop struct {
	*process
	dir string
	env []string // of local.env
}

// local starts `everpoint local` on ports that are free.
func local(t *testing.T, flags ...string) *laptop {
	t.Helper()
	l := &laptop{dir: t.TempDir()}
	for range 5 { // somebody else may be quicker to take a port
		base := freePorts(t, 10)
		l.process = &process{
			name: "local", log: filepath.Join(l.dir, "local.log"),
			args: append([]string{"local", "-dir", l.dir, "-port-base", strconv.Itoa(base)}, flags...),
		}
		l.start(t)
		ready := func() bool { return strings.Contains(l.tail(), "everpoint local is ready") }
		until(t, "local is not ready", func() bool { return ready() || l.ended() })
		if ready() {
			break
		}
	}
	t.Cleanup(func() {
		if !l.ended() {
			l.stop(t)
		}
	})
	settings, err := os.ReadFile(filepath.Join(l.dir, "local.env"))
	if err != nil || l.ended() {
		t.Fatalf("local did not start: %v\n%s", err, l.tail())
	}
	l.env = os.Environ()
	for line := range strings.Lines(string(settings)) {
		l.env = append(l.env, strings.ReplaceAll(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "'", ""))
	}
	return l
}

// freePorts returns the first of n ports in a row on which nobody listens.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for base := 20_000 + os.Getpid()%1000*n; base < 32_000; base += n {
		free := true
		for port := base; free && port < base+n; port++ {
			l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return base
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}

func (l *laptop) command(args ...string) (string, error) {
	c := exec.Command(binary, args...)
	c.Env = l.env
	out, err := c.CombinedOutput()
	return string(out), err
}

func (l *laptop) pid(t *testing.T, name string) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(l.dir, name+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// Each process of a local can be killed and started again; the router goes on, and
// both Regions are in sync in the end. When it is told to stop, none is left.
func TestLocal(t *testing.T) {
	l := local(t)
	names := []string{region, otherRegion, "router", "carriers"}
	status := func(want ...string) func() bool {
		return func() bool {
			out, _ := l.command("region", "status") // it fails while a Region is away
			for _, text := range want {
				if !strings.Contains(out, text) {
					return false
				}
			}
			return true
		}
	}
	if !status("control " + region)() {
		out, err := l.command("region", "status")
		t.Errorf("after the start: %v\n%s", err, out)
	}
	for _, name := range names {
		old := l.pid(t, name)
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if name == region {
			until(t, "control does not move", status("control "+otherRegion, "eu-west-1  yes      64 of 64"))
		}
		var out string
		until(t, "it cannot be started again", func() bool {
			var err error
			out, err = l.command("local", "start", "-dir", l.dir, name)
			return err == nil || !strings.Contains(out, "is running")
		})
		if l.pid(t, name) == old {
			t.Fatalf("%s was not started again: %s", name, out)
		}
		if out, err := l.command("local", "start", "-dir", l.dir, name); err == nil || !strings.Contains(out, name+" is running") {
			t.Errorf("%s is started twice: %v %s", name, err, out)
		}
	}
	untilEvery(t, 100*time.Millisecond, "not both Regions are in sync", func() bool {
		_, err := l.command("region", "status")
		return err == nil && status("eu-west-1  yes      32 of 64", "us-east-1  yes      32 of 64")()
	})
	pids := map[string]int{}
	for _, name := range names {
		pids[name] = l.pid(t, name)
	}
	l.stop(t)
	for name, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) && !zombie(pid) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
}

// zombie reports whether a process has ended and nobody has asked how: those that
// `local start` made belong to nobody here.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z")
}
