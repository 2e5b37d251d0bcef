// Package phpext is the PHP host: a process that runs an application's PHP for a
// node, its pages by net/http and its worker scripts in job threads, both on
// FrankenPHP. The node starts it, tells it what to run (link.HostSpec) and speaks
// with it over the control connection; the queue functions and the deliveries
// travel from each PHP thread straight to the node (package ext).
//
//	host.go       the host's life: start, control connection, drain
//	jobs.go       job threads: each one long request, started again when it ends
//	output.go     what jobs print, by attempt, to the node
//	access.go     where the requests of pages are noted
//	pages.go      pages: FrankenPHP behind package web
//	webworker.go  the script that answers pages in worker mode: how it starts and ends
//	figures.go    what the pages do, to the node
//	seldom.go     keeps what is said again and again out of the log
//
// All of it has the build tag php. Package api, which says what each function
// means, and package web have not.
package phpext
