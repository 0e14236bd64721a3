/* The limit: the worker's hot path and nothing else, in C. No time-outs, no validation, no recovery, no log.
 *
 *   worker [PREFETCH [EXTRA]]
 *
 * AMQP_URL and VENUE_URL (ws://127.0.0.1:PORT/...) name broker and venue. EXTRA bytes are added to each report that it
 * publishes: what it would cost to publish events as large as the contract's.
 */
#include "amqp.h"
#include "websocket.h"
#include <poll.h>

enum { MAX_TAGS = 1 << 21, MAX_FRAME = 65000 };
static const char EXCHANGE[] = "cancel.results", QUEUE[] = "cancel.commands";
static struct buf from_broker, to_broker, from_venue, to_venue, items, event;
static uint64_t tag_of_seq[MAX_SEQ], tag_of_publish[MAX_TAGS], publishes, confirmed, reqid = 1;
static uint32_t unconfirmed[MAX_TAGS]; /* by delivery tag */
static size_t extra;

static void publish(uint64_t tag, const char *record, size_t n, int is_final) {
    event.len = 0;
    if (extra) {
        put_text(&event, "{\"event_id\":\"");
        reserve(&event, extra);
        memset(event.p + event.len, 'x', extra);
        event.len += extra;
        put_text(&event, "\",\"report\":");
    }
    put(&event, record, n);
    if (extra) put_text(&event, "}");
    tag_of_publish[++publishes % MAX_TAGS] = tag;
    put_publish(&to_broker, EXCHANGE, is_final ? "final.canceled.BTC-USD" : "info.pending_cancel.BTC-USD", "", 0, event.p, event.len);
}

static void confirm(uint64_t number) {
    uint64_t tag = tag_of_publish[number % MAX_TAGS];
    if (!tag) return; /* confirmed by an earlier single ack */
    tag_of_publish[number % MAX_TAGS] = 0;
    if (!--unconfirmed[tag % MAX_TAGS]) put_ack(&to_broker, tag);
}

static void on_confirm(uint64_t number, int multiple) {
    if (!multiple) confirm(number);
    else while (confirmed < number) confirm(++confirmed);
    while (confirmed < publishes && !tag_of_publish[(confirmed + 1) % MAX_TAGS]) confirmed++;
}

static void send_frame(void) {
    char head[80];
    if (!items.len) return;
    int n = snprintf(head, sizeof head, "{\"reqid\":%llu,\"type\":\"OrderCancelRequest\",\"data\":[", (unsigned long long)++reqid);
    put_ws_head(&to_venue, TEXT, (size_t)n + items.len + 2, 1);
    put(&to_venue, head, (size_t)n);
    put(&to_venue, items.p, items.len);
    put(&to_venue, "]}", 2);
    items.len = 0;
}

/* The items of a command are the venue's own: they go on as they are. */
static void on_command(uint64_t tag, const char *p, size_t n) {
    const char *e = p + n, *data = memmem(p, n, "\"data\":[", 8), *item = data ? data + 8 : e, *end;
    uint32_t count = 0;
    for (; (item = memchr(item, '{', (size_t)(e - item))) && (end = memchr(item, '}', (size_t)(e - item))); item = end, count++) {
        tag_of_seq[seq_of(item, end)] = tag;
        if (items.len) put(&items, ",", 1);
        put(&items, item, (size_t)(end + 1 - item));
        if (items.len > MAX_FRAME) send_frame();
    }
    unconfirmed[tag % MAX_TAGS] = 2 * count;
}

static void on_broker(void) {
    static struct buf body;
    static uint64_t tag, left;
    size_t off = 0;
    int type;
    uint32_t n;
    const unsigned char *p;
    while ((p = next_frame(&from_broker, &off, &type, &n))) {
        uint32_t method = type == METHOD ? (uint32_t)get_be(p, 4) : 0;
        if (method == DELIVER) tag = get_be(p + 5 + p[4], 8);
        else if (method == ACK) on_confirm(get_be(p + 4, 8), p[12] & 1);
        else if (method == NACK) errno = 0, die("the broker refused a result");
        else if (type == HEADER) left = get_be(p + 4, 8), body.len = 0;
        else if (type == BODY) {
            put(&body, p, n);
            if (!(left -= n)) on_command(tag, body.p, body.len);
        }
    }
    drop_front(&from_broker, off);
    send_frame();
}

static void on_reports(const char *p, size_t n) {
    const char *e = p + n, *record = memmem(p, n, "\"data\":[", 8), *end;
    if (!record) return;
    for (; (record = memchr(record, '{', (size_t)(e - record))) && (end = memchr(record, '}', (size_t)(e - record))); record = end) {
        uint64_t tag = tag_of_seq[seq_of(record, end)];
        size_t k;
        const char *type = json_text(record, end, "\"ExecType\"", &k);
        if (tag && type) publish(tag, record, (size_t)(end + 1 - record), *type == 'C');
    }
}

static void on_venue(void) {
    static int subscribed, consuming;
    struct ws_frame f;
    size_t off = 0;
    while (next_ws_frame(&from_venue, &off, &f)) {
        if (f.opcode != TEXT) continue;
        static const char subscribe[] = "{\"reqid\":1,\"type\":\"subscribe\",\"streams\":[{\"name\":\"ExecutionReport\"}]}";
        if (!subscribed) put_ws(&to_venue, TEXT, subscribe, sizeof subscribe - 1, 1); /* the hello */
        else if (!consuming) put_consume(&to_broker, QUEUE, 0), consuming = 1;        /* the empty initial frame */
        else on_reports(f.p, f.n);
        subscribed = 1;
    }
    drop_front(&from_venue, off);
}

static int venue_login(const char *url) {
    char host[64], reply[1024];
    int port, fd;
    if (!url || sscanf(url, "ws://%63[^:]:%d/", host, &port) != 2) die("VENUE_URL");
    fd = connect_to(host, port);
    static const char request[] = "GET /ws/v1 HTTP/1.1\r\nHost: venue\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    if (write(fd, request, sizeof request - 1) < 0) die("venue");
    ssize_t n = recv(fd, reply, sizeof reply, 0);
    char *end = n > 0 ? memmem(reply, (size_t)n, "\r\n\r\n", 4) : NULL;
    if (!end) die("venue");
    put(&from_venue, end + 4, (size_t)(reply + n - end - 4)); /* the hello may have come along */
    return fd;
}

int main(int argc, char **argv) {
    const char *url = getenv("AMQP_URL");
    if (!url) die("AMQP_URL");
    int broker = amqp_login(url, 1, argc > 1 ? atoi(argv[1]) : 500), venue = venue_login(getenv("VENUE_URL"));
    extra = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    on_venue();
    for (;;) {
        if (send_some(broker, &to_broker) || send_some(venue, &to_venue)) die("send");
        struct pollfd p[] = {{broker, POLLIN | (to_broker.len ? POLLOUT : 0), 0}, {venue, POLLIN | (to_venue.len ? POLLOUT : 0), 0}};
        poll(p, 2, -1);
        if (p[0].revents & POLLIN) {
            if (recv_some(broker, &from_broker)) die("broker");
            on_broker();
        }
        if (p[1].revents & POLLIN) {
            if (recv_some(venue, &from_venue)) die("venue");
            on_venue();
        }
        if ((p[0].revents | p[1].revents) & (POLLHUP | POLLERR)) return 1;
    }
}
