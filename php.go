//go:build php

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"

	"pogod/internal/link"
	"pogod/phpext"
)

const hasPHP = true

// phpHost is the hidden command that a node starts for each of its PHP hosts.
func phpHost(ctx context.Context) error {
	raw, ok := os.LookupEnv(link.HostSpecEnv)
	if !ok {
		return fmt.Errorf("php-host is started by pogod serve, not by hand: %s is not set", link.HostSpecEnv)
	}
	if err := os.Unsetenv(link.HostSpecEnv); err != nil {
		return err
	}
	var spec link.HostSpec
	if err := json.Unmarshal([]byte(raw), &spec); err != nil {
		return fmt.Errorf("%s: %w", link.HostSpecEnv, err)
	}
	var ln net.Listener
	if spec.Web != nil {
		f := os.NewFile(3, "web listener")
		var err error
		if ln, err = net.FileListener(f); err != nil {
			return fmt.Errorf("the web listener that the node handed over: %w", err)
		}
		_ = f.Close() // FileListener has its own
	}
	return phpext.RunHost(ctx, spec, ln, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
}
