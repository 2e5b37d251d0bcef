//go:build !php

package main

import (
	"context"
	"errors"

	"pogod/internal/cli"
)

const hasPHP = false

// phpHost cannot be: this binary was built without PHP.
func phpHost(context.Context) error {
	return errors.New("this pogod was built without PHP: build it with make build")
}

// commandLine cannot be either.
func commandLine() (cli.CommandLine, error) {
	return cli.CommandLine{}, errors.New("this pogod was built without PHP: build it with make build")
}
