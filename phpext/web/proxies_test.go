package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestProxies(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("fe80::/10")}
	var told string
	h := NewProxies(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		told = fmt.Sprintf("%s %s://%s", r.RemoteAddr, scheme, r.Host)
	}), trusted)
	const (
		forwardedFor = "X-Forwarded-For"
		proto        = "X-Forwarded-Proto"
		host         = "X-Forwarded-Host"
		port         = "X-Forwarded-Port"
	)
	for _, tc := range []struct {
		from   string
		header []string
		want   string
	}{
		{"10.1.2.3:5", nil, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{forwardedFor, "203.0.113.9", proto, "https", host, "shop.example", port, "443"}, "203.0.113.9: https://shop.example"},
		// From others nothing is believed.
		{"11.1.2.3:5", []string{forwardedFor, "203.0.113.9", proto, "https", host, "shop.example", port, "443"}, "11.1.2.3:5 http://node:8080"},
		{"192.0.2.8:5", []string{forwardedFor, "203.0.113.9"}, "192.0.2.8:5 http://node:8080"},
		{"[2001:db8::9]:5", []string{forwardedFor, "203.0.113.9"}, "[2001:db8::9]:5 http://node:8080"},
		{"@", []string{forwardedFor, "203.0.113.9"}, "@ http://node:8080"},
		// The right-most that is not trusted.
		{"10.1.2.3:5", []string{forwardedFor, "1.1.1.1, 203.0.113.9, 10.9.9.9"}, "203.0.113.9: http://node:8080"},
		{"10.1.2.3:5", []string{forwardedFor, "1.1.1.1, 203.0.113.9", forwardedFor, "192.0.2.7"}, "203.0.113.9: http://node:8080"},
		{"10.1.2.3:5", []string{forwardedFor, "10.0.0.1, 10.0.0.2"}, "10.0.0.1: http://node:8080"},
		{"10.1.2.3:5", []string{forwardedFor, "1.1.1.1, nonsense, 10.0.0.2"}, "10.0.0.2: http://node:8080"},
		{"10.1.2.3:5", []string{forwardedFor, "unknown"}, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{forwardedFor, ""}, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{forwardedFor, "203.0.113.9:4711"}, "203.0.113.9: http://node:8080"},
		{"10.1.2.3:5", []string{forwardedFor, "2001:db8::1"}, "[2001:db8::1]: http://node:8080"},
		{"10.1.2.3:5", []string{forwardedFor, "[2001:db8::1], [2001:db8::2]:80, fd00::1"}, "[2001:db8::2]: http://node:8080"},
		{"[::ffff:10.1.2.3]:5", []string{forwardedFor, "::ffff:203.0.113.9"}, "203.0.113.9: http://node:8080"},
		{"[fd00::1]:5", []string{forwardedFor, "203.0.113.9"}, "203.0.113.9: http://node:8080"},
		{"[fe80::1%eth0]:5", []string{forwardedFor, "203.0.113.9, fe80::2%eth1"}, "203.0.113.9: http://node:8080"},
		{"192.0.2.7:5", []string{forwardedFor, "203.0.113.9"}, "203.0.113.9: http://node:8080"},
		// What the last one added.
		{"10.1.2.3:5", []string{proto, "https, http"}, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{proto, "http", proto, "HTTPS"}, "10.1.2.3:5 https://node:8080"},
		{"10.1.2.3:5", []string{proto, "gopher"}, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{host, "evil.example, shop.example"}, "10.1.2.3:5 http://shop.example"},
		{"10.1.2.3:5", []string{host, "shop.example:8443"}, "10.1.2.3:5 http://shop.example:8443"},
		{"10.1.2.3:5", []string{host, "[2001:db8::1]:81"}, "10.1.2.3:5 http://[2001:db8::1]:81"},
		{"10.1.2.3:5", []string{host, "shop.example:port"}, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{host, "shop.example/path"}, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{host, "a@shop.example"}, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{host, "[shop]"}, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{host, "[::1"}, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{host, ""}, "10.1.2.3:5 http://node:8080"},
		// The port is in Host, unless it is the scheme's own.
		{"10.1.2.3:5", []string{port, "80"}, "10.1.2.3:5 http://node"},
		{"10.1.2.3:5", []string{port, "443"}, "10.1.2.3:5 http://node:443"},
		{"10.1.2.3:5", []string{port, "443", proto, "https"}, "10.1.2.3:5 https://node"},
		{"10.1.2.3:5", []string{port, "8443", proto, "https", host, "shop.example"}, "10.1.2.3:5 https://shop.example:8443"},
		{"10.1.2.3:5", []string{port, "8443", host, "shop.example:81"}, "10.1.2.3:5 http://shop.example:8443"},
		{"10.1.2.3:5", []string{port, "1, 81"}, "10.1.2.3:5 http://node:81"},
		{"10.1.2.3:5", []string{port, "65536"}, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{port, "+81"}, "10.1.2.3:5 http://node:8080"},
		{"10.1.2.3:5", []string{port, "0"}, "10.1.2.3:5 http://node:8080"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr, r.Host = tc.from, "node:8080"
		for i := 0; i+1 < len(tc.header); i += 2 {
			r.Header.Add(tc.header[i], tc.header[i+1])
		}
		h.ServeHTTP(httptest.NewRecorder(), r)
		if told != tc.want {
			t.Errorf("from %s %q: %s, want %s", tc.from, tc.header, told, tc.want)
		}
		if r.RemoteAddr != tc.from || r.Host != "node:8080" {
			t.Errorf("the server's own request was changed: %+v", r)
		}
	}
}
