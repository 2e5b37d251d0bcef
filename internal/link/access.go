package link

// AccessLine is one line of the access log of pages, as JSON: in a file, and in an Access
// frame.
type AccessLine struct {
	Time    string  `json:"time"`              // when it came, RFC 3339 with milliseconds
	Client  string  `json:"client"`            // its address
	Method  string  `json:"method"`            //
	Path    string  `json:"path"`              // with the query, as the client sent it
	Status  int     `json:"status"`            //
	Bytes   int64   `json:"bytes"`             // of the body of the answer
	Seconds float64 `json:"seconds"`           // until the answer was written
	Agent   string  `json:"agent,omitempty"`   // User-Agent
	Referer string  `json:"referer,omitempty"` // Referer
}
