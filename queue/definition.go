package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"pogod/internal/command"
	"pogod/internal/tagged"
)

// Definition is what the configuration says of a queue. Zero values of the limits
// mean unlimited.
type Definition struct {
	MaxMessages       uint64          // ready, delayed and reserved jobs together
	MaxBytes          uint64          // payload bytes of the same
	MaxPayloadBytes   uint64          // of one payload, at most command.MaxPayload
	MaxAttempts       uint64          // attempts that may be spent; 0: unlimited
	VisibilityTimeout time.Duration   // the hard limit of an attempt, whole milliseconds
	Backoff           []time.Duration // before the 2nd, 3rd, ... attempt; the last repeats; empty: none
	MaxCrashes        uint64          // crashes in quarantine that fail a job; 0: unlimited
}

// Definitions of all queues, as they go through the log.
type Definitions struct {
	Default    Definition            // of queues made by a push
	AutoCreate bool                  // whether a push to an undeclared queue makes it
	Queues     map[string]Definition // the declared ones
}

// MaxQueueName is the longest name of a queue, in bytes.
const MaxQueueName = 128

// ValidName reports whether name may name a queue: 1 to MaxQueueName bytes of UTF-8
// without spaces, slashes and control characters.
func ValidName(name string) bool {
	if name == "" || len(name) > MaxQueueName || !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if r == '/' || unicode.IsSpace(r) || unicode.IsControl(r) {
			return false
		}
	}
	return true
}

// graceAfterTimeout is how long after an attempt's time-out the cluster frees the
// job, whatever its node does.
const graceAfterTimeout = 5 * time.Second

func (d *Definition) encode() []byte {
	var b, list []byte
	b = tagged.Uint(b, 1, d.MaxMessages)
	b = tagged.Uint(b, 2, d.MaxBytes)
	b = tagged.Uint(b, 3, d.MaxPayloadBytes)
	b = tagged.Uint(b, 4, d.MaxAttempts)
	b = tagged.Uint(b, 5, uint64(d.VisibilityTimeout.Milliseconds()))
	for _, w := range d.Backoff {
		list = appendUvarint(list, uint64(w.Milliseconds()))
	}
	b = tagged.Bytes(b, 6, list)
	return tagged.Uint(b, 7, d.MaxCrashes)
}

func decodeDefinition(p []byte) (d Definition, err error) {
	r := tagged.Read(p)
	for tag := range r.Tags() {
		switch tag {
		case 1:
			d.MaxMessages = r.Uint()
		case 2:
			d.MaxBytes = r.Uint()
		case 3:
			d.MaxPayloadBytes = r.Uint()
		case 4:
			d.MaxAttempts = r.Uint()
		case 5:
			d.VisibilityTimeout = time.Duration(r.Uint()) * time.Millisecond
		case 6:
			for list := r.Bytes(); len(list) > 0; {
				v, n := uvarint(list)
				if n <= 0 {
					return d, fmt.Errorf("a back-off list: %w", command.ErrMalformed)
				}
				d.Backoff = append(d.Backoff, time.Duration(v)*time.Millisecond)
				list = list[n:]
			}
		case 7:
			d.MaxCrashes = r.Uint()
		default:
			r.Unknown(tag)
		}
	}
	if r.Err() != nil {
		return d, fmt.Errorf("a queue's definition: %w", r.Err())
	}
	return d, nil
}

// Encode returns the bytes and the hash that a Define command carries; equal
// definitions give equal bytes.
func (d *Definitions) Encode() (b []byte, hash string) {
	b = tagged.Bytes(b, 1, d.Default.encode())
	if d.AutoCreate {
		b = tagged.Uint(b, 2, 1)
	}
	var list []byte
	for _, name := range sortedKeys(d.Queues) {
		def := d.Queues[name]
		item := tagged.Bytes(nil, 1, name)
		item = tagged.Bytes(item, 2, def.encode())
		list = appendUvarint(list, uint64(len(item)))
		list = append(list, item...)
	}
	b = tagged.Bytes(b, 3, list)
	sum := sha256.Sum256(b)
	return b, hex.EncodeToString(sum[:8])
}

// DecodeDefinitions reads what Encode returned.
func DecodeDefinitions(p []byte) (d Definitions, err error) {
	d.Queues = map[string]Definition{}
	r := tagged.Read(p)
	for tag := range r.Tags() {
		switch tag {
		case 1:
			if d.Default, err = decodeDefinition(r.Bytes()); err != nil {
				return d, err
			}
		case 2:
			d.AutoCreate = r.Uint() == 1
		case 3:
			for list := r.Bytes(); len(list) > 0; {
				n, k := uvarint(list)
				if k <= 0 || n > uint64(len(list)-k) {
					return d, fmt.Errorf("the list of queues: %w", command.ErrMalformed)
				}
				if err := d.decodeQueue(list[k : k+int(n)]); err != nil {
					return d, err
				}
				list = list[k+int(n):]
			}
		default:
			r.Unknown(tag)
		}
	}
	if r.Err() != nil {
		return d, fmt.Errorf("definitions of queues: %w", r.Err())
	}
	return d, nil
}

func (d *Definitions) decodeQueue(item []byte) error {
	var name string
	var def Definition
	var err error
	r := tagged.Read(item)
	for tag := range r.Tags() {
		switch tag {
		case 1:
			name = string(r.Bytes())
		case 2:
			if def, err = decodeDefinition(r.Bytes()); err != nil {
				return err
			}
		default:
			r.Unknown(tag)
		}
	}
	if r.Err() != nil {
		return fmt.Errorf("a queue: %w", r.Err())
	}
	d.Queues[name] = def
	return nil
}

// backoff returns how long to wait after the spent-th attempt.
func (d *Definition) backoff(spent uint64) time.Duration {
	if len(d.Backoff) == 0 || spent == 0 {
		return 0
	}
	return d.Backoff[min(spent-1, uint64(len(d.Backoff)-1))]
}

// maxSuperseded is how many hashes of earlier definitions are remembered.
const maxSuperseded = 64

// supersede notes that definitions with that hash, which has no space in it, take the
// place of those in force.
func (s *State) supersede(hash string) {
	if hash == s.defHash {
		return
	}
	s.superseded = slices.DeleteFunc(s.superseded, func(h string) bool { return h == hash || h == s.defHash })
	if s.defHash != "" {
		s.superseded = append(s.superseded, s.defHash)
	}
	s.superseded = s.superseded[max(0, len(s.superseded)-maxSuperseded):]
}

// Superseded reports whether the definitions with that hash were in force, and others came
// after them.
func (s *State) Superseded(hash string) bool { return slices.Contains(s.superseded, hash) }
