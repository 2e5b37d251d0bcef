// Package web is the HTTP side of the application: files under its public root,
// and its PHP scripts for everything else. It knows no PHP: whoever makes the
// handler hands it a Runner.
package web
