package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/cmd/node"
)

// aLaptop is a local edition in a directory, whose settings are written.
func aLaptop(t *testing.T, dir string, regions int) *laptop {
	t.Helper()
	l := &laptop{dir: dir, portBase: 7480, regions: localRegions[:regions], out: io.Discard}
	if err := l.settle(); err != nil {
		t.Fatal(err)
	}
	if err := l.write(); err != nil {
		t.Fatal(err)
	}
	return l
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Two Regions can read what is written for them, share the hashing keyset and keep
// their own for sealing; a second start changes none of it.
func TestLocal_two_Regions(t *testing.T) {
	l := aLaptop(t, t.TempDir(), 2)
	kept := []string{
		"ca.pem", "node.pem", "node.key", "secret", "group-ca.pem", "us-east-1.pem", "eu-west-1.pem", "witness.pem", "witness.key",
		"us-east-1/keys/sealing.json", "us-east-1/keys/hashing.json", "eu-west-1/keys/hashing.json",
	}
	before := map[string]string{}
	for _, name := range kept {
		before[name] = read(t, l.path(name))
	}
	if before["us-east-1/keys/hashing.json"] != before["eu-west-1/keys/hashing.json"] {
		t.Error("the Regions have different hashing keysets")
	}
	listens := map[string]string{}
	once := func(who, address string) {
		t.Helper()
		if other := listens[address]; other != "" {
			t.Errorf("%s and %s listen on %s", who, other, address)
		}
		listens[address] = who
	}
	for _, name := range l.regions {
		c, err := node.LoadConfig(l.path(name + ".json"))
		if err != nil {
			t.Fatal(err)
		}
		once(name+"'s door", c.Door.Listen)
		once(name+"'s peers", c.Group.Listen)
		once(name+"'s events", c.Events.Dir)
		if c.Region != name || len(c.Group.Peers) != 1 || c.Group.Witness.Region != localWitness || len(c.Door.RegionsAccepted) != 1 {
			t.Errorf("%s: %+v", name, c.Group)
		}
	}
	c, err := loadRouterConfig(l.path("router.json"))
	if err != nil {
		t.Fatal(err)
	}
	once("router", c.Listen)
	once("status", c.Admin)
	once("witness", c.Witness.Listen)
	env := read(t, l.path("local.env"))
	for _, line := range []string{
		"AWS_ENDPOINT_URL='https://" + c.Listen + "'", "EVERPOINT_REGIONS='us-east-1=" + c.Regions[0].URL + ",eu-west-1=" + c.Regions[1].URL + "'",
	} {
		if !strings.Contains(env, line) {
			t.Errorf("local.env lacks %s:\n%s", line, env)
		}
	}
	aLaptop(t, l.dir, 2)
	for name, was := range before {
		if read(t, l.path(name)) != was {
			t.Errorf("a second start made %s anew", name)
		}
	}
}

// A directory of one Region can get a second; two do not become one.
func TestLocal_Regions_may_become_more(t *testing.T) {
	one := aLaptop(t, t.TempDir(), 1)
	ca := read(t, one.path("ca.pem"))
	if c, err := node.LoadConfig(one.path("us-east-1.json")); err != nil || c.Group != nil || c.Door.Listen != one.address(portAPI) {
		t.Errorf("one Region: %v, %+v", err, c)
	}
	if _, err := os.Stat(one.path("router.json")); err == nil {
		t.Error("one Region has a router")
	}
	two := aLaptop(t, one.dir, 2)
	if c, err := node.LoadConfig(two.path("us-east-1.json")); err != nil || c.Group == nil || read(t, two.path("ca.pem")) != ca {
		t.Errorf("its second start with two: %v, %+v", err, c)
	}
	var out bytes.Buffer
	err := local(t.Context(), []string{"-dir", one.dir, "-regions", "1"}, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "holds 2 Regions") {
		t.Errorf("two Regions became one: %v", err)
	}
	if err := os.WriteFile(two.path("eu-west-1/keys/hashing.json"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := two.write(); err == nil || !strings.Contains(err.Error(), "is not that of us-east-1") {
		t.Errorf("another hashing keyset: %v", err)
	}
}

func TestLocal_gathered(t *testing.T) {
	g := aGroup()
	g.Regions = g.Regions[1:]
	if err := gathered(g, 2); err == nil || !strings.Contains(err.Error(), "2 of 2 Regions are in sync, 2 of 3 voters have a vote") {
		t.Errorf("with a learner: %v", err)
	}
	g.Quorum.Voters[1].Learner = false
	if err := gathered(g, 2); err != nil {
		t.Errorf("when all are there: %v", err)
	}
	g.Regions[0].InSync = false
	if err := gathered(g, 2); err == nil {
		t.Error("a Region that is not in sync is not missed")
	}
	g.Regions[0].InSync, g.Control = true, &everpoint.GroupControl{}
	if err := gathered(g, 2); err == nil {
		t.Error("that nobody has control is not missed")
	}
}
