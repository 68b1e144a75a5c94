package door

import (
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
)

var regionForm = regexp.MustCompile(`^[a-z]{2}(-[a-z]+){1,3}-[0-9]{1,2}$`)

// regionIn returns the label of a host name that is a Region; "" if none.
func regionIn(host string) string {
	for label := range strings.SplitSeq(strings.ToLower(host), ".") {
		if regionForm.MatchString(label) {
			return label
		}
	}
	return ""
}

// accepts returns which scope Regions are good for this host: our own and the
// accepted ones; the one in an additional host name; and for global services
// us-east-1, which their clients sign wherever they are.
// Source: access 1.1, 1.8; clients (Amplify).
func (d *Door) accepts(host string, global bool) func(region string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	named := d.hosts[strings.ToLower(host)]
	return func(region string) bool {
		return region != "" && (d.regions[region] || region == named || global && region == "us-east-1")
	}
}

// source returns who sent the request: the peer, or, if the peer is a trusted
// proxy, the last address in X-Forwarded-For that is not.
func (d *Door) source(r *http.Request) netip.Addr {
	var peer netip.Addr
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		peer = ap.Addr().Unmap()
	}
	if !d.trusts(peer) {
		return peer
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			return peer
		}
		peer = hop.Unmap()
		if !d.trusts(peer) {
			return peer
		}
	}
	return peer
}

func (d *Door) trusts(a netip.Addr) bool {
	for _, p := range d.cfg.TrustedProxies {
		if a.IsValid() && p.Contains(a) {
			return true
		}
	}
	return false
}
