package smtp

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
)

// The mechanisms of AUTH, strongest last.
const (
	mechanismLogin = "LOGIN"
	mechanismPlain = "PLAIN"
	mechanismScram = "SCRAM-SHA-256"
)

// authenticate runs AUTH with the configured mechanism, or with the strongest
// that both sides have. Source: RFC 4954.
func (h *hello) authenticate() *connError {
	mechanism := h.c.cfg.Mechanism
	if mechanism == "" {
		for _, m := range []string{mechanismScram, mechanismPlain, mechanismLogin} {
			if slices.Contains(h.ext.auth, m) {
				mechanism = m
				break
			}
		}
	}
	if !slices.Contains(h.ext.auth, mechanism) {
		return &connError{step: stepAuth, err: errors.New("server offers no mechanism that may be used")}
	}
	user, password := h.c.cfg.Username, string(h.c.cfg.Password)
	var r reply
	var err error
	switch mechanism {
	case mechanismPlain:
		r, err = h.command(nil, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password)))
	case mechanismLogin:
		r, err = h.authLogin(user, password)
	case mechanismScram:
		r, err = h.authScram(user, password)
	}
	if err != nil || r.code != 235 {
		return &connError{stepAuth, r, err}
	}
	return nil
}

// authLogin answers two questions whose words nobody agrees on. Source:
// draft-murchison-sasl-login.
func (h *hello) authLogin(user, password string) (reply, error) {
	r, err := h.command(nil, "AUTH LOGIN")
	for _, answer := range []string{user, password} {
		if err != nil || r.code != 334 {
			return r, err
		}
		r, err = h.command(nil, base64.StdEncoding.EncodeToString([]byte(answer)))
	}
	return r, err
}

// authScram proves the password without sending it, and has the server prove
// that it knows it too. Source: RFC 7677.
func (h *hello) authScram(user, password string) (reply, error) {
	x := scram{user: user, password: password, nonce: h.c.nonce()}
	r, challenge, err := h.challenge("AUTH SCRAM-SHA-256 " + base64.StdEncoding.EncodeToString([]byte(x.first())))
	if err != nil || r.code != 334 {
		return r, err
	}
	final, err := x.final(challenge)
	if err != nil {
		return reply{}, err
	}
	r, challenge, err = h.challenge(base64.StdEncoding.EncodeToString([]byte(final)))
	if err != nil || r.code != 334 {
		if err == nil && r.ok() {
			err = errScramUnproven
		}
		return r, err
	}
	if err := x.verify(challenge); err != nil {
		return reply{}, err
	}
	return h.command(nil, "")
}

// challenge sends a line and decodes the server's 334.
func (h *hello) challenge(line string) (reply, string, error) {
	var lines []string
	r, err := h.command(&lines, line)
	if err != nil || r.code != 334 {
		return r, "", err
	}
	b, err := base64.StdEncoding.DecodeString(lines[len(lines)-1])
	if err != nil {
		return r, "", fmt.Errorf("challenge is not base64: %w", err)
	}
	return r, string(b), nil
}
