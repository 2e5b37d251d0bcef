//go:build !php

package cluster_test

const withPHP = false
