package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// atStart are the settings that PHP 8.4 reads when it starts, or when a request does:
// they belong to a whole host. Sorted. A setting that is not here and cannot change
// either, as one of an extension, is named in the log when the worker's script starts.
var atStart = []string{
	"allow_url_fopen", "allow_url_include", "arg_separator.input", "auto_append_file", "auto_globals_jit", "auto_prepend_file",
	"browscap", "curl.cainfo", "disable_classes", "disable_functions", "doc_root", "enable_dl", "enable_post_data_reading", "expose_php",
	"extension", "extension_dir", "ffi.enable", "ffi.preload", "file_uploads", "filter.default", "filter.default_flags", "hard_timeout",
	"mail.add_x_header", "mail.force_extra_parameters", "mail.log", "mail.mixed_lf_and_crlf", "max_file_uploads", "max_input_nesting_level",
	"max_input_time", "max_input_vars", "max_multipart_body_parts", "mbstring.encoding_translation", "mysqli.allow_local_infile",
	"mysqli.allow_persistent", "mysqli.local_infile_directory", "mysqli.max_links", "mysqli.max_persistent",
	"mysqli.rollback_on_cached_plink", "mysqlnd.collect_memory_statistics", "mysqlnd.debug", "mysqlnd.sha256_server_public_key",
	"mysqlnd.trace_alloc", "openssl.cafile", "openssl.capath", "output_buffering", "output_handler", "pdo_mysql.default_socket",
	"pgsql.allow_persistent", "pgsql.auto_reset_persistent", "pgsql.max_links", "pgsql.max_persistent", "phar.cache_list", "pogo.socket",
	"post_max_size", "realpath_cache_size", "realpath_cache_ttl", "register_argc_argv", "request_order", "sendmail_path", "session.auto_start",
	"session.upload_progress.cleanup", "session.upload_progress.enabled", "session.upload_progress.freq", "session.upload_progress.min_freq",
	"session.upload_progress.name", "session.upload_progress.prefix", "short_open_tag", "sqlite3.extension_dir", "sys_temp_dir",
	"syslog.facility", "syslog.ident", "upload_max_filesize", "upload_tmp_dir", "user_dir", "user_ini.cache_ttl", "user_ini.filename",
	"variables_order", "xmlrpc_errors", "zend.max_allowed_stack_size", "zend.multibyte", "zend.reserved_stack_size", "zend_extension",
}

// checkWorkerIni takes what can change while PHP runs, for the threads of a host share
// the rest.
func checkWorkerIni(name, text string) error {
	if err := checkIni(name, text); err != nil {
		return err
	}
	_, found := slices.BinarySearch(atStart, name)
	switch {
	case found || strings.HasPrefix(name, "opcache."):
		return fmt.Errorf("must have settings that can change while PHP runs, and %q is read at its start: set it for all hosts in [php] ini", name)
	case name == "max_execution_time":
		return errors.New(`must not have "max_execution_time": an attempt ends by its queue's visibility_timeout`)
	}
	return nil
}

// checkHost takes the name of a host that runs workers.
func checkHost(name string) error {
	if name == webHost {
		return errors.New(`must not be "web": that host serves the pages, which a job's crash is not to end; leave the key out, or choose another name`)
	}
	return CheckName(name)
}
