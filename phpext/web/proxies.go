package web

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Proxies believes what trusted proxies say of the client that a request came from.
type Proxies struct {
	next    http.Handler
	trusted []netip.Prefix
}

// NewProxies makes a handler that hands requests to next. What comes from an address in
// trusted has, for next, the address (without a port), TLS and Host that its
// X-Forwarded-For, -Proto, -Host and -Port say. Other requests are as they are. No header
// is taken away.
func NewProxies(next http.Handler, trusted []netip.Prefix) *Proxies {
	return &Proxies{next: next, trusted: trusted}
}

// ServeHTTP implements http.Handler.
func (p *Proxies) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil && p.trusts(peer.Addr()) {
		r = p.forwarded(r, peer.Addr())
	}
	p.next.ServeHTTP(w, r)
}

func (p *Proxies) trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("") // a prefix has no zone, and contains none
	return slices.ContainsFunc(p.trusted, func(t netip.Prefix) bool { return t.Contains(a) })
}

// forwarded is r as the client sent it to the first proxy. What a header says that makes
// no sense changes nothing.
func (p *Proxies) forwarded(r *http.Request, peer netip.Addr) *http.Request {
	of := r.WithContext(r.Context()) // a copy
	if client := p.client(r.Header.Values("X-Forwarded-For"), peer); client != peer {
		of.RemoteAddr = net.JoinHostPort(client.String(), "") // its port is not known
	}
	switch strings.ToLower(last(r, "X-Forwarded-Proto")) {
	case "https":
		if of.TLS == nil {
			of.TLS = new(tls.ConnectionState) // of which no more is known
		}
	case "http":
		of.TLS = nil
	}
	name, port := split(r.Host)
	if n, p := split(last(r, "X-Forwarded-Host")); isHost(n) && (p == "" || isPort(p)) {
		name, port = n, p
		of.Host = join(n, p)
	}
	if said := last(r, "X-Forwarded-Port"); isPort(said) && said != port && name != "" {
		usual := "80"
		if of.TLS != nil {
			usual = "443"
		}
		if said == usual {
			said = "" // as browsers write it
		}
		of.Host = join(name, said)
	}
	return of
}

// client is the last address in a list of proxies that no trusted proxy has: whatever is
// to its left, it may have made up. When all are trusted it is the first, and what makes
// no sense ends the list.
func (p *Proxies) client(lists []string, peer netip.Addr) netip.Addr {
	hops := strings.Split(strings.Join(lists, ","), ",")
	for _, hop := range slices.Backward(hops) {
		hop = strings.TrimSpace(hop)
		a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(hop, "["), "]"))
		if err != nil { // some add the port
			with, err := netip.ParseAddrPort(hop)
			if err != nil {
				break
			}
			a = with.Addr()
		}
		peer = a.Unmap().WithZone("")
		if !p.trusts(peer) {
			break
		}
	}
	return peer
}

// last is the last element of a header that is a list: what the proxy that is trusted has
// added. What came before it may be the client's.
func last(r *http.Request, name string) string {
	all := r.Header.Values(name)
	if len(all) == 0 {
		return ""
	}
	list := all[len(all)-1]
	return strings.TrimSpace(list[strings.LastIndexByte(list, ',')+1:])
}

// split takes a port from a Host. The name of an IPv6 address keeps its brackets.
func split(host string) (name, port string) {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		return host[:i], host[i+1:]
	}
	return host, ""
}

func join(name, port string) string {
	if port == "" {
		return name
	}
	return name + ":" + port
}

// isHost tells names and addresses that are safe to build a URL of.
func isHost(name string) bool {
	if in, ok := strings.CutPrefix(name, "["); ok {
		a, err := netip.ParseAddr(strings.TrimSuffix(in, "]"))
		return err == nil && a.Is6() && a.Zone() == "" && strings.HasSuffix(in, "]")
	}
	return name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_'
	})
}

func isPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && port[0] != '0'
}
