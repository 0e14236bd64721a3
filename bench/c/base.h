/* Buffers, clocks and big-endian numbers, shared by the three programs. */
#ifndef BENCH_BASE_H
#define BENCH_BASE_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_SEQ (1u << 21) /* cancels of one run are numbered from 1; the number ends the ClOrdID */
#define READ_SIZE 262144
#define ID_DIGITS 12

struct buf {
    char *p;
    size_t len, cap;
};

static inline void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "protocol error");
    exit(1);
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void reserve(struct buf *b, size_t extra) {
    if (b->len + extra <= b->cap) return;
    b->cap = (b->len + extra) * 2;
    if (!(b->p = realloc(b->p, b->cap))) die("realloc");
}

static inline void put(struct buf *b, const void *p, size_t n) {
    reserve(b, n);
    memcpy(b->p + b->len, p, n);
    b->len += n;
}

static inline void put_text(struct buf *b, const char *s) { put(b, s, strlen(s)); }

/* The n low bytes of v, high byte first. */
static inline void put_be(struct buf *b, uint64_t v, int n) {
    reserve(b, 8);
    while (n--) b->p[b->len++] = (char)(v >> (8 * n));
}

static inline uint64_t get_be(const unsigned char *p, int n) {
    uint64_t v = 0;
    while (n--) v = v << 8 | *p++;
    return v;
}

static inline void drop_front(struct buf *b, size_t n) { memmove(b->p, b->p + n, b->len -= n); }

/* Write what the socket takes now; -1 if it is closed. */
static inline int send_some(int fd, struct buf *b) {
    size_t off = 0;
    while (off < b->len) {
        ssize_t n = send(fd, b->p + off, b->len - off, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN) return -1;
        if (n < 0) break;
        off += (size_t)n;
    }
    drop_front(b, off);
    return 0;
}

/* Read what is there now; -1 if the socket is closed. */
static inline int recv_some(int fd, struct buf *b) {
    reserve(b, READ_SIZE);
    ssize_t n = recv(fd, b->p + b->len, READ_SIZE, MSG_DONTWAIT);
    if (n > 0) b->len += (size_t)n;
    return n > 0 || (n < 0 && errno == EAGAIN) ? 0 : -1;
}

/* Value of the text field `name` (with its quotes) in the JSON of [p, e); NULL if it is not there. */
static inline const char *json_text(const char *p, const char *e, const char *name, size_t *n) {
    const char *k = memmem(p, (size_t)(e - p), name, strlen(name));
    if (!k) return NULL;
    k = memchr(k + strlen(name), '"', (size_t)(e - k) - strlen(name));
    const char *q = k ? memchr(k + 1, '"', (size_t)(e - k) - 1) : NULL;
    if (!q) return NULL;
    *n = (size_t)(q - k) - 1;
    return k + 1;
}

/* The number of a cancel: the decimal digits that end its ClOrdID. 0 if there is none. */
static inline uint32_t seq_of(const char *p, const char *e) {
    size_t n;
    const char *id = json_text(p, e, "\"ClOrdID\"", &n);
    if (!id) id = json_text(p, e, "\"cl_ord_id\"", &n); /* an event of ours without a report */
    if (!id || n < ID_DIGITS) return 0;
    uint64_t seq = 0;
    for (const char *d = id + n - ID_DIGITS; d < id + n; d++) {
        if (*d < '0' || *d > '9') return 0; /* not one of ours */
        seq = seq * 10 + (uint64_t)(*d - '0');
    }
    return seq < MAX_SEQ ? (uint32_t)seq : 0;
}

static inline int connect_to(const char *host, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0 || inet_pton(AF_INET, host, &a.sin_addr) != 1) die(host);
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}
#endif
