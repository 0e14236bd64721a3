/* RFC 6455 frames, both sides, and the server's answer to an upgrade. Extensions are never negotiated. */
#ifndef BENCH_WEBSOCKET_H
#define BENCH_WEBSOCKET_H
#include "base.h"

enum { CONTINUATION = 0, TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };

struct ws_frame {
    int opcode, is_last; /* of the frames of one message */
    char *p;
    size_t n;
};

/* Client frames carry a mask; the zero mask leaves the payload as it is. */
static inline void put_ws_head(struct buf *b, int opcode, size_t n, int masked) {
    int m = masked ? 0x80 : 0;
    put_be(b, 0x80u | (unsigned)opcode, 1);
    if (n < 126) put_be(b, (unsigned)m | n, 1);
    else if (n < 65536) put_be(b, (unsigned)m | 126, 1), put_be(b, n, 2);
    else put_be(b, (unsigned)m | 127, 1), put_be(b, n, 8);
    if (masked) put_be(b, 0, 4);
}

static inline void put_ws(struct buf *b, int opcode, const char *p, size_t n, int masked) {
    put_ws_head(b, opcode, n, masked);
    put(b, p, n);
}

static inline void unmask(unsigned char *d, size_t n, const unsigned char *key) {
    uint32_t k4;
    memcpy(&k4, key, 4);
    if (!k4) return;
    uint64_t k8 = (uint64_t)k4 << 32 | k4, v;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&v, d + i, 8);
        v ^= k8;
        memcpy(d + i, &v, 8);
    }
    for (; i < n; i++) d[i] ^= key[i & 3];
}

/* The next whole frame from *off on, unmasked in place; 0 if there is none yet. */
static inline int next_ws_frame(struct buf *b, size_t *off, struct ws_frame *f) {
    unsigned char *p = (unsigned char *)b->p + *off;
    size_t have = b->len - *off, head = 2;
    if (have < 2) return 0;
    uint64_t n = p[1] & 127;
    int masked = p[1] >> 7;
    if (n == 126) head = 4;
    if (n == 127) head = 10;
    if (have < head) return 0;
    if (head > 2) n = get_be(p + 2, (int)head - 2);
    size_t start = head + (masked ? 4 : 0);
    if (have < start + n) return 0;
    if (masked) unmask(p + start, n, p + head);
    *f = (struct ws_frame){p[0] & 15, p[0] >> 7, (char *)p + start, n};
    *off += start + n;
    return 1;
}

static inline uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

/* SHA-1 of a text short enough for two blocks. */
static inline void sha1(const char *d, size_t n, unsigned char out[20]) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char m[128] = {0};
    size_t total = n + 9 <= 64 ? 64 : 128;
    memcpy(m, d, n);
    m[n] = 0x80;
    m[total - 2] = (unsigned char)(n * 8 >> 8);
    m[total - 1] = (unsigned char)(n * 8);
    for (size_t block = 0; block < total; block += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d2 = h[3], e = h[4];
        for (int i = 0; i < 16; i++) w[i] = (uint32_t)get_be(m + block + 4 * i, 4);
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d2) : i < 40 ? b ^ c ^ d2 : i < 60 ? (b & c) | (b & d2) | (c & d2) : b ^ c ^ d2;
            uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
            uint32_t t = rotate(a, 5) + f + e + k + w[i];
            e = d2, d2 = c, c = rotate(b, 30), b = a, a = t;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d2, h[4] += e;
    }
    for (int i = 0; i < 20; i++) out[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* Answer the upgrade request in `in`: 1 when done, 0 while it is not whole, -1 if it is none. Headers may say anything. */
static inline int upgrade(struct buf *in, struct buf *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *end = in->len ? memmem(in->p, in->len, "\r\n\r\n", 4) : NULL, text[64], accept[29];
    unsigned char hash[21] = {0};
    if (!end) return 0;
    *end = 0;
    const char *key = strcasestr(in->p, "\r\nSec-WebSocket-Key:");
    if (!key) return -1;
    for (key += 20; *key == ' '; key++) {}
    int n = snprintf(text, sizeof text, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    sha1(text, (size_t)n, hash);
    for (int i = 0, o = 0; i < 21; i += 3) {
        uint32_t v = (uint32_t)get_be(hash + i, 3);
        for (int shift = 18; shift >= 0; shift -= 6) accept[o++] = digits[v >> shift & 63];
    }
    memcpy(accept + 27, "=", 2);
    put_text(out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
    put_text(out, accept);
    put_text(out, "\r\n\r\n");
    drop_front(in, (size_t)(end + 4 - in->p));
    return 1;
}
#endif
