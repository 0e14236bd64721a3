/* The venue of the benchmarks: one thread, epoll, about 1 us per cancel.
 *
 *   venue [-d MS] [-f RATE] [-r RECORDS] [-o] STATS_FILE
 *
 * Speaks the protocol as far as a healthy day needs it: upgrade (any key), hello, subscribe (one empty initial frame),
 * Ping, OrderCancelRequest. Every cancel is answered by PendingCancel and Canceled on each subscribed session. It prints
 * its port, and writes when each cancel came to the mapped STATS_FILE, so that looking costs no system call.
 *
 *   -d MS       answer after MS milliseconds (a slow venue); default at once
 *   -f RATE     reports per second on other users' orders, on each session
 *   -r RECORDS  reports in one frame at most; default 1
 *   -o          reports only to the session that sent the cancel
 */
#include "websocket.h"
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>

enum { MAX_SESSIONS = 64, TICK_NS = 1000000 };

struct stats {
    uint64_t cancels, frames, first_ns, last_ns, duplicates, foreign, sessions, pings;
    uint64_t rx_ns[MAX_SEQ];
};
struct session {
    int fd, upgraded, waits_to_write;
    uint64_t subscription, seq_num, records; /* subscription 0: none */
    struct buf in, out, data;
};
struct cancel {
    uint64_t due_ns;
    int slot;
    char symbol[65], cl_ord_id[37], order_id[65];
};

static struct stats *stats;
static struct session *sessions[MAX_SESSIONS];
static struct cancel *waiting; /* a ring: the delay is the same for all */
static uint64_t first_waiting, last_waiting, exec_id, foreign_due_ns;
static const uint64_t ring = 1 << 18;
static uint64_t delay_ns, foreign_rate, records_per_frame = 1;
static int own_session_only, ep;

static const char *utc_now(void) {
    static char text[40];
    static time_t second;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (t.tv_sec != second) {
        struct tm parts;
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", gmtime_r(&t.tv_sec, &parts));
        second = t.tv_sec;
    }
    snprintf(text + 19, sizeof text - 19, ".%06ldZ", t.tv_nsec / 1000);
    return text;
}

static void send_text(struct session *s, const char *p, size_t n) { put_ws(&s->out, TEXT, p, n, 0); }

static void end_reports(struct session *s) {
    if (!s->records) return;
    char head[200];
    int n = snprintf(head, sizeof head,
                     "{\"reqid\":%llu,\"type\":\"ExecutionReport\",\"ts\":\"%s\",\"seqNum\":%llu,\"action\":\"Update\",\"data\":[",
                     (unsigned long long)s->subscription, utc_now(), (unsigned long long)++s->seq_num);
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

static void report(int sender, const char *symbol, const char *cl_ord_id, const char *order_id, const char *user, const char *type,
                   const char *leaves) {
    char r[1200];
    const char *now = utc_now();
    int n = snprintf(r, sizeof r,
        "{\"Timestamp\":\"%s\",\"Symbol\":\"%s\",\"OrderID\":\"%s\",\"ClOrdID\":\"%s\",\"OrigClOrdID\":\"ord-%s\","
        "\"SubmitTime\":\"2026-11-22T10:00:00.000000Z\",\"ExecID\":\"5c6d0c1e-7f0d-4c35-8a10-%012llu\",\"Side\":\"Buy\","
        "\"TransactTime\":\"%s\",\"ExecType\":\"%s\",\"OrdStatus\":\"%s\",\"OrderQty\":\"1.25000000\",\"OrdType\":\"Limit\","
        "\"Price\":\"64250.50\",\"Currency\":\"BTC\",\"AmountCurrency\":\"USD\",\"LeavesQty\":\"%s\",\"CumQty\":\"0\",\"AvgPx\":\"0\","
        "\"CumAmt\":\"0\",\"TimeInForce\":\"GoodTillCancel\",\"DecisionStatus\":\"Active\",\"CustomerUser\":\"%s@example.com\"}",
        now, symbol, order_id, cl_ord_id, cl_ord_id + 24, (unsigned long long)++exec_id, now, type, type, leaves, user);
    for (int i = 0; i < MAX_SESSIONS; i++)
        if (sessions[i] && sessions[i]->subscription && (!own_session_only || i == sender || sender < 0)) add_report(sessions[i], r, (size_t)n);
}

static void answer(const struct cancel *c) {
    report(c->slot, c->symbol, c->cl_ord_id, c->order_id, "desk", "PendingCancel", "1.25000000");
    report(c->slot, c->symbol, c->cl_ord_id, c->order_id, "desk", "Canceled", "0");
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
        struct cancel c = {.due_ns = now + delay_ns, .slot = slot};
        copy_text(c.symbol, sizeof c.symbol, item, end, "\"Symbol\"");
        copy_text(c.cl_ord_id, sizeof c.cl_ord_id, item, end, "\"ClOrdID\"");
        copy_text(c.order_id, sizeof c.order_id, item, end, "\"OrderID\"");
        uint32_t seq = seq_of(item, end);
        if (stats->rx_ns[seq]) stats->duplicates++;
        else stats->rx_ns[seq] = now;
        if (!stats->cancels++) stats->first_ns = now;
        stats->last_ns = now;
        if (!delay_ns) answer(&c);
        else if (last_waiting - first_waiting < ring) waiting[last_waiting++ % ring] = c;
        else errno = 0, die("more cancels wait than the ring holds");
    }
}

static void on_message(int slot, const struct message *m, uint64_t now) {
    struct session *s = sessions[slot];
    char text[300], name[65];
    const char *e = m->p + m->n, *id = memmem(m->p, m->n, "\"reqid\"", 7);
    uint64_t reqid = id ? strtoull(id + 7 + strspn(id + 7, ": "), NULL, 10) : 0;
    size_t n = 0;
    const char *type = json_text(m->p, e, "\"type\"", &n);
    if (!type) return;
    if (!strncmp(type, "OrderCancelRequest", n)) {
        cancel_request(slot, m->p, e, now);
    } else if (!strncmp(type, "subscribe", n)) {
        copy_text(name, sizeof name, m->p, e, "\"name\"");
        if (!strcmp(name, "ExecutionReport") && !s->subscription) s->subscription = reqid;
        int k = snprintf(text, sizeof text, "{\"reqid\":%llu,\"type\":\"%s\",\"ts\":\"%s\",\"initial\":true,\"seqNum\":1,\"data\":[]}",
                         (unsigned long long)reqid, name, utc_now());
        send_text(s, text, (size_t)k);
    } else if (!strncmp(type, "Ping", n)) {
        stats->pings++;
        int k = snprintf(text, sizeof text, "{\"reqid\":%llu,\"type\":\"Pong\",\"ts\":\"%s\",\"data\":[{}]}", (unsigned long long)reqid, utc_now());
        send_text(s, text, (size_t)k);
    } /* page and cancel need no answer: nothing here has pages */
}

static void hello(struct session *s) {
    char text[160];
    int n = snprintf(text, sizeof text, "{\"type\":\"hello\",\"ts\":\"%s\",\"session_id\":\"BENCH%08llu\"}", utc_now(),
                     (unsigned long long)++stats->sessions);
    send_text(s, text, (size_t)n);
}

static void close_session(int slot) {
    struct session *s = sessions[slot];
    close(s->fd);
    free(s->in.p), free(s->out.p), free(s->data.p), free(s);
    sessions[slot] = NULL;
}

static int on_readable(int slot) {
    struct session *s = sessions[slot];
    struct message m;
    size_t off = 0;
    if (recv_some(s->fd, &s->in)) return -1;
    uint64_t now = now_ns();
    if (!s->upgraded) {
        s->upgraded = upgrade(&s->in, &s->out);
        if (s->upgraded <= 0) return s->upgraded;
        hello(s);
    }
    while (next_message(&s->in, &off, &m)) {
        if (m.opcode == CLOSE) return -1;
        if (m.opcode == PING) put_ws(&s->out, PONG, m.p, m.n, 0);
        if (m.opcode == TEXT) on_message(slot, &m, now);
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
    char id[37];
    if (!foreign_due_ns) foreign_due_ns = now;
    for (; foreign_due_ns <= now; foreign_due_ns += TICK_NS) {
        uint64_t upto = foreign_rate * ((foreign_due_ns / TICK_NS) % 1000 + 1) / 1000 - foreign_rate * ((foreign_due_ns / TICK_NS) % 1000) / 1000;
        for (uint64_t i = 0; i < upto; i++, stats->foreign++) {
            snprintf(id, sizeof id, "f0be17e0-15da-11ec-b5e7-f%011llu", (unsigned long long)++order);
            report(-1, "ETH-USD", id, id, "other", order % 2 ? "New" : "Trade", "0.75000000");
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
    while ((option = getopt(argc, argv, "d:f:r:o")) != -1) {
        if (option == 'd') delay_ns = strtoull(optarg, NULL, 10) * 1000000;
        else if (option == 'f') foreign_rate = strtoull(optarg, NULL, 10);
        else if (option == 'r') records_per_frame = strtoull(optarg, NULL, 10);
        else if (option == 'o') own_session_only = 1;
        else return 2;
    }
    if (optind + 1 != argc) return 2;
    int file = open(argv[optind], O_RDWR | O_CREAT, 0600), listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (file < 0 || ftruncate(file, sizeof *stats)) die(argv[optind]);
    stats = mmap(NULL, sizeof *stats, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    waiting = calloc(ring, sizeof *waiting);
    if (stats == MAP_FAILED || !waiting) die("memory");
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 64) || getsockname(listener, (struct sockaddr *)&a, &size)) die("listen");
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
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
            if (sessions[slot]) flush(slot);
    }
}
