/* The least of AMQP 0-9-1 that a load generator and a worker need: log in, publish, consume, ack, read frames. */
#ifndef BENCH_AMQP_H
#define BENCH_AMQP_H
#include "base.h"

enum { METHOD = 1, HEADER = 2, BODY = 3, FRAME_END = 0xCE };
#define METHOD_ID(class_, method) ((uint32_t)(class_) << 16 | (method))
enum {
    START = METHOD_ID(10, 10), START_OK = METHOD_ID(10, 11), TUNE = METHOD_ID(10, 30), TUNE_OK = METHOD_ID(10, 31),
    OPEN = METHOD_ID(10, 40), OPEN_OK = METHOD_ID(10, 41), CHANNEL_OPEN = METHOD_ID(20, 10), CHANNEL_OPEN_OK = METHOD_ID(20, 11),
    QOS = METHOD_ID(60, 10), QOS_OK = METHOD_ID(60, 11), CONSUME = METHOD_ID(60, 20), CONSUME_OK = METHOD_ID(60, 21),
    PUBLISH = METHOD_ID(60, 40), DELIVER = METHOD_ID(60, 60), ACK = METHOD_ID(60, 80), NACK = METHOD_ID(60, 120),
    CONFIRM_SELECT = METHOD_ID(85, 10), CONFIRM_SELECT_OK = METHOD_ID(85, 11),
};

static inline void put_shortstr(struct buf *b, const char *s) {
    put_be(b, strlen(s), 1);
    put_text(b, s);
}

/* A frame is begun, filled and ended; the offset that begin returns goes to end. */
static inline size_t begin_frame(struct buf *b, int type, int channel) {
    put_be(b, (uint64_t)type, 1);
    put_be(b, (uint64_t)channel, 2);
    put_be(b, 0, 4);
    return b->len;
}
static inline void end_frame(struct buf *b, size_t start) {
    uint32_t n = htonl((uint32_t)(b->len - start));
    memcpy(b->p + start - 4, &n, 4);
    put_be(b, FRAME_END, 1);
}
static inline size_t begin_method(struct buf *b, int channel, uint32_t method) {
    size_t start = begin_frame(b, METHOD, channel);
    put_be(b, method, 4);
    return start;
}

/* The next whole frame from *off on, or NULL; *n is the length of its payload. */
static inline const unsigned char *next_frame(const struct buf *b, size_t *off, int *type, uint32_t *n) {
    const unsigned char *p = (const unsigned char *)b->p + *off;
    if (b->len - *off < 8) return NULL;
    *n = (uint32_t)get_be(p + 3, 4);
    if (b->len - *off < *n + 8ull) return NULL;
    *type = p[0];
    *off += *n + 8ull;
    return p + 7;
}

/* Send what is in `out` and wait for the answer `method`. */
static inline void call(int fd, struct buf *out, uint32_t method) {
    struct buf in = {0};
    while (out->len)
        if (send_some(fd, out)) die("broker");
    for (;;) {
        char c[4096];
        size_t off = 0;
        int type;
        uint32_t n;
        ssize_t got = recv(fd, c, sizeof c, 0);
        if (got <= 0) die("the broker closed the connection");
        put(&in, c, (size_t)got);
        const unsigned char *p = next_frame(&in, &off, &type, &n);
        if (!p) continue;
        errno = 0;
        if (type != METHOD || get_be(p, 4) != method) die("unexpected answer of the broker");
        free(in.p);
        return;
    }
}

/* A connection with channel 1 open. `url`: amqp://USER:PASSWORD@HOST:PORT/VHOST; prefetch 0: no limit. */
static inline int amqp_login(const char *url, int confirms, int prefetch) {
    char user[128], password[128], host[64], vhost[128] = "/", plain[260];
    int port;
    if (sscanf(url, "amqp://%127[^:]:%127[^@]@%63[^:]:%d/%127s", user, password, host, &port, vhost) < 4) die("AMQP_URL");
    int fd = connect_to(host, port);
    struct buf out = {0};
    put(&out, "AMQP\0\0\x09\x01", 8);
    call(fd, &out, START);
    size_t at = begin_method(&out, 0, START_OK);
    put_be(&out, 0, 4); /* no client properties */
    put_shortstr(&out, "PLAIN");
    int n = snprintf(plain, sizeof plain, "%c%s%c%s", 0, user, 0, password);
    put_be(&out, (uint64_t)n, 4);
    put(&out, plain, (size_t)n);
    put_shortstr(&out, "en_US");
    end_frame(&out, at);
    call(fd, &out, TUNE);
    at = begin_method(&out, 0, TUNE_OK);
    put_be(&out, 2047, 2);
    put_be(&out, 131072, 4);
    put_be(&out, 0, 2); /* no heartbeat */
    end_frame(&out, at);
    at = begin_method(&out, 0, OPEN);
    put_shortstr(&out, vhost);
    put_be(&out, 0, 2);
    end_frame(&out, at);
    call(fd, &out, OPEN_OK);
    at = begin_method(&out, 1, CHANNEL_OPEN);
    put_be(&out, 0, 1);
    end_frame(&out, at);
    call(fd, &out, CHANNEL_OPEN_OK);
    if (confirms) {
        at = begin_method(&out, 1, CONFIRM_SELECT);
        put_be(&out, 0, 1);
        end_frame(&out, at);
        call(fd, &out, CONFIRM_SELECT_OK);
    }
    if (prefetch) {
        at = begin_method(&out, 1, QOS);
        put_be(&out, 0, 4);
        put_be(&out, (uint64_t)prefetch, 2);
        put_be(&out, 0, 1);
        end_frame(&out, at);
        call(fd, &out, QOS_OK);
    }
    free(out.p);
    return fd;
}

static inline void put_consume(struct buf *b, const char *queue, int no_ack) {
    size_t at = begin_method(b, 1, CONSUME);
    put_be(b, 0, 2);
    put_shortstr(b, queue);
    put_shortstr(b, "bench");
    put_be(b, no_ack ? 2 : 0, 1);
    put_be(b, 0, 4);
    end_frame(b, at);
}

/* A persistent JSON message; message_id may be empty, timestamp_s 0. */
static inline void put_publish(struct buf *b, const char *exchange, const char *key, const char *message_id,
                               uint64_t timestamp_s, const char *body, size_t n) {
    size_t at = begin_method(b, 1, PUBLISH);
    put_be(b, 0, 2);
    put_shortstr(b, exchange);
    put_shortstr(b, key);
    put_be(b, 0, 1);
    end_frame(b, at);
    at = begin_frame(b, HEADER, 1);
    put_be(b, 60, 2);
    put_be(b, 0, 2);
    put_be(b, n, 8);
    put_be(b, 0x9000u | (*message_id ? 0x80 : 0) | (timestamp_s ? 0x40 : 0), 2);
    put_shortstr(b, "application/json");
    put_be(b, 2, 1); /* persistent */
    if (*message_id) put_shortstr(b, message_id);
    if (timestamp_s) put_be(b, timestamp_s, 8);
    end_frame(b, at);
    for (size_t done = 0; done < n;) {
        size_t part = n - done < 130000 ? n - done : 130000;
        at = begin_frame(b, BODY, 1);
        put(b, body + done, part);
        end_frame(b, at);
        done += part;
    }
}

static inline void put_ack(struct buf *b, uint64_t tag) {
    size_t at = begin_method(b, 1, ACK);
    put_be(b, tag, 8);
    put_be(b, 0, 1);
    end_frame(b, at);
}
#endif
