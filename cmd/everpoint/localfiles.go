package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/everpoint/everpoint/cmd/node"
	"github.com/everpoint/everpoint/router"
	"github.com/everpoint/everpoint/state/replica"
	"github.com/everpoint/everpoint/state/store"
)

// write makes what the processes need: certificates, credentials, keysets,
// settings. What is there from an earlier run is kept, and settings follow the
// flags.
func (l *laptop) write() error {
	if err := l.record(); err != nil {
		return err
	}
	if err := l.certificates(); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	secret, err := l.secret()
	if err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	if err := os.MkdirAll(l.path("buckets"), 0o700); err != nil {
		return err
	}
	for i, name := range l.regions {
		cfg := l.nodeConfig(i)
		if i < len(l.postgres) {
			cfg.PostgresURLFile = name + ".postgres.url"
			if err := os.WriteFile(l.path(cfg.PostgresURLFile), []byte(l.postgres[i]), 0o600); err != nil {
				return err
			}
		}
		if err := writeJSON(l.path(name+".json"), cfg); err != nil {
			return err
		}
	}
	if l.grouped() {
		if err := l.shareHashing(); err != nil {
			return fmt.Errorf("share the hashing keyset: %w", err)
		}
		if err := writeJSON(l.path(localRouter+".json"), l.routerConfig()); err != nil {
			return err
		}
	}
	return l.environment(secret)
}

// secret returns the secret key, which the first run makes.
func (l *laptop) secret() (string, error) {
	secret, err := os.ReadFile(l.path("secret"))
	if errors.Is(err, os.ErrNotExist) {
		b := make([]byte, 30)
		if _, err := rand.Read(b); err != nil {
			return "", err
		}
		secret = []byte(base64.StdEncoding.EncodeToString(b))
		err = os.WriteFile(l.path("secret"), secret, 0o600)
	}
	return strings.TrimSpace(string(secret)), err
}

// nodeConfig is the configuration of the ith Region's node.
func (l *laptop) nodeConfig(i int) *node.Config {
	name := l.regions[i]
	cfg := &node.Config{
		Node: name + "-1", Region: name, Dir: name, Local: true,
		Door:    node.Door{Listen: l.door(i), CertFile: "node.pem", KeyFile: "node.key"},
		Account: []node.Account{{ID: localAccount, AccessKeyID: localKey, SecretFile: "secret"}},
		Mail:    &node.Mail{Addr: l.address(portSMTP), TLS: "off"},
		Routes:  []node.Route{{Name: "centre", Addresses: []string{l.address(portSMPP)}, SystemID: name, Binds: 2, Window: 32}},
		Numbers: []node.Number{{Number: localNumber, Type: "LONG_CODE", Country: "US", Route: "centre"}},
		Import:  node.Import{BucketDir: "buckets"},
		Events:  node.Events{Dir: "events", AllApps: true},
	}
	if i > 0 {
		cfg.Events.Dir += "-" + name // a directory belongs to one Region
	}
	if !l.grouped() {
		return cfg
	}
	g := &node.Group{
		Listen: l.address(portPeers + i), URL: l.peerURL(name), CAFile: "group-ca.pem", CertFile: name + ".pem", KeyFile: name + ".key",
		Witness: &node.Peer{Region: localWitness, URL: l.peerURL(localWitness)},
	}
	for _, other := range l.regions {
		if other != name {
			g.Peers = append(g.Peers, node.Peer{Region: other, URL: l.peerURL(other)})
			cfg.Door.RegionsAccepted = append(cfg.Door.RegionsAccepted, other)
		}
	}
	cfg.Group, cfg.Admin = g, l.address(portPages+i)
	return cfg
}

func (l *laptop) routerConfig() *routerConfig {
	cfg := &routerConfig{
		Listen: l.address(portAPI), CertFile: "node.pem", KeyFile: "node.key", Admin: l.address(portStatus), CAFile: "ca.pem",
		Witness: &node.WitnessConfig{
			Name: localWitness, Dir: localWitness, Listen: l.address(portWitness),
			CAFile: "group-ca.pem", CertFile: localWitness + ".pem", KeyFile: localWitness + ".key",
			Peers: map[string]string{localWitness: l.peerURL(localWitness)},
		},
	}
	for i, name := range l.regions {
		cfg.Regions = append(cfg.Regions, router.Region{Name: name, URL: "https://" + l.door(i)})
		cfg.Witness.Peers[name] = l.peerURL(name)
	}
	return cfg
}

// environment writes local.env.
func (l *laptop) environment(secret string) error {
	var regions []string
	for i, name := range l.regions {
		regions = append(regions, name+"=https://"+l.door(i))
	}
	env := [][2]string{
		{"AWS_ACCESS_KEY_ID", localKey},
		{"AWS_SECRET_ACCESS_KEY", secret},
		{"AWS_REGION", l.regions[0]},
		{"AWS_DEFAULT_REGION", l.regions[0]},
		{"AWS_ENDPOINT_URL", "https://" + l.address(portAPI)},
		{"AWS_CA_BUNDLE", l.path("ca.pem")},
		{"EVERPOINT_REGIONS", strings.Join(regions, ",")},
		{"EVERPOINT_ACCOUNT_ID", localAccount},
		{"EVERPOINT_OUTBOX_URL", "http://" + l.address(portOutbox) + "/"},
		{"EVERPOINT_BUCKETS", l.path("buckets")},
	}
	var text bytes.Buffer
	for _, kv := range env {
		fmt.Fprintf(&text, "export %s='%s'\n", kv[0], kv[1])
	}
	return os.WriteFile(l.path("local.env"), text.Bytes(), 0o600)
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// shareHashing gives every Region the hashing keyset of the first, which is made
// if it is not there. A Region that has another cannot be of the group.
func (l *laptop) shareHashing() error {
	file := func(region string) string { return l.path(filepath.Join(region, "keys", "hashing.json")) }
	if _, err := store.LoadKeys(filepath.Dir(file(l.regions[0]))); err != nil {
		return err
	}
	shared, err := os.ReadFile(file(l.regions[0]))
	if err != nil {
		return err
	}
	for _, name := range l.regions[1:] {
		switch own, err := os.ReadFile(file(name)); {
		case errors.Is(err, os.ErrNotExist):
			if err := os.MkdirAll(filepath.Dir(file(name)), 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(file(name), shared, 0o600); err != nil {
				return err
			}
		case err != nil:
			return err
		case !bytes.Equal(own, shared):
			return fmt.Errorf("%s is not that of %s", file(name), l.regions[0])
		}
	}
	return nil
}

// certificates makes two authorities and forgets their keys: one for clients,
// which signs what the doors and the router show, and one for the group.
func (l *laptop) certificates() error {
	if _, err := os.Stat(l.path("node.pem")); err != nil {
		a, err := newAuthority("Everpoint local CA", l.path("ca.pem"))
		if err != nil {
			return err
		}
		if err := a.issue(l.path("node"), &x509.Certificate{
			Subject: pkix.Name{CommonName: "localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		}); err != nil {
			return err
		}
	}
	if !l.grouped() {
		return nil
	}
	// The witness's is written last: it says that all are there.
	if _, err := os.Stat(l.path(localWitness + ".pem")); err == nil {
		return nil
	}
	a, err := newAuthority("Everpoint local group CA", l.path("group-ca.pem"))
	if err != nil {
		return err
	}
	for _, name := range l.voters() {
		if err := a.issue(l.path(name), &x509.Certificate{
			Subject: pkix.Name{CommonName: name}, URIs: []*url.URL{replica.CertificateURI(name)}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		}); err != nil {
			return err
		}
	}
	return nil
}

// authority signs certificates as long as the process lives.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	issued int64 // the last serial number
}

// newAuthority makes an authority and writes its certificate.
func newAuthority(name, path string) (*authority, error) {
	now := time.Now()
	a := &authority{issued: now.UnixNano()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(a.issued), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(5, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return a, writePEM(path, "CERTIFICATE", der)
}

// issue writes path.key and path.pem, in this order.
func (a *authority) issue(path string, leaf *x509.Certificate) error {
	now := time.Now()
	a.issued++
	leaf.SerialNumber, leaf.KeyUsage = big.NewInt(a.issued), x509.KeyUsageDigitalSignature
	leaf.NotBefore, leaf.NotAfter = now.Add(-time.Hour), now.AddDate(2, 0, 0)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(path+".key", "PRIVATE KEY", keyDER); err != nil {
		return err
	}
	return writePEM(path+".pem", "CERTIFICATE", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
