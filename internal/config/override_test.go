package config

import (
	"errors"
	"strings"
	"testing"
)

func TestOverride(t *testing.T) {
	t.Parallel()
	env := vars{
		"POGOD_DATA_DIR": "env/data", "POGOD_LOG_LEVEL": "warn", "POGOD_WEB_LISTEN": "0.0.0.0:80", "POGOD_ADMIN_LISTEN": "localhost:1",
		"POGOD_CLUSTER_LISTEN": "0.0.0.0:1", "POGOD_CLUSTER_ADVERTISE": "node1:1",
	}
	text := "[node]\ndata_dir = \"x\"\nlog_level = \"error\"\n[web]\nlisten = \":1\"\nroot = \"pub\"\n[php]\napp = \"a\"\n"
	doc := func() *document { return &document{name: "conf/pogod.toml", data: []byte(text)} }
	o := Options{File: "conf/pogod.toml", Dir: "/srv", Env: env.lookup}
	c, err := build(o, doc())
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.DataDir != "/srv/env/data" || c.Node.Socket != "/srv/env/data/pogod.sock" || c.Node.LogLevel != "warn" ||
		c.Web.Listen != "0.0.0.0:80" || c.Admin.Listen != "localhost:1" ||
		c.Cluster.Listen != "0.0.0.0:1" || c.Cluster.Advertise != "node1:1" || c.Web.Root != "/srv/conf/a/pub" {
		t.Errorf("%+v", c)
	}
	o.Data, o.App, o.Advertise = "flag", "elsewhere", "node2:2"
	if c, err = build(o, doc()); err != nil || c.Cluster.Advertise != "node2:2" || c.Node.DataDir != "/srv/flag" || c.Web.Root != "/srv/elsewhere/pub" {
		t.Errorf("%+v %v", c, err)
	}
	// An empty variable is none.
	o.Data, o.Env = "", vars{"POGOD_DATA_DIR": "", "POGOD_LOG_LEVEL": ""}.lookup
	if c, err = build(o, doc()); err != nil || c.Node.DataDir != "/srv/conf/x" || c.Node.LogLevel != "error" {
		t.Errorf("%+v %v", c, err)
	}
	for name, value := range map[string]string{
		"POGOD_DATA_DIR": "~/x", "POGOD_LOG_LEVEL": "loud", "POGOD_WEB_LISTEN": "80", "POGOD_ADMIN_LISTEN": "8082",
		"POGOD_CLUSTER_LISTEN": "8083", "POGOD_CLUSTER_ADVERTISE": "0.0.0.0:8083",
	} {
		_, err := build(Options{Dir: "/srv", Env: vars{name: value}.lookup}, nil)
		if !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), "the environment's "+name+" must ") {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	// An address that others can reach.
	wide := Options{Dir: "/srv", Env: vars{"POGOD_ADMIN_LISTEN": "[::]:8082"}.lookup}
	if _, err := build(wide, nil); !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), `[admin] listen is "[::]:8082", which others can reach: set [admin] tls and tokens`) {
		t.Error(err)
	}
	wide.Insecure = true
	if c, err := build(wide, nil); err != nil || c.Admin.Listen != "[::]:8082" || !c.Admin.Insecure {
		t.Error(err)
	}
	// What the environment says is not blamed on the file.
	long := "/" + strings.Repeat("d", 120)
	_, err = build(Options{Dir: "/srv", File: "f", Env: vars{"POGOD_DATA_DIR": long}.lookup}, doc())
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "set [node] socket to a shorter path") {
		t.Error(err)
	}
	if _, err = build(Options{Dir: "/srv", Data: "a\x00", Env: vars{}.lookup}, nil); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	_, err = build(Options{Dir: "/srv", Advertise: "node2", Env: vars{}.lookup}, nil)
	if !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), "--advertise must be an address") {
		t.Error(err)
	}
}
