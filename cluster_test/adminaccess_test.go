package cluster_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pogod/internal/certificate/certtest"
)

// A real node serves its admin endpoint over TLS to who has a token, which the command line
// makes and uses; a renewed certificate is taken without a start.
func TestAdminWithTLSAndTokens(t *testing.T) {
	notTwice(t)
	t.Parallel()
	n := newNode(t, build(t, ""), "")
	cert, key := filepath.Join(n.home, "a.crt"), filepath.Join(n.home, "a.key")
	pool := certtest.Issue(t, 1, cert, key)
	text := "\n[admin.tls]\ncert = \"a.crt\"\nkey = \"a.key\"\n"
	tokens := map[string]string{}
	for _, role := range []string{"read", "operate"} {
		out, err := exec.Command(n.bin, "admin", "token", "the-"+role, "--role", role, "--json").Output()
		var made struct{ Name, Role, Token, Hash string }
		if err == nil {
			err = json.Unmarshal(out, &made)
		}
		if err != nil {
			t.Fatal(err, string(out))
		}
		tokens[role] = filepath.Join(n.home, role)
		if err := os.WriteFile(tokens[role], []byte(made.Token), 0o600); err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("\n[[admin.tokens]]\nname = %q\nrole = %q\nhash = %q\n", made.Name, made.Role, made.Hash)
	}
	n.php = text // what is appended to the configuration
	n.start()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trusting(pool), DisableKeepAlives: true}}
	ready := func() bool {
		r, err := client.Get("https://" + n.admin + "/readyz")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == 200
	}
	eventually(t, "the node is ready", ready)
	pogod := func(args ...string) (string, int) {
		cmd := exec.Command(n.bin, args...)
		out, _ := cmd.CombinedOutput() // the code says
		return string(out), cmd.ProcessState.ExitCode()
	}
	where := []string{"--admin", "https://" + n.admin, "--admin-ca", cert}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{append([]string{"status"}, where...), 1, "answers 401: a token is needed"},
		{append([]string{"status", "--token-file", tokens["read"]}, where...), 0, "leader, production"},
		{[]string{"status", "--config", n.config(), "--token-file", tokens["read"]}, 0, "leader, production"},
		{append([]string{"queue", "pause", queueNow, "--token-file", tokens["read"]}, where...), 1, "answers 403: the token the-read has the role read, and this takes operate"},
		{append([]string{"queue", "pause", queueNow, "--token-file", tokens["operate"]}, where...), 0, "now is paused"},
		{append([]string{"cluster", "token", "--token-file", tokens["operate"]}, where...), 1, "this takes admin"},
		{[]string{"status", "--admin", "https://" + n.admin, "--token-file", tokens["read"]}, 1, "is not trusted"},
		{[]string{"status", "--admin", n.admin, "--token-file", tokens["read"]}, 3, "no node answers at http://" + n.admin},
	} {
		if out, code := pogod(c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%q: %d %s", c.args, code, out)
		}
	}
	for env, want := range map[string]string{"POGOD_TOKEN_FILE=" + tokens["read"]: " is ready: node ", "POGOD_TOKEN=": "answers 401: a token is needed"} {
		cmd := n.command("doctor")
		cmd.Env = append(cmd.Env, env)
		if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), want) { // the findings say
			t.Errorf("doctor with %s says %s", env, out)
		}
	}
	pool = certtest.Issue(t, 2, cert, key)
	client.Transport = &http.Transport{TLSClientConfig: trusting(pool), DisableKeepAlives: true}
	eventually(t, "the new certificate is served", ready)

	said, err := os.ReadFile(n.logPath())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`msg="asked for a change" who=the-operate from=127.0.0.1:`, "method=POST path=/api/v1/queues/now/pause status=200", "who=the-read",
		"path=/api/v1/queues/now/pause status=403", "status   https://" + n.admin + "/status",
	} {
		if !strings.Contains(string(said), line) {
			t.Errorf("no %q in the log", line)
		}
	}
	n.stop()
}

func trusting(pool *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}
