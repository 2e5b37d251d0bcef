/* The wire between one PHP thread and its node: one connection, one call at a
 * time. The bytes are those of the Go package internal/link, whose doc.go is
 * the authority. Operations, roles and limits here repeat frame.go. */
#ifndef POGO_LINK_H
#define POGO_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define POGO_PROTOCOL 1
#define POGO_MAX_FRAME (17u << 20)
#define POGO_MAX_FIELDS 6

enum pogo_op {
  POGO_HELLO = 0,
  POGO_PUSH = 1,
  POGO_ACK = 2,
  POGO_RELEASE = 3,
  POGO_FAIL = 4,
  POGO_STATUS = 5,
  POGO_FAILED = 6,
  POGO_RETRY_FAILED = 7,
  POGO_FORGET_FAILED = 8,
  POGO_PURGE_FAILED = 9,
  POGO_NEXT = 16,
  POGO_ENDED = 17,
  POGO_DISPATCH = 64,
  POGO_AWAIT = 65,
  POGO_ABANDON = 66,
  POGO_NEXT_TASK = 67,
  POGO_TASK_ENDED = 68,
  POGO_RESERVE = 80,
  POGO_PUBLISH = 96,
  POGO_BROADCAST = 97,
  POGO_PUBLISH_WITH = 98,
};

enum pogo_role { POGO_ROLE_PHP = 1, POGO_ROLE_WORKER = 2 };

/* The result codes that the extension itself gives (php-api.md, section Queue). */
enum pogo_code {
  POGO_CODE_UNAVAILABLE = 2,
  POGO_CODE_TOO_LARGE = 3,
  POGO_CODE_BACKEND = 5,
  POGO_CODE_UNKNOWN = 6,
};

/* What became of a call. The node executes a frame only when all of it arrived,
 * so UNSENT and TOO_LONG mean that nothing happened; after LOST nobody here can
 * know. */
typedef enum {
  POGO_ANSWERED,
  POGO_UNSENT,
  POGO_LOST,
  POGO_TOO_LONG,
} pogo_outcome;

/* How a call waits. A PHP time-out ends every wait but a deaf one. */
enum pogo_wait {
  POGO_WAIT_PLAIN = 0,
  POGO_WAIT_HANDLERS = 1, /* on the command line: run asynchronous signal handlers meanwhile */
  POGO_WAIT_DEAF = 2,     /* not ended by a PHP time-out, but by 10 s */
};

/* The connection of one PHP thread. */
typedef struct {
  int fd;          /* -1: none */
  pid_t pid;       /* the process that opened fd; in a forked child fd is the parent's */
  int64_t role;    /* as it was said in Hello */
  uint64_t serial; /* of the connection: no other of this process has it */
  bool borrowed;   /* a signal handler's, while a call waits on the thread's own */
  char *greeting;  /* what the node said at its beginning: see the Go package internal/link */
  size_t greeting_len;
  char *in;        /* answers; grows, and is given back once it is over 1 MiB */
  size_t cap;
  bool holds;      /* the node has given it deliveries by pogo_queue_reserve */
  bool stopped;    /* the last call was ended by a time-out or a signal handler */
  char error[320]; /* why the last call was not answered */
} pogo_link;

/* A request. Fields point at the caller's bytes: nothing is copied before it is
 * written to the socket. */
typedef struct {
  uint8_t op;
  unsigned n;
  size_t len; /* of the frame behind its length: the op and all fields */
  struct {
    const char *p;
    uint32_t len; /* on the wire little-endian, as is the machine (checked in link.c) */
    int64_t number;
  } field[POGO_MAX_FIELDS];
} pogo_request;

typedef struct {
  int32_t code;
  const char *body; /* in the link's buffer: good until the next call */
  size_t len;
} pogo_answer;

void pogo_request_begin(pogo_request *r, enum pogo_op op);
void pogo_request_bytes(pogo_request *r, const char *p, size_t n);
void pogo_request_int(pogo_request *r, int64_t v);

/* Sends r and waits for its answer, over the thread's connection or a new one. */
pogo_outcome pogo_call(pogo_link *l, pogo_request *r, enum pogo_wait how, pogo_answer *a);

/* The same over the connection that is open, for a request about something that
 * lives with it. Waits for milliseconds, or for ever with 0. */
pogo_outcome pogo_call_open(pogo_link *l, pogo_request *r, enum pogo_wait how, int64_t milliseconds, pogo_answer *a);
/* Opens the connection if it is not. False: the link's error says why. */
bool pogo_connect(pogo_link *l, enum pogo_wait how);
/* Sends a request that has no answer over the open connection. False: likewise, and
 * the connection is closed. */
bool pogo_send(pogo_link *l, pogo_request *r, enum pogo_wait how);

void pogo_link_init(pogo_link *l);
void pogo_link_close(pogo_link *l);
/* Closes the connection and gives all memory back. */
void pogo_link_free(pogo_link *l);
/* Gives back a buffer that one large answer made large. */
void pogo_link_trim(pogo_link *l);
/* Writes the path of the node's socket, or "" when none is known. */
void pogo_socket_path(char *path, size_t cap);

/* Sleeps, unless a PHP time-out comes; runs signal handlers as POGO_WAIT_HANDLERS
 * does. False: stop waiting. */
bool pogo_pause(pogo_link *l, int milliseconds, enum pogo_wait how);

#endif
