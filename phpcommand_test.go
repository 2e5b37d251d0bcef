//go:build php

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pogod/internal/cli"
)

// A release has its parts in lib/, and they go before what was built elsewhere.
func TestWhereTheCommandLineIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	refused := func(what string) {
		t.Helper()
		if c, err := commandLineOf(dir, filepath.Join(dir, "built", "php")); err == nil || !strings.Contains(err.Error(), what+" is not at any of") {
			t.Errorf("%+v, %v", c, err)
		}
	}
	found := func(want cli.CommandLine) {
		t.Helper()
		if c, err := commandLineOf(dir, filepath.Join(dir, "built", "php")); err != nil || c != want {
			t.Errorf("%+v, %v, want %+v", c, err, want)
		}
	}
	put("php") // another program that happens to be beside the binary
	refused("php")
	built := put("built/php")
	refused("pogo.so")
	beside := put("pogo.so")
	found(cli.CommandLine{Binary: built, Extension: beside})
	name := put("pogod-php")
	found(cli.CommandLine{Binary: built, Extension: beside, Name: name})
	found(cli.CommandLine{Binary: put("lib/php"), Extension: put("lib/pogo.so"), Name: name})
}
