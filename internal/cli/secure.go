package cli

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"pogod/internal/config"
)

// maxToken bounds the file of a token, in bytes.
const maxToken = 4 << 10

// bearer returns the token to ask with: that of the flags or the environment, or none.
func (e *endpoint) bearer(cmd *cobra.Command) (string, error) {
	byFlag, fileByFlag := cmd.Flags().Changed("token"), cmd.Flags().Changed("token-file")
	switch {
	case byFlag && fileByFlag:
		return "", usage("--token and --token-file name a token each: name one")
	case byFlag:
		return token(e.token, "--token")
	case fileByFlag:
		return tokenOf(e.tokenFile, "--token-file")
	case os.Getenv(tokenEnv) != "":
		return token(os.Getenv(tokenEnv), "the environment's "+tokenEnv)
	case os.Getenv(tokenFileEnv) != "":
		return tokenOf(os.Getenv(tokenFileEnv), "the environment's "+tokenFileEnv)
	}
	return "", nil
}

func tokenOf(file, from string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", usage("%s: %v", from, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return "", usage("%s: %v", from, err)
	}
	return token(string(text), from+" "+file)
}

// token checks that a text can be a token, and never shows it.
func token(text, from string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", usage(`%s has no token: it is one word, as "pogod admin token" prints it`, from)
	}
	return text, nil
}

// authority returns who certifies the endpoint besides the authorities of the system; nil:
// nobody.
func (e *endpoint) authority(cmd *cobra.Command) (*tls.Config, error) {
	file, from := e.ca, "--admin-ca"
	if !cmd.Flags().Changed("admin-ca") {
		file, from = os.Getenv(caEnv), "the environment's "+caEnv
	}
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("%s: %v", from, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usage("%s: there is no certificate in %s: it must be PEM, with BEGIN CERTIFICATE", from, file)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
}

// local is the endpoint of a configuration whose node is on this machine. With TLS what
// proves the node is that it has the very certificate that the configuration names, for
// whatever host that was issued.
func (e *endpoint) local(cmd *cobra.Command, a config.Admin) (*target, error) {
	host, port, err := net.SplitHostPort(a.Listen)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	scheme := "http://"
	if a.TLS != (config.TLS{}) {
		scheme = "https://"
	}
	u, err := adminURL(scheme + net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	t := &target{URL: u}
	if t.token, err = e.bearer(cmd); err != nil || a.TLS == (config.TLS{}) {
		return t, err
	}
	if t.tls, err = e.authority(cmd); err != nil || t.tls != nil {
		return t, err
	}
	t.tls, err = only(a.TLS.Cert)
	return t, err
}

// only trusts the first certificate of a file, whatever it says.
func only(file string) (*tls.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("[admin] tls: %w: it tells the node from others; name it with --admin and its authority with --admin-ca", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("[admin] tls: there is no certificate in %s", file)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // in favour of what is stricter
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) > 0 && bytes.Equal(s.PeerCertificates[0].Raw, block.Bytes) {
				return nil
			}
			return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: errors.New("it is not the one in " + file)}
		},
	}, nil
}
