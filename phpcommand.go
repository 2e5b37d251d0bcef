//go:build php

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"pogod/internal/cli"
)

// phpBinary is the php of the build, set by it: the command line of the PHP whose
// library is linked in.
var phpBinary string

// commandLine finds php and pogo.so. A release has both in lib/ beside the binary; a
// build in a checkout has pogo.so beside the binary, and php where it was built.
func commandLine() (cli.CommandLine, error) {
	self, err := os.Executable()
	if err != nil {
		return cli.CommandLine{}, err
	}
	return commandLineOf(filepath.Dir(self), phpBinary)
}

func commandLineOf(dir, built string) (c cli.CommandLine, err error) {
	lib := filepath.Join(dir, "lib")
	if c.Binary, err = firstOf("php", filepath.Join(lib, "php"), built); err != nil {
		return c, err
	}
	if c.Extension, err = firstOf("pogo.so", filepath.Join(lib, "pogo.so"), filepath.Join(dir, "pogo.so")); err != nil {
		return c, err
	}
	c.Name, err = firstOf("pogod-php", filepath.Join(dir, "pogod-php"))
	if err != nil {
		c.Name = "" // programs that a script starts by PHP_BINARY get the plain php
	}
	return c, nil
}

// firstOf returns the first of the paths that is a file.
func firstOf(what string, paths ...string) (string, error) {
	for _, p := range paths {
		if p == "" {
			continue
		}
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not at any of %q: run make build, or put the parts of a release together again", what, paths)
}
