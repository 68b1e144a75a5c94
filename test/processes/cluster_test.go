package processes

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// cluster is a PostgreSQL server of one Region's own.
type cluster struct {
	t     *testing.T
	url   string
	alive io.Closer // the server goes when it is closed
	cmd   *exec.Cmd
}

// newCluster starts a server on an empty disk. It goes with the test, or when it is lost.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	cmd := exec.Command("../../scripts/postgres.sh", "with", "sh", "-c", `printf '%s\n' "$TEST_POSTGRES_URL" && exec cat`)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TEST_POSTGRES_URL=") })
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, alive: in, cmd: cmd}
	t.Cleanup(c.lose)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("a PostgreSQL server of a Region's own did not start: %v", err)
	}
	c.url = strings.TrimSpace(line)
	return c
}

// lose ends the server at once, and takes its disk.
func (c *cluster) lose() {
	if c.alive == nil {
		return
	}
	_ = c.alive.Close()
	c.alive = nil
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("end a PostgreSQL server: %v", err)
	}
}
