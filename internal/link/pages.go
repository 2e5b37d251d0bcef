package link

// PageFigures is what a web host tells of its pages, as JSON in a Pages frame. Counters
// are those of its process; those of the worker are 0 in classic mode.
type PageFigures struct {
	Requests uint64 `json:"requests"`          // that PHP answers, or has answered
	Busy     int    `json:"busy"`              // threads that answer one
	Waiting  int    `json:"waiting"`           // requests that wait for a thread
	Ready    int    `json:"ready"`             // threads that can answer one: in worker mode, whose script has asked for one
	Restarts uint64 `json:"restarts"`          // times that the worker script ended by itself, or by exit
	Crashes  uint64 `json:"crashes"`           // times that a fatal error ended it, or an exit with a status
	Failed   uint64 `json:"failed"`            // times that it ended before it asked for a request
	Error    string `json:"error,omitempty"`   // why it failed last, one line
	ErrorAt  int64  `json:"errorAt,omitempty"` // when, in milliseconds of Unix time
}
