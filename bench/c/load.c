/* The load generator. AMQP_URL names the broker.
 *
 *   load preload KEY COMMANDS CANCELS FIRST             publish, wait for every confirm, print commands/s
 *   load open KEY COMMANDS CANCELS FIRST RATE FILE END  publish RATE commands/s whatever happens (open loop) while a second
 *                                                       thread reads bench.results; ends when END events came, or 5 s after
 *                                                       the last one; prints the events received
 *
 * Commands have CANCELS cancels each, numbered from FIRST on, and go to the AMQP exchange cancel.commands with KEY. FILE is
 * mapped: for each cancel the time its command was meant to be sent (no coordinated omission), and the time its Canceled came.
 */
#include "amqp.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>

enum { UNCONFIRMED = 4000 };
struct times {
    uint64_t received, finals, end_ns, last_ns;
    uint64_t sent_ns[MAX_SEQ], final_ns[MAX_SEQ];
};

static struct times *times;
static const char *url, *key;
static uint64_t commands, cancels, first;

/* One command in the form of contract section 2, with a message_id. */
static void put_command(struct buf *out, uint64_t number) {
    static struct buf body;
    static char at[40];
    static time_t second;
    char item[300], message_id[37];
    time_t now = time(NULL);
    if (now != second) strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%S.000000Z", gmtime(&now)), second = now;
    uint64_t seq = first + number * cancels;
    body.len = 0;
    put_text(&body, "{\"type\":\"OrderCancelRequest\",\"data\":[");
    for (uint64_t i = 0; i < cancels; i++) {
        snprintf(item, sizeof item,
                 "%s{\"Symbol\":\"BTC-USD\",\"ClOrdID\":\"c0be17e0-15da-11ec-b5e7-%012llu\","
                 "\"OrderID\":\"16a55364-4248-4575-aa0b-%012llu\",\"TransactTime\":\"%s\"}",
                 i ? "," : "", (unsigned long long)(seq + i), (unsigned long long)(seq + i), at);
        put_text(&body, item);
    }
    put_text(&body, "]}");
    snprintf(message_id, sizeof message_id, "0b9c2f1e-5d7a-4c3b-9e21-%012llu", (unsigned long long)seq);
    put_publish(out, "cancel.commands", key, message_id, (uint64_t)now, body.p, body.len);
}

/* How many publishes, from the first on without a gap, are confirmed. */
static uint64_t confirmed(struct buf *in) {
    static uint64_t done;
    static uint8_t single[MAX_SEQ];
    size_t off = 0;
    int type;
    uint32_t n;
    const unsigned char *p;
    while ((p = next_frame(in, &off, &type, &n))) {
        errno = 0;
        if (type != METHOD || get_be(p, 4) != ACK) die("the broker did not confirm");
        uint64_t tag = get_be(p + 4, 8);
        if (!(p[12] & 1)) single[tag % MAX_SEQ] = 1;
        else if (tag > done) done = tag;
        while (single[(done + 1) % MAX_SEQ]) single[++done % MAX_SEQ] = 0;
    }
    drop_front(in, off);
    return done;
}

static void preload(void) {
    int fd = amqp_login(url, 1, 0);
    struct buf in = {0}, out = {0};
    uint64_t sent = 0, done = 0, start = now_ns();
    while (done < commands) {
        while (sent < commands && out.len < 65536 && sent - done < UNCONFIRMED) put_command(&out, sent++);
        struct pollfd p = {fd, POLLIN | (out.len ? POLLOUT : 0), 0};
        poll(&p, 1, -1);
        if (recv_some(fd, &in) || send_some(fd, &out)) die("broker");
        done = confirmed(&in);
    }
    printf("%.0f\n", (double)commands / ((double)(now_ns() - start) / 1e9));
}

/* Our worker's events say so; the peers publish the report as it came. */
static int is_final(const char *p, size_t n) {
    return memmem(p, n, "\"final\":true", 12) || memmem(p, n, "\"ExecType\":\"Canceled\"", 21) ||
           memmem(p, n, "\"ExecType\": \"Canceled\"", 22);
}

static void *read_results(void *arg) {
    struct buf in = {0}, out = {0};
    struct pollfd p = {*(int *)arg, POLLIN, 0};
    put_consume(&out, "bench.results", 1);
    if (send_some(p.fd, &out)) die("broker");
    static struct buf body;
    for (uint64_t left = 0;;) {
        size_t off = 0;
        int type;
        uint32_t n;
        const unsigned char *f;
        poll(&p, 1, -1);
        if (recv_some(p.fd, &in)) die("broker");
        uint64_t now = now_ns();
        while ((f = next_frame(&in, &off, &type, &n))) {
            if (type == HEADER) left = get_be(f + 4, 8), body.len = 0;
            if (type != BODY) continue;
            put(&body, f, n);
            if (left -= n) continue;
            times->received++;
            times->last_ns = now;
            if (!is_final(body.p, body.len)) continue;
            uint32_t seq = seq_of(body.p, body.p + body.len);
            if (!times->final_ns[seq]) times->final_ns[seq] = now, times->finals++;
        }
        drop_front(&in, off);
    }
    return NULL;
}

static void open_loop(double rate, const char *path, uint64_t end) {
    pthread_t reader;
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), results = amqp_login(url, 0, 0), fd = amqp_login(url, 0, 0);
    if (file < 0 || ftruncate(file, sizeof *times)) die(path);
    times = mmap(NULL, sizeof *times, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (times == MAP_FAILED) die("mmap");
    pthread_create(&reader, NULL, read_results, &results);
    usleep(300000);
    struct buf out = {0};
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < commands; i++) {
        uint64_t due = start + (uint64_t)((double)i * 1e9 / rate);
        struct timespec t = {.tv_sec = (time_t)(due / 1000000000), .tv_nsec = (long)(due % 1000000000)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        put_command(&out, i);
        for (uint64_t j = 0; j < cancels; j++) times->sent_ns[first + i * cancels + j] = due;
        while (out.len)
            if (send_some(fd, &out)) die("broker");
    }
    times->end_ns = times->last_ns = now_ns();
    while (times->received < end && now_ns() < times->last_ns + 5000000000ull) usleep(10000);
    printf("%llu\n", (unsigned long long)times->received);
}

int main(int argc, char **argv) {
    int is_open = argc == 9 && !strcmp(argv[1], "open");
    if (!is_open && (argc != 6 || strcmp(argv[1], "preload"))) return 2;
    if (!(url = getenv("AMQP_URL"))) die("AMQP_URL");
    key = argv[2];
    commands = strtoull(argv[3], NULL, 10);
    cancels = strtoull(argv[4], NULL, 10);
    first = strtoull(argv[5], NULL, 10);
    if (!first || first + commands * cancels > MAX_SEQ) die("cancels are numbered from 1 to MAX_SEQ");
    if (is_open) open_loop(atof(argv[6]), argv[7], strtoull(argv[8], NULL, 10));
    else preload();
    return 0;
}
