//go:build php

/* One blocking call over the node's unix socket; see link.h. */
#include "pogo.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the link writes integers as they lie in memory, which must be little-endian"
#endif

#define KEEP_BUFFER ((size_t)1 << 20) /* a larger buffer is given back */
#define GREETING_MS 10000             /* a node that does not greet by then is none */
#define DEAF_MS 10000
#define POLL_MS 1000 /* a signal between the look at a flag and poll() is seen after this */

/* ---- requests ---- */

void pogo_request_begin(pogo_request *r, enum pogo_op op) {
  r->op = (uint8_t)op;
  r->n = 0;
  r->len = 1;
}

/* A field over 4 GiB would not fit its length; the frame is too long long before. */
void pogo_request_bytes(pogo_request *r, const char *p, size_t n) {
  r->field[r->n].p = p;
  r->field[r->n].len = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
  r->n++;
  r->len += 4 + n;
}

void pogo_request_int(pogo_request *r, int64_t v) {
  r->field[r->n].p = NULL;
  r->field[r->n].number = v;
  r->field[r->n].len = 8;
  r->n++;
  r->len += 4 + 8;
}

/* ---- waiting ---- */

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

#ifndef POGO_STATIC
/* Runs the handlers of signals that came (pcntl_async_signals). The connection
 * has a request under way, so calls that a handler makes get one of their own.
 * False: a handler threw, exited, or returned in a forked child. */
static bool run_handlers(pogo_link *l) {
  if (!zend_atomic_bool_exchange_ex(&EG(vm_interrupt), false) || !zend_interrupt_function) {
    return true;
  }
  pogo_link mine = *l;
  pogo_link_init(l);
  l->borrowed = true;
  zend_try {
    zend_interrupt_function(EG(current_execute_data));
  } zend_catch {
    pogo_link_free(l);
    *l = mine;
    pogo_link_close(l);
    zend_bailout();
  } zend_end_try();
  pogo_link_free(l);
  *l = mine;
  return EG(exception) == NULL && (l->fd < 0 || l->pid == getpid());
}
#endif

/* Whether PHP wants this thread back. Only timed_out says so: vm_interrupt alone
 * also belongs to profilers, which must not turn a push into "outcome unknown". */
static bool stopped(pogo_link *l, enum pogo_wait how) {
  if (how == POGO_WAIT_DEAF) {
    return false;
  }
  if (zend_atomic_bool_load_ex(&EG(timed_out))) {
    l->stopped = true;
    return true;
  }
#ifndef POGO_STATIC
  if (how == POGO_WAIT_HANDLERS && zend_atomic_bool_load_ex(&EG(vm_interrupt)) && !run_handlers(l)) {
    l->stopped = true;
    return true;
  }
#endif
  return false;
}

/* Waits until the socket is ready for `events`. until: a time of now_ms, 0 for ever. */
static bool await(pogo_link *l, short events, enum pogo_wait how, int64_t until) {
  for (;;) {
    if (stopped(l, how)) {
      snprintf(l->error, sizeof l->error, "the call was interrupted");
      return false;
    }
    int ms = POLL_MS;
    if (until) {
      int64_t left = until - now_ms();
      if (left <= 0) {
        snprintf(l->error, sizeof l->error, "the node did not answer in time");
        return false;
      }
      if (left < ms) ms = (int)left;
    }
    struct pollfd p = {.fd = l->fd, .events = events};
    int n = poll(&p, 1, ms);
    if (n > 0) {
      return true; /* a closed peer too: the read or write says so */
    }
    if (n < 0 && errno != EINTR) {
      snprintf(l->error, sizeof l->error, "poll: %s", strerror(errno));
      return false;
    }
  }
}

bool pogo_pause(pogo_link *l, int milliseconds, enum pogo_wait how) {
  int64_t until = now_ms() + milliseconds;
  for (int64_t left; (left = until - now_ms()) > 0;) {
    if (stopped(l, how)) {
      return false;
    }
    poll(NULL, 0, (int)left);
  }
  return !stopped(l, how);
}

/* ---- the connection ---- */

void pogo_link_init(pogo_link *l) {
  memset(l, 0, sizeof *l);
  l->fd = -1;
}

/* In a forked child this closes the child's copy of the descriptor alone. */
void pogo_link_close(pogo_link *l) {
  if (l->fd >= 0) {
    close(l->fd);
    l->fd = -1;
  }
  l->holds = false;
}

void pogo_link_free(pogo_link *l) {
  pogo_link_close(l);
  free(l->in);
  free(l->greeting);
  l->in = l->greeting = NULL;
  l->cap = l->greeting_len = 0;
}

void pogo_link_trim(pogo_link *l) {
  if (l->cap > KEEP_BUFFER) {
    free(l->in);
    l->in = NULL;
    l->cap = 0;
  }
}

void pogo_socket_path(char *path, size_t cap) {
  const char *p = pogo_host_socket();
  if (!p || !*p) p = INI_STR("pogo.socket");
  if (!p || !*p) p = getenv("POGOD_SOCKET");
  path[0] = 0;
  if (p && *p) {
    if (strlen(p) < cap) strcpy(path, p);
    return;
  }
  static const char fallback[] = "/.pogod/pogod.sock";
  char dir[MAXPATHLEN];
  if (!VCWD_GETCWD(dir, sizeof dir) || strlen(dir) + sizeof fallback > cap) {
    return;
  }
  strcat(strcpy(path, dir), fallback);
  if (access(path, F_OK)) path[0] = 0;
}

static bool send_all(pogo_link *l, pogo_request *r, enum pogo_wait how, int64_t until);
static bool receive(pogo_link *l, enum pogo_wait how, int64_t until, pogo_answer *a);

static bool greet(pogo_link *l, enum pogo_wait how) {
  pogo_request r;
  pogo_answer a;
  pogo_request_begin(&r, POGO_HELLO);
  pogo_request_int(&r, POGO_PROTOCOL);
  pogo_request_int(&r, l->role);
  const zend_string *name = l->role == POGO_ROLE_WORKER ? POGO_G(worker).name : NULL;
  pogo_request_bytes(&r, name ? ZSTR_VAL(name) : "", name ? ZSTR_LEN(name) : 0);
  int64_t until = now_ms() + GREETING_MS;
  if (!send_all(l, &r, how, until) || !receive(l, how, until, &a)) {
    return false;
  }
  if (a.code != 1) {
    snprintf(l->error, sizeof l->error, "the node refused: %.*s", (int)MIN(a.len, 250), a.body);
    return false;
  }
  free(l->greeting);
  l->greeting_len = 0;
  if ((l->greeting = malloc(a.len))) {
    memcpy(l->greeting, a.body, a.len);
    l->greeting_len = a.len;
  }
  return true;
}

static bool open_link(pogo_link *l, enum pogo_wait how) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  pogo_socket_path(to.sun_path, sizeof to.sun_path);
  if (!*to.sun_path) {
    snprintf(l->error, sizeof l->error, "no node is reachable: neither pogo.socket nor POGOD_SOCKET names its socket");
    return false;
  }
  l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (l->fd < 0) {
    snprintf(l->error, sizeof l->error, "no node is reachable: socket: %s", strerror(errno));
    return false;
  }
  static uint64_t last_serial;
  l->serial = __atomic_add_fetch(&last_serial, 1, __ATOMIC_RELAXED);
  l->pid = getpid();
  l->role = pogo_in_worker() ? POGO_ROLE_WORKER : POGO_ROLE_PHP;
  /* A full backlog is the only thing that a connect to a unix socket waits for. */
  struct timeval wait = {.tv_sec = 1};
  setsockopt(l->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
  int failed;
  do {
    failed = connect(l->fd, (struct sockaddr *)&to, sizeof to);
  } while (failed && errno == EINTR && !stopped(l, how));
  if (failed || fcntl(l->fd, F_SETFL, O_NONBLOCK) < 0) {
    snprintf(l->error, sizeof l->error, "no node is reachable at %s: %s", to.sun_path, strerror(errno));
    pogo_link_close(l);
    return false;
  }
  if (!greet(l, how)) {
    pogo_link_close(l);
    return false;
  }
  return true;
}

/* Whether the connection that we have can carry a call: ours, not a parent's, of
 * the right role, not closed by the node while idle, and with nothing unread. */
static bool usable(pogo_link *l) {
  if (l->fd < 0) {
    return false;
  }
  if (l->pid == getpid() && l->role == (pogo_in_worker() ? POGO_ROLE_WORKER : POGO_ROLE_PHP)) {
    char c;
    ssize_t n;
    do {
      n = recv(l->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return true;
    }
  }
  pogo_link_close(l);
  return false;
}

/* ---- bytes ---- */

static bool send_all(pogo_link *l, pogo_request *r, enum pogo_wait how, int64_t until) {
  char head[5];
  uint32_t n = (uint32_t)r->len;
  memcpy(head, &n, 4);
  head[4] = (char)r->op;
  struct iovec v[1 + 2 * POGO_MAX_FIELDS] = {{head, sizeof head}};
  int count = 1;
  for (unsigned i = 0; i < r->n; i++) {
    v[count++] = (struct iovec){&r->field[i].len, 4};
    const void *p = r->field[i].p ? (const void *)r->field[i].p : (const void *)&r->field[i].number;
    v[count++] = (struct iovec){(void *)p, r->field[i].len};
  }
  for (struct iovec *at = v;;) {
    while (count && at->iov_len == 0) {
      at++;
      count--;
    }
    if (!count) {
      return true;
    }
    struct msghdr m = {.msg_iov = at, .msg_iovlen = (size_t)count};
    ssize_t k = sendmsg(l->fd, &m, MSG_NOSIGNAL);
    if (k < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        if (!await(l, POLLOUT, how, until)) return false;
        continue;
      }
      snprintf(l->error, sizeof l->error, "no node is reachable: %s", strerror(errno));
      return false;
    }
    for (size_t left = (size_t)k; left;) {
      size_t part = MIN(left, at->iov_len);
      at->iov_base = (char *)at->iov_base + part;
      at->iov_len -= part;
      left -= part;
      if (at->iov_len == 0 && left) {
        at++;
        count--;
      }
    }
  }
}

/* Makes room for want bytes; the buffer grows with what has arrived, not with
 * what a length announced. */
static bool reserve(pogo_link *l, size_t want) {
  if (l->cap >= want) {
    return true;
  }
  size_t cap = MAX(l->cap * 2, 4096);
  if (cap < want) cap = want;
  char *bigger = realloc(l->in, cap);
  if (!bigger) {
    snprintf(l->error, sizeof l->error, "no memory for an answer of %zu bytes", want);
    return false;
  }
  l->in = bigger;
  l->cap = cap;
  return true;
}

static bool receive(pogo_link *l, enum pogo_wait how, int64_t until, pogo_answer *a) {
  size_t have = 0, need = 8;
  while (have < need) {
    if (!reserve(l, MIN(need, have + KEEP_BUFFER)) || !await(l, POLLIN, how, until)) {
      return false;
    }
    ssize_t k = recv(l->fd, l->in + have, l->cap - have, 0);
    if (k <= 0) {
      if (k < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)) continue;
      snprintf(l->error, sizeof l->error, "the link to the node was lost: %s", k ? strerror(errno) : "it closed the connection");
      return false;
    }
    have += (size_t)k;
    if (need == 8 && have >= 8) {
      uint32_t n;
      memcpy(&n, l->in, 4);
      if (n < 4 || n > POGO_MAX_FRAME) {
        snprintf(l->error, sizeof l->error, "the node sent an answer of %u bytes", n);
        return false;
      }
      need = 4 + (size_t)n;
    }
  }
  if (have > need) { /* one call at a time: more than an answer is no answer */
    snprintf(l->error, sizeof l->error, "the node sent more than an answer");
    return false;
  }
  memcpy(&a->code, l->in + 4, 4);
  a->body = l->in + 8;
  a->len = need - 8;
  return true;
}

/* A connection that was found broken before all of the request was written is
 * opened anew once, and the call made there: the node does nothing for a part of
 * a frame. After the last byte was written there is no second try. */
pogo_outcome pogo_call(pogo_link *l, pogo_request *r, enum pogo_wait how, pogo_answer *a) {
  int64_t until = how == POGO_WAIT_DEAF ? now_ms() + DEAF_MS : 0;
  l->stopped = false;
  l->error[0] = 0;
  pogo_link_trim(l);
  bool fresh = !usable(l);
  for (;;) {
    if (fresh && !open_link(l, how)) {
      return POGO_UNSENT;
    }
    if (r->len > POGO_MAX_FRAME) {
      return POGO_TOO_LONG; /* asked after the connection: without a node the answer is 2 */
    }
    if (send_all(l, r, how, until)) {
      break;
    }
    pogo_link_close(l);
    if (fresh || l->stopped) {
      return POGO_UNSENT;
    }
    fresh = true;
  }
  if (!receive(l, how, until, a)) {
    pogo_link_close(l); /* what comes now would answer the next call */
    return POGO_LOST;
  }
  return POGO_ANSWERED;
}

static void begin_call(pogo_link *l) {
  l->stopped = false;
  l->error[0] = 0;
  pogo_link_trim(l);
}

pogo_outcome pogo_call_open(pogo_link *l, pogo_request *r, enum pogo_wait how, int64_t milliseconds, pogo_answer *a) {
  int64_t until = milliseconds ? now_ms() + milliseconds : 0;
  begin_call(l);
  if (!usable(l)) {
    snprintf(l->error, sizeof l->error, "the link to the node was lost");
    return POGO_UNSENT;
  }
  if (!send_all(l, r, how, until)) {
    pogo_link_close(l);
    return POGO_UNSENT;
  }
  if (!receive(l, how, until, a)) {
    pogo_link_close(l);
    return POGO_LOST;
  }
  return POGO_ANSWERED;
}

bool pogo_connect(pogo_link *l, enum pogo_wait how) {
  begin_call(l);
  return usable(l) || open_link(l, how);
}

bool pogo_send(pogo_link *l, pogo_request *r, enum pogo_wait how) {
  begin_call(l);
  if (send_all(l, r, how, how == POGO_WAIT_DEAF ? now_ms() + DEAF_MS : 0)) {
    return true;
  }
  pogo_link_close(l);
  return false;
}
