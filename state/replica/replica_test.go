package replica

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

var (
	kindPerson = store.Kind{Name: "person", Rule: changelog.RuleRecord}
	kindThing  = store.Kind{Name: "thing", Rule: changelog.RuleDocument}
	kindClaim  = store.Kind{Name: "claim", Rule: changelog.RuleAppend, Safety: true}
)

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

// config is how a Region speaks and listens.
func (a *authority) config(t testing.TB, uri *url.URL) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if uri != nil {
		template.URIs = []*url.URL{uri}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: a.pool, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
}

// group is some Regions that hear of each other over TLS on loopback.
type group struct {
	t       testing.TB
	keys    *store.Keys
	ca      *authority
	regions []*region
}

// region is one of them; its store can be stopped and started.
type region struct {
	g     *group
	name  string
	cfg   store.Config
	tune  func(*Config)
	clock func() time.Time // of the replica; nil: time.Now

	server *httptest.Server
	mu     sync.Mutex
	now    http.Handler // nil: cut off
	conns  map[net.Conn]bool

	store   *store.Store
	replica *Replica
	stop    func()
}

func newGroup(t testing.TB, url string, names ...string) *group {
	t.Helper()
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	g := &group{t: t, keys: keys, ca: newAuthority(t)}
	for _, name := range names {
		r := &region{g: g, name: name, cfg: store.Config{Dir: t.TempDir(), Region: name, SQLiteYoungMax: 100}, conns: map[net.Conn]bool{}}
		if url != "" {
			r.cfg.PostgresURL = newDatabase(t, url)
		}
		r.server = httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
		r.server.EnableHTTP2 = true
		r.server.TLS = g.ca.config(t, CertificateURI(name))
		r.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
		r.server.Config.ConnState = r.connected
		r.server.StartTLS()
		t.Cleanup(r.server.Close)
		g.regions = append(g.regions, r)
	}
	return g
}

func newDatabase(t testing.TB, server string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	name := "replica_" + strings.ToLower(rand.Text()[:12])
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = conn.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
		conn.Close(context.Background())
	})
	cfg := conn.Config()
	return fmt.Sprintf("postgres://%s:%s@/%s?host=%s&port=%d&sslmode=disable", cfg.User, cfg.Password, name, cfg.Host, cfg.Port)
}

func engines(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, "") })
	if url := os.Getenv("TEST_POSTGRES_URL"); url != "" {
		t.Run("postgres", func(t *testing.T) { test(t, url) })
	}
}

func (r *region) serve(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	h := r.now
	r.mu.Unlock()
	if h == nil {
		panic(http.ErrAbortHandler)
	}
	h.ServeHTTP(w, req)
}

func (r *region) connected(c net.Conn, s http.ConnState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s == http.StateClosed || s == http.StateHijacked {
		delete(r.conns, c)
	} else {
		r.conns[c] = true
	}
}

// cut breaks the connections to the Region, and refuses new ones until it is
// joined again.
func (r *region) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = nil
	for c := range r.conns {
		c.Close()
	}
}

func (r *region) join() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.replica.Handler()
}

func (r *region) start() {
	t := r.g.t
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	st, err := store.Open(t.Context(), r.cfg, r.g.keys, time.Now, log)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Region: r.name, Node: "n1", Caller: ByCertificate, Heartbeat: 20 * time.Millisecond, Timeout: time.Second,
		LeaseTime: 300 * time.Millisecond, RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond,
		Indexes: func(kind, key string, body []byte) ([]store.Index, error) { return indexesOf(body) },
	}
	for _, other := range r.g.regions {
		if other != r {
			cfg.Peers = append(cfg.Peers, Peer{other.name, other.server.URL})
		}
	}
	if r.tune != nil {
		r.tune(&cfg)
	}
	client := Client(r.g.ca.config(t, CertificateURI(r.name)))
	clock := time.Now
	if r.clock != nil {
		clock = r.clock
	}
	rep, err := New(cfg, st, client, clock, log)
	if err != nil {
		t.Fatal(err)
	}
	st.Acknowledge(rep.Acknowledge)
	storeCtx, stopStore := context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	var stored, running sync.WaitGroup
	stored.Go(func() { _ = st.Run(storeCtx) })
	r.store, r.replica = st, rep
	r.join()
	running.Go(func() { _ = rep.Run(ctx) })
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			r.cut()
			cancel()
			running.Wait()
			client.CloseIdleConnections()
			stopStore()
			stored.Wait()
		})
	}
	t.Cleanup(r.stop)
}

func indexesOf(body []byte) ([]store.Index, error) {
	rec, err := changelog.DecodeRecord(body)
	if err != nil {
		return nil, err
	}
	if v, ok := rec.Get("user"); ok {
		return []store.Index{{Name: "user", Value: string(v)}}, nil
	}
	return nil, nil
}

// set writes a member of a person.
func (r *region) set(key, path, value string) error {
	return r.store.Update(context.Background(), func(tx *store.Tx) error { return setIn(tx, key, path, value) })
}

func setIn(tx *store.Tx, key, path, value string) error {
	body, err := tx.Get(kindPerson, key)
	if err != nil {
		return err
	}
	var rec changelog.Record
	if body != nil {
		if rec, err = changelog.DecodeRecord(body); err != nil {
			return err
		}
	}
	at := tx.Stamp(rec.Latest())
	if path == "" {
		rec.Delete(at)
	} else {
		rec.Set(path, []byte(value), at)
	}
	body = changelog.AppendRecord(nil, &rec)
	x, err := indexesOf(body)
	if err != nil {
		return err
	}
	return tx.Put(kindPerson, key, body, x...)
}

// rows is everything that Regions share, as text.
func (r *region) rows() map[string]string {
	r.g.t.Helper()
	out := map[string]string{}
	if err := r.store.ScanKinds(context.Background(), []store.Kind{kindPerson, kindThing, kindClaim}, func(row store.Row) error {
		out[row.Kind+" "+row.Key] = fmt.Sprintf("%x", row.Body)
		return nil
	}); err != nil {
		r.g.t.Fatal(err)
	}
	return out
}

func (g *group) eventually(what string, ok func() bool) {
	g.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			for _, r := range g.regions {
				g.t.Logf("%s: %+v", r.name, r.replica.Status())
			}
			g.t.Fatalf("not in time: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// agree waits until all Regions hold the same.
func (g *group) agree() {
	g.t.Helper()
	differs := ""
	defer func() {
		if g.t.Failed() {
			g.t.Log(differs)
		}
	}()
	g.eventually("all hold the same", func() bool {
		first := g.regions[0].rows()
		for _, r := range g.regions[1:] {
			rows := r.rows()
			for key := range first {
				if differs = fmt.Sprintf("%s: %s has %s, %s has %s", key, g.regions[0].name, first[key], r.name, rows[key]); rows[key] != first[key] {
					return false
				}
			}
			for key := range rows {
				if differs = fmt.Sprintf("%s has %s too", r.name, key); first[key] == "" {
					return false
				}
			}
		}
		return true
	})
}

func TestRegions_come_to_hold_the_same_whatever_breaks(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		rnd := mathrand.New(mathrand.NewPCG(seed, 1))
		g := newGroup(t, url, "us-east-1", "eu-west-1", "ap-south-1")
		var mu sync.Mutex
		breaking := false
		for i, r := range g.regions {
			chance := mathrand.New(mathrand.NewPCG(seed, uint64(i)+2))
			r.cfg.Fault = func(point string) error {
				mu.Lock()
				defer mu.Unlock()
				if breaking && chance.IntN(25) == 0 {
					return errors.New("the power is gone at " + point)
				}
				return nil
			}
			r.start()
		}
		broken := func(b bool) {
			mu.Lock()
			defer mu.Unlock()
			breaking = b
		}
		facts, claims := 0, 0
		for round := range 60 {
			broken(round%2 == 1)
			for range 8 {
				r := g.regions[rnd.IntN(len(g.regions))]
				key := fmt.Sprint("k", rnd.IntN(10))
				claims++
				what, value := rnd.IntN(6), fmt.Sprint(rnd.IntN(3))
				err := r.store.Update(t.Context(), func(tx *store.Tx) error {
					switch what {
					case 0:
						return setIn(tx, key, "", "")
					case 1:
						v := value
						return store.Save(tx, kindThing, r.name+key, &v)
					case 2:
						return tx.Remove(kindThing, r.name+key)
					case 3:
						return tx.Put(kindClaim, fmt.Sprint(r.name, claims), []byte(value))
					default:
						tx.Append(fmt.Appendf(nil, "%s %d", r.name, round))
						return setIn(tx, key, []string{"user", "color"}[what-4], value)
					}
				})
				if err == nil && what >= 4 {
					facts++
				}
			}
			r := g.regions[rnd.IntN(len(g.regions))]
			switch rnd.IntN(6) {
			case 0:
				r.cut()
			case 1:
				broken(false)
				r.stop()
				r.start()
			default:
				r.join()
			}
		}
		broken(false)
		for _, r := range g.regions {
			r.join()
		}
		g.agree()
		// Each fact is with everybody, once.
		g.eventually("all facts are heard", func() bool {
			for _, r := range g.regions {
				heard := 0
				for _, st := range []store.Stream{store.Events, store.Heard} {
					blocks, err := r.store.Blocks(t.Context(), st, 0, 10_000)
					if err != nil {
						t.Fatal(err)
					}
					for _, b := range blocks {
						heard += len(b.Records)
					}
				}
				all := 0
				for _, o := range g.regions {
					blocks, err := o.store.Blocks(t.Context(), store.Events, 0, 10_000)
					if err != nil {
						t.Fatal(err)
					}
					for _, b := range blocks {
						all += len(b.Records)
					}
				}
				if heard > all {
					t.Fatalf("%s has %d facts of %d", r.name, heard, all)
				}
				if heard < all || all < facts {
					return false
				}
			}
			return true
		})
		for _, r := range g.regions {
			for v := range 3 {
				rows, err := r.store.Reader(t.Context()).Lookup(kindPerson, store.Index{Name: "user", Value: fmt.Sprint(v)}, 100)
				if err != nil {
					t.Fatal(err)
				}
				for _, row := range rows {
					if rec, err := changelog.DecodeRecord(row.Body); err != nil || !bytes.Equal(value(&rec, "user"), fmt.Append(nil, v)) {
						t.Errorf("%s finds %s under user %d", r.name, row.Key, v)
					}
				}
			}
		}
	})
}

func value(r *changelog.Record, path string) []byte {
	v, _ := r.Get(path)
	return v
}

func TestNew_region_takes_the_rows_and_goes_on_where_it_was_interrupted(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		g := newGroup(t, url, "us-east-1", "eu-west-1")
		old, fresh := g.regions[0], g.regions[1]
		old.start()
		const n = 6000
		for from := 0; from < n; from += 1000 {
			if err := old.store.Update(t.Context(), func(tx *store.Tx) error {
				for i := range 1000 {
					if err := setIn(tx, fmt.Sprint("k", from+i), "user", "u"); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		v := 1
		if err := old.store.Update(t.Context(), func(tx *store.Tx) error { return store.Save(tx, kindThing, "gone", &v) }); err != nil {
			t.Fatal(err)
		}
		if err := old.store.Update(t.Context(), func(tx *store.Tx) error { return tx.Remove(kindThing, "gone") }); err != nil {
			t.Fatal(err)
		}
		// It is cut off in the middle of the rows, and the old Region goes on writing.
		fresh.start()
		g.eventually("some rows have come", func() bool { return fresh.replica.Status()[0].Rows > 0 })
		old.cut()
		fresh.stop()
		had := len(fresh.reopened())
		if had == 0 || had >= n {
			t.Logf("it had %d rows when it was cut off: nothing was interrupted", had)
		}
		old.join()
		if err := old.set("k5", "user", "changed"); err != nil {
			t.Fatal(err)
		}
		fresh.start()
		g.agree()
		if got := fresh.replica.Status()[0].Rows; int(got) > n+10-had+2*rowsCount {
			t.Errorf("%d rows were told again though %d were there", got, had)
		}
		if err := old.set("k6", "user", "later"); err != nil {
			t.Fatal(err)
		}
		g.agree()
		// What was removed came as removed: an old version of it is not new.
		if err := fresh.store.Update(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Merge(changelog.Change{
				Kind: kindThing.Name, Key: "gone", Rule: kindThing.Rule, Body: changelog.AppendDocument(nil, changelog.Document{Version: 1, Body: []byte("1")}),
			}, false, nil)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if body, err := fresh.store.Reader(t.Context()).Get(kindThing, "gone"); err != nil || body != nil {
			t.Errorf("what was removed is back: %s, %v", body, err)
		}
	})
}

// reopened is what the Region's database holds while nothing runs on it.
func (r *region) reopened() map[string]string {
	t := r.g.t
	t.Helper()
	st, err := store.Open(t.Context(), r.cfg, r.g.keys, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = st.Run(ctx) }()
	was := r.store
	r.store = st
	defer func() { r.store = was; cancel(); <-done }()
	return r.rows()
}

// A Region that is restored from a backup gets back from the others what it had
// told them, and they hear what it writes from then on.
func TestRestored_region_gets_its_lost_writes_back(t *testing.T) {
	t.Run("its lineage tells", func(t *testing.T) { restored(t, true) })
	// The lineage file is as old as the backup, or was written within the second
	// before: another Region knows more of this one than its own disk.
	t.Run("only the other Region can tell", func(t *testing.T) { restored(t, false) })
}

func restored(t *testing.T, lineage bool) {
	g := newGroup(t, "", "us-east-1", "eu-west-1")
	a, b := g.regions[0], g.regions[1]
	a.start()
	b.start()
	if err := a.set("k1", "user", "before"); err != nil {
		t.Fatal(err)
	}
	g.agree()
	a.stop()
	backup := t.TempDir()
	copyFiles(t, a.cfg.Dir, backup, func(name string) bool {
		return strings.HasPrefix(name, "everpoint.db") || !lineage && name == "lineage.json"
	})
	a.start()
	first := a.store.Incarnation()
	for i := range 20 {
		if err := a.set(fmt.Sprint("k", i), "user", "after"); err != nil {
			t.Fatal(err)
		}
	}
	g.agree()
	a.stop()
	copyFiles(t, backup, a.cfg.Dir, func(string) bool { return true })
	a.start()
	if lineage && a.store.Incarnation() == first {
		t.Fatal("a restored database goes on in its old life")
	}
	if err := b.set("k3", "color", "red"); err != nil {
		t.Fatal(err)
	}
	if err := a.set("k4", "color", "blue"); err != nil {
		t.Fatal(err)
	}
	g.agree()
	if a.store.Incarnation() == first {
		t.Fatal("a restored database goes on in its old life")
	}
	rows := a.rows()
	if len(rows) != 20 {
		t.Errorf("%d rows of 20 are back", len(rows))
	}
	if body, err := b.store.Reader(t.Context()).Get(kindPerson, "k4"); err != nil || !bytes.Contains(body, []byte("blue")) {
		t.Errorf("what the restored Region wrote is not with the other: %x, %v", body, err)
	}
}

func copyFiles(t *testing.T, from, to string, which func(string) bool) {
	t.Helper()
	for _, dir := range []string{from, to} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), "everpoint.db") {
				continue
			}
			if dir == to {
				if err := os.Remove(filepath.Join(to, e.Name())); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !which(e.Name()) || e.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSafety_data_is_with_the_group_before_it_is_answered(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		g := newGroup(t, url, "us-east-1", "eu-west-1")
		a, b := g.regions[0], g.regions[1]
		a.tune = func(c *Config) {
			c.Group, c.AckMax = func() (map[string]string, error) { return map[string]string{"eu-west-1": ""}, nil }, 500*time.Millisecond
		}
		a.start()
		b.start()
		claim := func(key string) error {
			return a.store.Update(t.Context(), func(tx *store.Tx) error { return tx.Put(kindClaim, key, []byte("mine")) })
		}
		for i := range 50 {
			key := fmt.Sprint("c", i)
			if err := claim(key); err != nil {
				t.Fatal(err)
			}
			if body, err := b.store.Reader(t.Context()).Get(kindClaim, key); err != nil || body == nil {
				t.Fatalf("%s was answered and is not with the group: %v", key, err)
			}
		}
		b.cut()
		a.cut()
		begun := time.Now()
		if err := claim("alone"); aws.KindOf(err) != aws.KindUnavailable || !strings.Contains(err.Error(), "eu-west-1") {
			t.Errorf("a claim that only one Region has is answered %v", err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("after %s", took)
		}
		if err := a.set("k", "user", "u"); err != nil {
			t.Errorf("other data waits for the group: %v", err)
		}
		a.join()
		b.join()
		g.agree()
		if err := claim("together"); err != nil {
			t.Error(err)
		}
	})
}

func TestRegions_with_other_keysets_take_nothing_from_each_other(t *testing.T) {
	g := newGroup(t, "", "us-east-1", "eu-west-1")
	a, b := g.regions[0], g.regions[1]
	a.start()
	if err := a.set("k", "user", "u"); err != nil {
		t.Fatal(err)
	}
	keys, err := store.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	g.keys = keys
	b.start()
	g.eventually("it says why", func() bool {
		err := b.replica.Status()[0].Err
		return err != nil && strings.Contains(err.Error(), "hashing.json")
	})
	if rows := b.rows(); len(rows) != 0 {
		t.Errorf("%d rows that could not be found were taken over", len(rows))
	}
}

func TestConflicts_are_recorded(t *testing.T) {
	g := newGroup(t, "", "us-east-1", "eu-west-1")
	a, b := g.regions[0], g.regions[1]
	a.start()
	b.start()
	a.cut()
	b.cut()
	if err := errors.Join(a.set("k", "user", "left"), b.set("k", "user", "right"), b.set("k", "color", "red")); err != nil {
		t.Fatal(err)
	}
	a.join()
	b.join()
	g.agree()
	var found []Conflict
	for _, r := range g.regions {
		some, _, err := r.replica.Conflicts(t.Context(), "", 10)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, some...)
	}
	if len(found) == 0 {
		t.Fatal("two writes that had not seen each other left no conflict")
	}
	for _, c := range found {
		if c.Kind != "person" || c.Path != "user" || string(c.Winner.Value) == string(c.Loser.Value) {
			t.Errorf("%+v", c)
		}
	}
}

func TestPull_is_refused_without_a_region_s_certificate(t *testing.T) {
	g := newGroup(t, "", "us-east-1", "eu-west-1")
	a := g.regions[0]
	a.start()
	anonymous := g.ca.config(t, nil)
	other := newAuthority(t).config(t, CertificateURI("eu-west-1"))
	other.RootCAs = g.ca.pool
	none := g.ca.config(t, nil)
	none.Certificates = nil
	for name, cfg := range map[string]*tls.Config{"no Region in it": anonymous, "another authority's": other, "none": none} {
		for _, what := range []string{"rows?after=0", "stream/change?after=0"} {
			method := http.MethodGet
			if strings.HasPrefix(what, "stream") {
				method = http.MethodPost
			}
			req, err := http.NewRequestWithContext(t.Context(), method, a.server.URL+path+what, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := Client(cfg).Do(req)
			if err != nil {
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusForbidden {
				t.Errorf("certificate %s: %s answered %s", name, what, resp.Status)
			}
		}
	}
	client := Client(g.ca.config(t, CertificateURI("eu-west-1")))
	for what, want := range map[string]int{
		"stream/change?after=-1": 400, "stream/change?after=x": 400, "stream/heard?after=0": 400, "stream/none?after=0": 400,
		"stream/change?after=0&hash=zz": 400, "stream/change?after=7&incarnation=x": 200,
	} {
		resp, err := client.Post(a.server.URL+path+what, "", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s answered %s", what, resp.Status)
		}
	}
}

func FuzzFrames(f *testing.F) {
	c, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.appendBlock(nil, block{3, 4, []byte("hash"), [][]byte{[]byte("a"), {}}})[5:])
	f.Add(c.appendRows(nil, 9, [][]byte{[]byte("row")})[5:])
	f.Fuzz(func(t *testing.T, content []byte) {
		if bl, err := c.decodeBlock(content); err == nil {
			again, err := c.decodeBlock(c.appendBlock(nil, bl)[5:])
			if err != nil || again.N != bl.N || again.At != bl.At || !slices.EqualFunc(again.Records, bl.Records, bytes.Equal) {
				t.Errorf("%+v is read as %+v, %v", bl, again, err)
			}
		}
		if last, changes, err := c.decodeRows(content); err == nil {
			again, rows, err := c.decodeRows(c.appendRows(nil, last, changes)[5:])
			if err != nil || again != last || !slices.EqualFunc(rows, changes, bytes.Equal) {
				t.Errorf("rows up to %d are read as up to %d, %v", last, again, err)
			}
		}
	})
}
