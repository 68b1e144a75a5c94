package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// victim is a process of `everpoint local` that is killed on the way.
type victim struct {
	name    string // of its pid file, or nameControl, or nameOther
	percent int    // of the reachable recipients, when it is killed
	dir     string // of the local
	command string // the everpoint binary
}

// Names that stand for a Region: the one that has control, and one that has not.
const (
	nameControl = "control"
	nameOther   = "other"
)

// parseVictim reads NAME:PERCENT; nil for the empty text.
func parseVictim(text, dir, command string) (*victim, error) {
	if text == "" {
		return nil, nil
	}
	name, percent, ok := strings.Cut(text, ":")
	n, err := strconv.Atoi(percent)
	switch {
	case !ok || err != nil || n < 1 || n > 99 || name == "" || strings.ContainsRune(name, filepath.Separator):
		return nil, fmt.Errorf("-kill %q: expected NAME:PERCENT, such as us-east-1:40 or control:50", text)
	case name == "carriers":
		return nil, errors.New("-kill carriers: the outbox, which the sample is judged by, lives in that process")
	}
	return &victim{name: name, percent: n, dir: dir, command: command}, nil
}

// kill ends a process by SIGKILL and waits until it is gone.
func (v *victim) kill(ctx context.Context, name string) error {
	pid, err := v.pid(name)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s (%d): %w", name, pid, err)
	}
	for gone := time.Now().Add(10 * time.Second); v.runs(pid); {
		if time.Now().After(gone) {
			return fmt.Errorf("%s (%d) does not die", name, pid)
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// start starts a process again, and returns when it answers.
func (v *victim) start(ctx context.Context, name string) error {
	start := exec.CommandContext(ctx, v.command, "local", "start", "-dir", v.dir, name)
	if out, err := start.CombinedOutput(); err != nil {
		return fmt.Errorf("start %s again: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

func (v *victim) pid(name string) (int, error) {
	file := filepath.Join(v.dir, name+".pid")
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid < 2 {
		return 0, fmt.Errorf("%s holds no process id", file)
	}
	return pid, nil
}

// runs reports whether any thread of the process is left. A zombie that nobody
// collects has ended; its first thread is a zombie before the others have closed
// their files, though.
func (v *victim) runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) // elsewhere than on Linux signal 0 has to do
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z") || err == nil && len(threads) > 1
}
