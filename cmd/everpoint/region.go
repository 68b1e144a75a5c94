package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
)

// errUnheard says that a Region of the group is not heard.
var errUnheard = errors.New("a Region of the group is not heard")

func region(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("region", `region status [flags]

Shows how the Region of the node that is asked hears of the others: how late it
is, what it has merged of theirs, and what they have of its own. Fails when one
of them is not heard.`, stderr)
	var to target
	to.flags(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	if len(args) == 0 {
		fs.Usage()
		return errUsage
	}
	if done, err := parse(fs, args[1:]); done {
		return err
	}
	if args[0] != "status" || fs.NArg() > 0 {
		fs.Usage()
		return errUsage
	}
	c, err := to.client()
	if err != nil {
		return err
	}
	var s everpoint.NodeStatus
	if err := c.call(ctx, adminService, "GET", "/everpoint/v1/node", nil, nil, &s); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(stdout, s)
	}
	fmt.Fprintf(stdout, "%s, incarnation %s\n", s.Region, s.Incarnation)
	if len(s.Peers) == 0 {
		fmt.Fprintln(stdout, "no other Region")
		return nil
	}
	rows := [][]string{{"REGION", "HEARD", "LAG", "SAFETY MERGED", "CHANGES MERGED", "OF OURS THERE", "PROBLEM"}}
	unheard := false
	for _, p := range s.Peers {
		heard, problem := "never", ""
		if p.HeardAt != nil {
			heard = p.HeardAt.Format(time.RFC3339)
		}
		if p.Problem != nil {
			problem = *p.Problem
		}
		unheard = unheard || p.HeardAt == nil || problem != ""
		rows = append(rows, []string{
			p.Region, heard, (time.Duration(p.LagMilliseconds) * time.Millisecond).String(), of(p.SafetyMerged, p.SafetyHead),
			of(p.ChangesMerged, p.ChangesHead), strconv.FormatInt(p.SafetyAcknowledged, 10) + ", " + strconv.FormatInt(p.ChangesAcknowledged, 10), problem,
		})
	}
	if err := table(stdout, rows); err != nil {
		return err
	}
	if unheard {
		return errUnheard
	}
	return nil
}

func of(n, all int64) string { return strconv.FormatInt(n, 10) + " of " + strconv.FormatInt(all, 10) }
