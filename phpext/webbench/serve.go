//go:build php

package main

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"

	"github.com/dunglas/frankenphp"
)

// serve is the peer: the page through FrankenPHP's library and net/http, as its
// documentation shows it. It prints its address and ends with its parent.
func serve(app string, worker bool, threads int) error {
	root := filepath.Join(app, "public")
	opts := []frankenphp.Option{frankenphp.WithNumThreads(threads)}
	if worker {
		opts = []frankenphp.Option{
			frankenphp.WithNumThreads(threads + 1), // the library wants one more
			frankenphp.WithWorkers("page", filepath.Join(root, "index.php"), threads),
		}
	}
	if err := frankenphp.Init(opts...); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fr, err := frankenphp.NewRequestWithContext(r, frankenphp.WithRequestDocumentRoot(root, false))
		if err == nil {
			err = frankenphp.ServeHTTP(w, fr)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
}
