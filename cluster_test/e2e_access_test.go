//go:build php

package cluster_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestE2EAccessLog has the requests of pages noted in a file that is moved away, and in the
// node's log.
func TestE2EAccessLog(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"access.jsonl", "log", "off"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, inApp(t, ""), "")
			conf, err := os.ReadFile(s.config())
			if err != nil {
				t.Fatal(err)
			}
			conf = []byte(strings.Replace(string(conf), "[web]\n", "[web]\naccess_log = \""+to+"\"\n", 1))
			if err := os.WriteFile(s.config(), conf, 0o600); err != nil {
				t.Fatal(err)
			}
			s.serve(t)
			file := filepath.Join(s.home, "access.jsonl")
			s.page(t, "/static.txt?first")
			switch to {
			case "log":
				eventually(t, "the line in the log", func() bool {
					return strings.Contains(s.log(t), `msg="GET /static.txt?first" client=127.0.0.1 status=200 bytes=14`)
				})
			case "off":
				s.stop()
				if _, err := os.Stat(file); err == nil || strings.Contains(s.log(t), "static.txt") {
					t.Error("it is noted")
				}
			default:
				noted := func(name, path string) func() bool {
					return func() bool {
						b, err := os.ReadFile(name)
						return err == nil && strings.Contains(string(b), `"path":"`+path+`"`)
					}
				}
				eventually(t, "the line in the file", noted(file, "/static.txt?first"))
				if err := os.Rename(file, file+".1"); err != nil {
					t.Fatal(err)
				}
				s.page(t, "/page/second")
				eventually(t, "the line in the new file", noted(file, "/page/second"))
				s.page(t, "/last")
				s.stop()
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				var last struct {
					Method, Path, Agent string
					Status, Bytes       int
				}
				text := strings.TrimSuffix(string(b), "\n")
				if err := json.Unmarshal([]byte(text[strings.LastIndexByte(text, '\n')+1:]), &last); err != nil {
					t.Fatal(err)
				}
				if last.Path != "/last" || last.Method != "GET" || last.Status != 200 || last.Bytes != len(`{"page":"\/last"}`) || !strings.HasPrefix(last.Agent, "Go-http-client") {
					t.Errorf("a node that leaves writes what waits: %+v", last)
				}
			}
		})
	}
}
