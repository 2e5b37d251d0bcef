package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the networks of TrustedProxies; an address is one of its own.
func (w *Web) Proxies() (all []netip.Prefix) {
	for _, s := range w.TrustedProxies {
		if p, err := parseProxy(s); err == nil { // it was checked
			all = append(all, p)
		}
	}
	return all
}

func checkProxies(list []string) error {
	for i, s := range list {
		p, err := parseProxy(s)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(list[:i], func(other string) bool { o, _ := parseProxy(other); return o == p }) {
			return fmt.Errorf("must name each proxy once, not %q twice", s)
		}
	}
	return nil
}

func parseProxy(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if a, addrErr := netip.ParseAddr(s); addrErr == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil && strings.Contains(s, "*"):
		return p, fmt.Errorf(`must be addresses, as "192.0.2.7", or networks, as "10.0.0.0/8", not %q: if only the proxy can reach this node, name the network that it comes from`, s)
	case err != nil:
		return p, fmt.Errorf(`must be addresses, as "192.0.2.7", or networks, as "10.0.0.0/8", not %q: names of hosts are not looked up`, s)
	case p.Addr().Is4In6():
		return p, fmt.Errorf("must have IPv4 addresses as such, not %q", s)
	case p != p.Masked():
		return p, fmt.Errorf("must be whole networks, not %q: write %q, or the address alone", s, p.Masked())
	}
	return p, nil
}
