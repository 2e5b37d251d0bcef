package config

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// How the value of a known key is taken: each of these makes a field that checks
// the type, stores the value and then checks it.

// wrong is the error for a value of another type.
func (d *decoder) wrong(key string, v *value, want string) error {
	return d.doc.fault(v.at, "%s must be %s, not %s", key, want, v.kind)
}

// refuse returns the error of a check at its value, or nil.
func (d *decoder) refuse(key string, v *value, err error) error {
	if err == nil {
		return nil
	}
	return d.doc.fault(v.at, "%s %v", key, err)
}

func text(to *string, check func(string) error) field {
	return field{typeString, func() any { return *to }, func(d *decoder, key string, v *value) error {
		if v.kind != kindString {
			return d.wrong(key, v, "a string in quotes")
		}
		*to = v.text
		return d.refuse(key, v, check(v.text))
	}}
}

func texts(to *[]string, example string, check func([]string) error) field {
	return field{"list of strings", func() any { return *to }, func(d *decoder, key string, v *value) error {
		if v.kind != kindArray {
			return d.wrong(key, v, "a list, as "+example)
		}
		var list []string
		for _, i := range v.items {
			if i.kind != kindString {
				return d.wrong("an entry of "+key, i, "a string in quotes")
			}
			list = append(list, i.text)
			if err := check(list); err != nil {
				return d.refuse(key, i, err)
			}
		}
		*to = list
		return d.refuse(key, v, check(list))
	}}
}

func integer[N int | int64](to *N, check func(int64) error) field {
	return field{typeInteger, func() any { return int64(*to) }, func(d *decoder, key string, v *value) error {
		n, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), 0, 64)
		if v.kind != kindInteger || err != nil {
			return d.wrong(key, v, "an integer without quotes")
		}
		*to = N(n)
		return d.refuse(key, v, check(n))
	}}
}

func boolean(to *bool) field {
	return field{typeBoolean, func() any { return *to }, func(d *decoder, key string, v *value) error {
		if v.kind != kindBool {
			return d.wrong(key, v, "true or false without quotes")
		}
		*to = v.text == "true"
		return nil
	}}
}

func (d *decoder) duration(key string, v *value) (time.Duration, error) {
	switch v.kind {
	case kindString:
	case kindInteger, kindFloat:
		return 0, d.doc.fault(v.at, `%s must be a duration in quotes: write the unit, as "%ss"`, key, v.text)
	default:
		return 0, d.wrong(key, v, `a duration in quotes, as "90s"`)
	}
	t, err := time.ParseDuration(v.text)
	if err != nil {
		return 0, d.doc.fault(v.at, `%s must be a duration, as "90s", "1h30m" or "168h", not %q: the units are ms, s, m and h`, key, v.text)
	}
	return t, nil
}

func duration(to *time.Duration, check func(time.Duration) error) field {
	return field{"duration", func() any { return *to }, func(d *decoder, key string, v *value) error {
		t, err := d.duration(key, v)
		if err != nil {
			return err
		}
		*to = t
		return d.refuse(key, v, check(t))
	}}
}

func durations(to *[]time.Duration, most int, check func(time.Duration) error) field {
	return field{"list of durations", func() any { return *to }, func(d *decoder, key string, v *value) error {
		if v.kind != kindArray {
			return d.wrong(key, v, `a list of durations, as ["1s", "10s"]`)
		}
		if len(v.items) > most {
			return d.doc.fault(v.at, "%s must have at most %d entries, not %d", key, most, len(v.items))
		}
		list := make([]time.Duration, 0, len(v.items))
		for _, i := range v.items {
			t, err := d.duration("an entry of "+key, i)
			if err == nil {
				err = d.refuse("an entry of "+key, i, check(t))
			}
			if err != nil {
				return err
			}
			list = append(list, t)
		}
		*to = list
		return nil
	}}
}

func memory(to *string) field {
	return field{"string or integer", func() any { return *to }, func(d *decoder, key string, v *value) error {
		if v.kind != kindString && v.kind != kindInteger {
			return d.wrong(key, v, `PHP's memory_limit, as "256M"`)
		}
		*to = strings.ReplaceAll(v.text, "_", "")
		return d.refuse(key, v, checkMemoryLimit(*to))
	}}
}

func environment(to map[string]string) field {
	return field{"table of strings", func() any { return to }, func(d *decoder, key string, v *value) error {
		if v.kind != kindTable {
			return d.wrong(key, v, `a table of strings, as { APP_ENV = "prod" }`)
		}
		for _, e := range v.entries {
			if e.val.kind != kindString {
				return d.wrong(key+"."+e.key, e.val, "a string in quotes")
			}
			if err := checkEnv(e.key, e.val.text); err != nil {
				return d.doc.fault(e.at, "%s %v", key, err)
			}
			to[e.key] = e.val.text
		}
		return nil
	}}
}

// ini takes php.ini settings. A name with dots may be written with or without
// quotes: TOML reads the latter as tables in tables.
func ini(to map[string]string) field {
	return field{"table of settings", func() any { return to }, func(d *decoder, key string, v *value) error {
		if v.kind != kindTable {
			return d.wrong(key, v, `a table of settings, as { "opcache.enable" = true }`)
		}
		return d.ini(key, "", v, to, checkIni)
	}}
}

// workerIni takes php.ini settings of one worker.
func workerIni(to map[string]string) field {
	return field{"table of settings", func() any { return to }, func(d *decoder, key string, v *value) error {
		if v.kind != kindTable {
			return d.wrong(key, v, `a table of settings, as { "date.timezone" = "UTC" }`)
		}
		return d.ini(key, "", v, to, checkWorkerIni)
	}}
}

func (d *decoder) ini(key, prefix string, v *value, to map[string]string, check func(name, text string) error) error {
	for _, e := range v.entries {
		name, s := prefix+e.key, e.val.text
		switch e.val.kind {
		case kindTable:
			if err := d.ini(key, name+".", e.val, to, check); err != nil {
				return err
			}
			continue
		case kindBool:
			s = map[bool]string{true: "1", false: "0"}[s == "true"]
		case kindInteger:
			s = strings.ReplaceAll(s, "_", "")
		case kindString, kindFloat:
		default:
			return d.wrong(key+"."+name, e.val, "a string, a number or a boolean")
		}
		if _, ok := to[name]; ok {
			return d.doc.fault(e.at, "%s sets %q twice: take one out", key, name)
		}
		if err := check(name, s); err != nil {
			return d.doc.fault(e.at, "%s %v", key, err)
		}
		to[name] = s
	}
	return nil
}

// certificate takes the two files of a certificate.
func certificate(to *TLS) field {
	get := func() any {
		if *to == (TLS{}) {
			return ""
		}
		return map[string]string{"cert": to.Cert, "key": to.Key}
	}
	return field{"table", get, func(d *decoder, key string, v *value) error {
		if v.kind != kindTable {
			return d.wrong(key, v, `a table, as { cert = "tls/web.crt", key = "tls/web.key" }`)
		}
		if err := d.table(key, v, fields{"cert": text(&to.Cert, checkPath), "key": text(&to.Key, checkPath)}); err != nil {
			return err
		}
		if to.Cert == "" || to.Key == "" {
			return d.refuse(key, v, errors.New(`must have both "cert" and "key", the PEM files of the certificate and of its private key`))
		}
		return nil
	}}
}
