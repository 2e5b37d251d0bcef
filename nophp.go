//go:build !php

package main

import (
	"context"
	"errors"
)

const hasPHP = false

// phpHost cannot be: this binary was built without PHP.
func phpHost(context.Context) error {
	return errors.New("this pogod was built without PHP: build it with make build")
}
