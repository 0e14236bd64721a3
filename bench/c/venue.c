/* The venue of the benchmarks: one thread, epoll, about 1 us per cancel.
 *
 *   venue [-d MS] [-f RATE] [-r RECORDS] [-n ORDERS] [-o] STATS_FILE
 *
 * Speaks the protocol as far as a load with reconnects needs it: upgrade (any key), hello, subscribe, page, Ping,
 * OrderCancelRequest. Every cancel is answered by PendingCancel and Canceled on each subscribed session. A replay or the
 * record of one order is made from the time at which its cancel came, byte for byte what was reported live. It prints its
 * port, and writes when each cancel came to the mapped STATS_FILE, so that looking costs no system call.
 *
 *   -d MS       answer after MS milliseconds (a slow venue); default at once
 *   -f RATE     reports per second on other users' orders, on each session
 *   -r RECORDS  reports in one frame at most; default 1
 *   -n ORDERS   so many orders are open at first and listed in one frame; cancels are then numbered by their OrderID
 *   -o          reports only to the session that sent the cancel
 *
 * SIGUSR1 makes it drop all sessions.
 */
#include "websocket.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>

enum { MAX_SESSIONS = 64, TICK_NS = 1000000, PAGE = 1000 };

struct stats {
    uint64_t cancels, frames, first_ns, last_ns, duplicates, foreign, sessions, pings;
    uint64_t rx_ns[MAX_SEQ];
};
struct session {
    int fd, upgraded, waits_to_write;
    uint64_t subscription, seq_num, records; /* subscription 0: no live reports */
    struct buf in, out, data, pieces;
};
struct cancel {
    uint64_t due_ns;
    uint32_t seq;
    int slot;
    char symbol[65], cl_ord_id[37], order_id[65];
};

static struct stats *stats;
static struct session *sessions[MAX_SESSIONS];
static struct cancel *waiting; /* a ring: the delay is the same for all */
static uint64_t first_waiting, last_waiting, foreign_due_ns, utc_offset_ns;
static uint32_t highest_seq;
static const uint64_t ring = 1 << 18;
static uint64_t delay_ns, foreign_rate, records_per_frame = 1;
static uint32_t open_orders;
static int own_session_only, ep;
static volatile sig_atomic_t drop_all;

/* Monotonic nanoseconds as UTC text; good until the next call. */
static const char *utc(uint64_t ns) {
    static char text[40];
    static time_t second;
    time_t s = (time_t)((ns += utc_offset_ns) / 1000000000);
    if (s != second) {
        struct tm parts;
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", gmtime_r(&s, &parts));
        second = s;
    }
    snprintf(text + 19, sizeof text - 19, ".%06uZ", (unsigned)(ns / 1000 % 1000000));
    return text;
}

static void send_text(struct session *s, const char *p, size_t n) { put_ws(&s->out, TEXT, p, n, 0); }

static void end_reports(struct session *s) {
    if (!s->records) return;
    char head[200];
    int n = snprintf(head, sizeof head,
                     "{\"reqid\":%llu,\"type\":\"ExecutionReport\",\"ts\":\"%s\",\"seqNum\":%llu,\"action\":\"Update\",\"data\":[",
                     (unsigned long long)s->subscription, utc(now_ns()), (unsigned long long)++s->seq_num);
    put_ws_head(&s->out, TEXT, (size_t)n + s->data.len + 2, 0);
    put(&s->out, head, (size_t)n);
    put(&s->out, s->data.p, s->data.len);
    put(&s->out, "]}", 2);
    s->data.len = s->records = 0;
}

static void add_report(struct session *s, const char *record, size_t n) {
    if (s->records) put(&s->data, ",", 1);
    put(&s->data, record, n);
    if (++s->records >= records_per_frame) end_reports(s);
}

struct record {
    const char *symbol, *cl_ord_id, *order_id, *user, *exec_type, *ord_status, *leaves;
    uint64_t at_ns, exec_id;
};

/* About 690 bytes; 770 with its envelope. */
static int format_record(char *text, size_t size, const struct record *r) {
    const char *at = utc(r->at_ns);
    return snprintf(text, size,
        "{\"Timestamp\":\"%s\",\"Symbol\":\"%s\",\"OrderID\":\"%s\",\"ClOrdID\":\"%s\",\"OrigClOrdID\":\"ord-%s\","
        "\"SubmitTime\":\"2021-09-15T04:09:42.238000Z\",\"ExecID\":\"5c6d0c1e-7f0d-4c35-8a10-%012llx\",\"Side\":\"Buy\","
        "\"TransactTime\":\"%s\",\"ExecType\":\"%s\",\"OrdStatus\":\"%s\",\"OrderQty\":\"1.25000000\",\"OrdType\":\"Limit\","
        "\"Price\":\"64250.50\",\"Currency\":\"BTC\",\"AmountCurrency\":\"USD\",\"LeavesQty\":\"%s\",\"CumQty\":\"0\",\"AvgPx\":\"0\","
        "\"CumAmt\":\"0\",\"TimeInForce\":\"GoodTillCancel\",\"DecisionStatus\":\"Active\",\"CustomerUser\":\"%s@example.com\"}",
        at, r->symbol, r->order_id, r->cl_ord_id, r->cl_ord_id + 24, (unsigned long long)r->exec_id, at, r->exec_type, r->ord_status,
        r->leaves, r->user);
}

/* sender -1: not in answer to a cancel */
static void report(int sender, const struct record *record) {
    char r[1200];
    int n = format_record(r, sizeof r, record);
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (sessions[i] && sessions[i]->subscription && (!own_session_only || i == sender || sender < 0)) add_report(sessions[i], r, (size_t)n);
}

static struct record pending_cancel(const struct cancel *c) {
    return (struct record){c->symbol, c->cl_ord_id, c->order_id, "desk", "PendingCancel", "PendingCancel", "1.25000000", c->due_ns, 2ull * c->seq};
}

static struct record canceled(const struct cancel *c) {
    return (struct record){c->symbol, c->cl_ord_id, c->order_id, "desk", "Canceled", "Canceled", "0", c->due_ns + 1000, 2ull * c->seq + 1};
}

static void answer(const struct cancel *c) {
    struct record r = pending_cancel(c);
    report(c->slot, &r);
    r = canceled(c);
    report(c->slot, &r);
}

/* The cancel with this number, as the load generator made it; 0 if it was not answered yet. */
static int find_cancel(uint32_t seq, struct cancel *c) {
    uint64_t came = seq < MAX_SEQ ? stats->rx_ns[seq] : 0;
    *c = (struct cancel){.due_ns = came + delay_ns, .seq = seq, .symbol = "BTC-USD"};
    snprintf(c->cl_ord_id, sizeof c->cl_ord_id, "c0be17e0-15da-11ec-b5e7-%012u", seq);
    snprintf(c->order_id, sizeof c->order_id, "16a55364-4248-4575-aa0b-%012u", seq);
    return came && c->due_ns <= now_ns();
}

static void copy_text(char *to, size_t cap, const char *p, const char *e, const char *name) {
    size_t n = 0;
    const char *v = json_text(p, e, name, &n);
    if (n >= cap) n = cap - 1;
    if (v) memcpy(to, v, n);
    to[v ? n : 0] = 0;
}

static void cancel_request(int slot, const char *p, const char *e, uint64_t now) {
    const char *item = memmem(p, (size_t)(e - p), "\"data\"", 6), *end;
    stats->frames++;
    for (; item && (item = memchr(item, '{', (size_t)(e - item))) && (end = memchr(item, '}', (size_t)(e - item))); item = end) {
        struct cancel c = {.due_ns = now + delay_ns, .slot = slot, .seq = seq_of(item, end)};
        copy_text(c.symbol, sizeof c.symbol, item, end, "\"Symbol\"");
        copy_text(c.cl_ord_id, sizeof c.cl_ord_id, item, end, "\"ClOrdID\"");
        copy_text(c.order_id, sizeof c.order_id, item, end, "\"OrderID\"");
        if (open_orders) c.seq = (uint32_t)strtoul(c.order_id + strlen(c.order_id) - ID_DIGITS, NULL, 10) % MAX_SEQ;
        if (c.seq > highest_seq) highest_seq = c.seq;
        if (stats->rx_ns[c.seq]) stats->duplicates++;
        else stats->rx_ns[c.seq] = now;
        if (!stats->cancels++) stats->first_ns = now;
        stats->last_ns = now;
        if (!delay_ns) answer(&c);
        else if (last_waiting - first_waiting < ring) waiting[last_waiting++ % ring] = c;
        else errno = 0, die("more cancels wait than the ring holds");
    }
}

/* A page of the reports since `start`, from cancel number `seq` on; it names the next one where there is more. */
static void replay(struct session *s, uint64_t reqid, const char *start, uint32_t seq) {
    static struct buf page;
    struct cancel c;
    char text[1200];
    int n = snprintf(text, sizeof text, "{\"reqid\":%llu,\"type\":\"ExecutionReport\",\"ts\":\"%s\",\"initial\":true,\"seqNum\":%llu,\"data\":[",
                     (unsigned long long)reqid, utc(now_ns()), (unsigned long long)++s->seq_num);
    page.len = 0;
    put(&page, text, (size_t)n);
    for (uint32_t cancels = 0; seq <= highest_seq && cancels < PAGE; seq++) {
        if (!find_cancel(seq, &c) || strcmp(utc(c.due_ns), start) < 0) continue;
        struct record records[] = {pending_cancel(&c), canceled(&c)};
        for (int i = 0; i < 2; i++) {
            n = format_record(text, sizeof text, &records[i]);
            if (cancels + (uint32_t)i) put(&page, ",", 1);
            put(&page, text, (size_t)n);
        }
        cancels++;
    }
    n = snprintf(text, sizeof text, seq <= highest_seq ? "],\"next\":\"%s/%u\"}" : "]}", start, seq);
    put(&page, text, (size_t)n);
    send_text(s, page.p, page.len);
}

/* The one frame of a stream that ends with it: the record of an order that was asked for, or nothing. */
static void snapshot(struct session *s, uint64_t reqid, const char *stream, const char *order_id) {
    char text[1600];
    struct cancel c;
    size_t l = strlen(order_id);
    uint32_t seq = l >= ID_DIGITS ? (uint32_t)strtoul(order_id + l - ID_DIGITS, NULL, 10) : 0;
    int n = snprintf(text, sizeof text, "{\"reqid\":%llu,\"type\":\"%s\",\"ts\":\"%s\",\"initial\":true,\"seqNum\":1,\"data\":[",
                     (unsigned long long)reqid, stream, utc(now_ns()));
    if (seq) {
        int over = find_cancel(seq, &c);
        struct record r = canceled(&c), open = {c.symbol, c.order_id, c.order_id, "desk", "New", "New", "1.25000000", now_ns(), 0};
        n += format_record(text + n, sizeof text - (size_t)n, over ? &r : &open);
    }
    n += snprintf(text + n, sizeof text - (size_t)n, "]}");
    send_text(s, text, (size_t)n);
}

/* One frame with those of the orders of -n that are still open. */
static void list_orders(struct session *s, uint64_t reqid) {
    static struct buf list;
    struct cancel c;
    char text[1600];
    list.len = 0;
    put(&list, text, (size_t)snprintf(text, sizeof text, "{\"reqid\":%llu,\"type\":\"Order\",\"ts\":\"%s\",\"initial\":true,\"seqNum\":1,\"data\":[",
                                      (unsigned long long)reqid, utc(now_ns())));
    for (uint32_t seq = 1, listed = 0; seq <= open_orders; seq++) {
        if (find_cancel(seq, &c)) continue;
        struct record r = {c.symbol, c.order_id, c.order_id, "desk", "New", "New", "1.25000000", now_ns(), seq};
        if (listed++) put(&list, ",", 1);
        put(&list, text, (size_t)format_record(text, sizeof text, &r));
    }
    put(&list, "]}", 2);
    send_text(s, list.p, list.len);
}

static void subscribe(struct session *s, uint64_t reqid, const char *p, const char *e) {
    char name[65], start[65], order_id[65];
    copy_text(name, sizeof name, p, e, "\"name\"");
    copy_text(start, sizeof start, p, e, "\"StartDate\"");
    copy_text(order_id, sizeof order_id, p, e, "\"OrderID\"");
    if (open_orders && !strcmp(name, "Order") && !*order_id) return list_orders(s, reqid);
    if (strcmp(name, "ExecutionReport") || *order_id) return snapshot(s, reqid, name, order_id);
    if (!s->subscription) s->subscription = reqid;
    replay(s, reqid, *start ? start : "3", 1); /* without StartDate: nothing old */
}

static void next_page(struct session *s, uint64_t reqid, const char *p, const char *e) {
    char after[65];
    copy_text(after, sizeof after, p, e, "\"after\"");
    char *slash = strchr(after, '/');
    if (!slash) return;
    *slash = 0;
    replay(s, reqid, after, (uint32_t)strtoul(slash + 1, NULL, 10));
}

static void on_message(int slot, const char *p, size_t length, uint64_t now) {
    struct session *s = sessions[slot];
    char text[300];
    const char *e = p + length, *id = memmem(p, length, "\"reqid\"", 7);
    uint64_t reqid = id ? strtoull(id + 7 + strspn(id + 7, ": "), NULL, 10) : 0;
    size_t n = 0;
    const char *type = json_text(p, e, "\"type\"", &n);
    if (!type) return;
    if (!strncmp(type, "OrderCancelRequest", n)) {
        cancel_request(slot, p, e, now);
    } else if (!strncmp(type, "subscribe", n)) {
        subscribe(s, reqid, p, e);
    } else if (!strncmp(type, "page", n)) {
        next_page(s, reqid, p, e);
    } else if (!strncmp(type, "Ping", n)) {
        stats->pings++;
        int k = snprintf(text, sizeof text, "{\"reqid\":%llu,\"type\":\"Pong\",\"ts\":\"%s\",\"data\":[{}]}", (unsigned long long)reqid, utc(now));
        send_text(s, text, (size_t)k);
    } /* cancel, the end of a stream, needs no answer */
}

static void hello(struct session *s) {
    char text[160];
    int n = snprintf(text, sizeof text, "{\"type\":\"hello\",\"ts\":\"%s\",\"session_id\":\"BENCH%08llu\"}", utc(now_ns()),
                     (unsigned long long)++stats->sessions);
    send_text(s, text, (size_t)n);
}

static void close_session(int slot) {
    struct session *s = sessions[slot];
    close(s->fd);
    free(s->in.p), free(s->out.p), free(s->data.p), free(s->pieces.p), free(s);
    sessions[slot] = NULL;
}

static void asked_to_drop(int number) { (void)number, drop_all = 1; }

/* Text comes in one frame, or in pieces from a client that sends what its buffer holds (gorilla does). */
static void on_text(int slot, const struct ws_frame *f, uint64_t now) {
    struct buf *pieces = &sessions[slot]->pieces;
    if (f->opcode == TEXT && f->is_last) return on_message(slot, f->p, f->n, now);
    put(pieces, f->p, f->n);
    if (!f->is_last) return;
    on_message(slot, pieces->p, pieces->len, now);
    pieces->len = 0;
}

/* As recv_some. *at: when the last of it came, by the kernel: while one session is read another's cancels may come. */
static int recv_stamped(int fd, struct buf *b, uint64_t *at) {
    char control[CMSG_SPACE(sizeof(struct timespec))];
    reserve(b, READ_SIZE);
    struct iovec to = {b->p + b->len, READ_SIZE};
    struct msghdr m = {.msg_iov = &to, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT);
    if (n > 0) b->len += (size_t)n;
    *at = now_ns();
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); n > 0 && c; c = CMSG_NXTHDR(&m, c)) {
        struct timespec t;
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) continue;
        memcpy(&t, CMSG_DATA(c), sizeof t);
        *at = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec - utc_offset_ns;
    }
    return n > 0 || (n < 0 && errno == EAGAIN) ? 0 : -1;
}

static int on_readable(int slot) {
    struct session *s = sessions[slot];
    struct ws_frame f;
    size_t off = 0;
    uint64_t now;
    if (recv_stamped(s->fd, &s->in, &now)) return -1;
    if (!s->upgraded) {
        s->upgraded = upgrade(&s->in, &s->out);
        if (s->upgraded <= 0) return s->upgraded;
        hello(s);
    }
    while (next_ws_frame(&s->in, &off, &f)) {
        if (f.opcode == CLOSE) return -1;
        if (f.opcode == PING) put_ws(&s->out, PONG, f.p, f.n, 0);
        if (f.opcode == TEXT || f.opcode == CONTINUATION) on_text(slot, &f, now);
    }
    drop_front(&s->in, off);
    return 0;
}

static void watch(int operation, int fd, uint32_t events, int slot) {
    struct epoll_event e = {.events = events, .data.u32 = (uint32_t)slot};
    if (epoll_ctl(ep, operation, fd, &e)) die("epoll_ctl");
}

static void accept_session(int listener) {
    int one = 1, slot = 0, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    while (slot < MAX_SESSIONS && sessions[slot]) slot++;
    if (fd < 0 || slot == MAX_SESSIONS) {
        if (fd >= 0) close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
    if (!(sessions[slot] = calloc(1, sizeof(struct session)))) die("calloc");
    sessions[slot]->fd = fd;
    watch(EPOLL_CTL_ADD, fd, EPOLLIN, slot);
}

static void flush(int slot) {
    struct session *s = sessions[slot];
    end_reports(s);
    if (s->out.len && send_some(s->fd, &s->out)) return close_session(slot);
    int wants = s->out.len > 0;
    if (wants != s->waits_to_write) watch(EPOLL_CTL_MOD, s->fd, EPOLLIN | (wants ? EPOLLOUT : 0), slot);
    s->waits_to_write = wants;
}

static void foreign_reports(uint64_t now) {
    static uint64_t order;
    char id[40];
    if (!foreign_due_ns) foreign_due_ns = now;
    for (; foreign_due_ns <= now; foreign_due_ns += TICK_NS) {
        uint64_t upto = foreign_rate * ((foreign_due_ns / TICK_NS) % 1000 + 1) / 1000 - foreign_rate * ((foreign_due_ns / TICK_NS) % 1000) / 1000;
        for (uint64_t i = 0; i < upto; i++, stats->foreign++) {
            snprintf(id, sizeof id, "f0be17e0-15da-11ec-b5e7-f%011llu", (unsigned long long)++order);
            struct record r = {"ETH-USD", id, id, "other", order % 2 ? "New" : "Trade", order % 2 ? "New" : "PartiallyFilled", "0.75000000", now, order << 32};
            report(-1, &r);
        }
    }
}

static void on_time(void) {
    uint64_t now = now_ns();
    while (first_waiting < last_waiting && waiting[first_waiting % ring].due_ns <= now) answer(&waiting[first_waiting++ % ring]);
    int subscribed = 0;
    for (int i = 0; i < MAX_SESSIONS; i++) subscribed |= sessions[i] && sessions[i]->subscription;
    if (foreign_rate && subscribed) foreign_reports(now);
}

static const struct timespec *until_due(void) {
    static struct timespec t;
    uint64_t due = UINT64_MAX, now = now_ns();
    if (first_waiting < last_waiting) due = waiting[first_waiting % ring].due_ns;
    if (foreign_rate) due = foreign_due_ns && foreign_due_ns < due ? foreign_due_ns : due < now + TICK_NS ? due : now + TICK_NS;
    if (due == UINT64_MAX) return NULL;
    uint64_t left = due > now ? due - now : 0;
    t = (struct timespec){.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
    return &t;
}

int main(int argc, char **argv) {
    int option;
    while ((option = getopt(argc, argv, "d:f:r:n:o")) != -1) {
        if (option == 'd') delay_ns = strtoull(optarg, NULL, 10) * 1000000;
        else if (option == 'f') foreign_rate = strtoull(optarg, NULL, 10);
        else if (option == 'r') records_per_frame = strtoull(optarg, NULL, 10);
        else if (option == 'n') open_orders = (uint32_t)strtoul(optarg, NULL, 10);
        else if (option == 'o') own_session_only = 1;
        else return 2;
    }
    if (optind + 1 != argc) return 2;
    int file = open(argv[optind], O_RDWR | O_CREAT, 0600), listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (file < 0 || ftruncate(file, sizeof *stats)) die(argv[optind]);
    stats = mmap(NULL, sizeof *stats, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    utc_offset_ns = (uint64_t)wall.tv_sec * 1000000000u + (uint64_t)wall.tv_nsec - now_ns();
    waiting = calloc(ring, sizeof *waiting);
    if (stats == MAP_FAILED || !waiting) die("memory");
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 64) || getsockname(listener, (struct sockaddr *)&a, &size)) die("listen");
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    signal(SIGUSR1, asked_to_drop);
    ep = epoll_create1(0);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, MAX_SESSIONS);
    for (;;) {
        struct epoll_event events[MAX_SESSIONS];
        int n = epoll_pwait2(ep, events, MAX_SESSIONS, until_due(), NULL);
        for (int i = 0; i < n; i++) {
            int slot = (int)events[i].data.u32;
            if (slot == MAX_SESSIONS) accept_session(listener);
            else if (sessions[slot] && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && on_readable(slot)) close_session(slot);
        }
        if (delay_ns || foreign_rate) on_time();
        for (int slot = 0; slot < MAX_SESSIONS; slot++)
            if (sessions[slot] && drop_all) close_session(slot);
        drop_all = 0;
        for (int slot = 0; slot < MAX_SESSIONS; slot++)
            if (sessions[slot]) flush(slot);
    }
}
