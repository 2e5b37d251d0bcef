package queue

import (
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
)

func appendUint(b []byte, v uint64) []byte    { return strconv.AppendUint(b, v, 10) }
func appendUvarint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }
func uvarint(b []byte) (uint64, int)          { return binary.Uvarint(b) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// parseUint reads a number in the form that appendUint writes, and in no other.
func parseUint(s string) (uint64, bool) {
	v, err := strconv.ParseUint(s, 10, 64)
	return v, err == nil && strconv.FormatUint(v, 10) == s
}
