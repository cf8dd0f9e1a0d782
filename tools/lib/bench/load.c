/* An HTTP load generator for tools/bench: one thread, epoll, keep-alive connections, JSON POSTs to 127.0.0.1.
 *
 * Closed loop by default: a connection sends its next request when the reply to the last one is there. With --every-ms each
 * connection has a timetable instead, and a request that leaves late because the one before it was slow counts from the moment it
 * was due, so slowness is not hidden by sending less.
 *
 * Every reply is checked, and every latency is kept as it was measured. After the window, requests under way are waited for, so
 * that "moved" (the sum of amount * (to - from) over all transfers that were acknowledged, warm-up included) says exactly by how
 * much the sum of number * balance must have changed. Prints "begin" and "end" around the measured window, then one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "measure.h"

#define REPLY_BYTES (512 * 1024)
#define REQUEST_BYTES 1024
#define CONNECTIONS_MAX 1024
#define ID_CHARS_MAX 63
#define DRAIN_SECONDS 10
#define GRACE_SECONDS 30 /* after which the process ends itself, whatever it waits for */

typedef enum { ADD, CACHED, GET, LIST, TRANSFER, TRANSFER_BY_ID } workload_t;
static const char *const workloads[] = {"add", "cached", "get", "list", "transfer", "transfer-by-id", NULL};

typedef struct {
    int socket;
    bool waiting;
    int64_t due_ns, asked_ns; /* when it is to send next (timetable only); from when its request counts */
    long expected, weight;    /* add: the sum; transfer: to - from */
    size_t received;
    char *reply;
} connection_t;

static struct {
    int port, connections;
    const char *url, *function;
    workload_t workload;
    long accounts, groups, documents_per_group;
    double alpha, warmup_s, window_s, every_ms;
} given = {.connections = 64, .accounts = 100000, .groups = 1000, .documents_per_group = 100, .warmup_s = 1, .window_s = 5};

static int poller;
static int64_t window_begin_ns, window_end_ns;
static long asked, acknowledged, failed, refused, broken;
static int64_t moved;
static char first_failure[512];
static latencies_t latencies;
static char (*ids)[ID_CHARS_MAX + 1];
static double *cumulative;

static void prepare_zipf(void)
{
    double total = 0;
    cumulative = must(calloc(given.accounts, sizeof(double)));
    for (long i = 0; i < given.accounts; i++)
        cumulative[i] = total += pow((double)(i + 1), -given.alpha);
}

/* An account: any with equal chance, or number n with a chance in proportion to (n + 1)^-alpha. */
static long any_account(void)
{
    if (!cumulative)
        return any_below(given.accounts);
    double aim = (double)(chance() >> 11) / 9007199254740992.0 * cumulative[given.accounts - 1];
    long first = 0, count = given.accounts;
    while (count > 1) { /* the first account whose cumulative weight is over the aim is in [first, first + count) */
        long half = count / 2;
        if (cumulative[first + half - 1] <= aim)
            first += half, count -= half;
        else
            count = half;
    }
    return first;
}

static void read_ids(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        die(path);
    ids = must(calloc(given.accounts, sizeof(*ids)));
    for (long i = 0; i < given.accounts; i++)
        if (fscanf(file, "%63s", ids[i]) != 1) {
            fprintf(stderr, "%s has fewer ids than there are accounts\n", path);
            exit(2);
        }
    fclose(file);
}

/* -- sending ------------------------------------------------------------------------------------------------------ */

static void open_connection(connection_t *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(given.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->socket < 0 || connect(c->socket, (struct sockaddr *)&to, sizeof(to)))
        die("connect");
    setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->socket, &event))
        die("epoll_ctl");
    c->waiting = false;
}

static int write_args(connection_t *c, char *args, size_t room)
{
    long from, to;
    switch (given.workload) {
    case ADD:
        from = any_below(100000), to = any_below(100000);
        c->expected = from + to;
        return snprintf(args, room, "{\"x\":%ld,\"y\":%ld}", from, to);
    case CACHED:
        return snprintf(args, room, "{\"id\":%ld}", any_account());
    case GET: /* asked for once, so that each is run and none is told what was kept */
        return snprintf(args, room, "{\"id\":%ld,\"ask\":%ld}", any_account(), ++asked);
    case LIST:
        return snprintf(args, room, "{\"grp\":%ld,\"ask\":%ld}", any_below(given.groups), ++asked);
    default:
        from = any_account();
        while ((to = any_account()) == from)
            ;
        c->weight = to - from;
        if (given.workload == TRANSFER_BY_ID)
            return snprintf(args, room, "{\"from\":\"%s\",\"to\":\"%s\",\"amount\":1}", ids[from], ids[to]);
        return snprintf(args, room, "{\"from\":%ld,\"to\":%ld,\"amount\":1}", from, to);
    }
}

static void ask(connection_t *c)
{
    char args[256], body[512], request[REQUEST_BYTES];
    write_args(c, args, sizeof(args));
    int body_length =
        snprintf(body, sizeof(body), "{\"path\":\"%s\",\"args\":%s,\"format\":\"json\"}", given.function, args);
    int length = snprintf(request, sizeof(request),
                          "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
                          "content-length: %d\r\n\r\n%s",
                          given.url, given.port, body_length, body);
    c->received = 0;
    c->waiting = true;
    c->asked_ns = given.every_ms > 0 ? c->due_ns : now_ns();
    /* A request fits into any socket buffer, and a connection never has two under way. */
    if (send(c->socket, request, length, MSG_NOSIGNAL) != length) {
        broken++;
        close(c->socket);
        open_connection(c);
    }
}

/* -- receiving ---------------------------------------------------------------------------------------------------- */

static bool is_as_expected(const connection_t *c, const char *body, size_t length)
{
    static const char success[] = "{\"status\":\"success\",\"value\":";
    static unsigned lists;
    if (length < sizeof(success) || memcmp(body, success, sizeof(success) - 1))
        return false;
    const char *value = body + sizeof(success) - 1;
    if (given.workload == ADD)
        return strtol(value, NULL, 10) == c->expected;
    if (given.workload == GET || given.workload == CACHED)
        return memmem(value, body + length - value, "\"balance\":", 10) != NULL;
    if (given.workload != LIST)
        return !strncmp(value, "null", 4);
    if (length < (size_t)given.documents_per_group * 150)
        return false;
    if (lists++ % 64)
        return true;
    long found = 0;
    for (const char *at = value; (at = memmem(at, body + length - at, "\"body\":", 7)); at++)
        found++;
    return found == given.documents_per_group;
}

static void take_reply(connection_t *c, const char *body, size_t length)
{
    int64_t at_ns = now_ns();
    bool is_ok = !strncmp(c->reply, "HTTP/1.1 200 ", 13);
    c->waiting = false;
    if (!is_ok || !is_as_expected(c, body, length)) {
        *(is_ok ? &failed : &refused) += 1;
        if (!*first_failure)
            snprintf(first_failure, sizeof(first_failure), "%.12s %.*s", c->reply, (int)(length > 400 ? 400 : length), body);
        return;
    }
    acknowledged++;
    if (given.workload == TRANSFER || given.workload == TRANSFER_BY_ID)
        moved += c->weight;
    if (at_ns >= window_begin_ns && at_ns < window_end_ns)
        keep_latency(&latencies, at_ns - c->asked_ns);
}

/* Reads what is there; true once the connection has nothing under way any more. */
static bool receive(connection_t *c)
{
    ssize_t count = recv(c->socket, c->reply + c->received, REPLY_BYTES - 1 - c->received, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (count <= 0) {
        broken += c->waiting;
        close(c->socket);
        open_connection(c);
        return true;
    }
    c->received += count;
    c->reply[c->received] = 0;
    char *head_end = strstr(c->reply, "\r\n\r\n");
    if (!head_end)
        return false;
    char *stated = strcasestr(c->reply, "\r\ncontent-length:");
    if (!stated || stated > head_end) {
        fprintf(stderr, "a reply without content-length: %.200s\n", c->reply);
        exit(1);
    }
    size_t length = strtoul(stated + 17, NULL, 10), head = head_end + 4 - c->reply;
    if (head + length >= REPLY_BYTES) {
        fprintf(stderr, "a reply of %zu bytes is more than there is room for\n", length);
        exit(1);
    }
    if (c->received < head + length)
        return false;
    take_reply(c, head_end + 4, length);
    return true;
}

/* -- the run ------------------------------------------------------------------------------------------------------ */

static void set_alarm_clock(int timer, const connection_t *all)
{
    int64_t first = INT64_MAX;
    for (int i = 0; i < given.connections; i++)
        if (!all[i].waiting && all[i].due_ns < first)
            first = all[i].due_ns;
    if (first == INT64_MAX)
        return;
    struct itimerspec at = {.it_value = {.tv_sec = first / 1000000000, .tv_nsec = first % 1000000000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void send_what_is_due(connection_t *all)
{
    int64_t t = now_ns();
    for (int i = 0; i < given.connections; i++)
        if (!all[i].waiting && all[i].due_ns <= t) {
            ask(&all[i]);
            all[i].due_ns += (int64_t)(given.every_ms * 1e6);
        }
}

static int under_way(const connection_t *all)
{
    int count = 0;
    for (int i = 0; i < given.connections; i++)
        count += all[i].waiting;
    return count;
}

static void report(int lost, double cpu_s)
{
    sort_latencies(&latencies);
    for (char *p = first_failure; *p; p++)
        if (*p == '"' || *p == '\\' || (unsigned char)*p < ' ' || (unsigned char)*p > '~')
            *p = '\'';
    printf("{\"requests\":%zu,\"per_second\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,"
           "\"max_us\":%.1f,\"acknowledged\":%ld,\"failed\":%ld,\"refused\":%ld,\"broken\":%ld,\"lost\":%d,"
           "\"moved\":%lld,\"load_cpu_s\":%.3f,\"first_failure\":\"%s\"}\n",
           latencies.count, (double)latencies.count / given.window_s, latency_us(&latencies, .5),
           latency_us(&latencies, .9), latency_us(&latencies, .99), latency_us(&latencies, .999),
           latency_us(&latencies, 1), acknowledged, failed, refused, broken, lost, (long long)moved, cpu_s,
           first_failure);
}

static void say(const char *word)
{
    puts(word);
    fflush(stdout);
}

static void run(connection_t *all)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event tick = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &tick);
    bool has_begun = false, has_ended = false;
    double cpu_begin = 0, cpu_end = 0;
    int64_t start = now_ns();
    window_begin_ns = start + (int64_t)(given.warmup_s * 1e9);
    window_end_ns = window_begin_ns + (int64_t)(given.window_s * 1e9);
    for (int i = 0; i < given.connections; i++) {
        all[i].due_ns = start + (int64_t)(given.every_ms * 1e6) * i / given.connections;
        if (given.every_ms <= 0)
            ask(&all[i]);
    }
    while (!has_ended || (under_way(all) && now_ns() < window_end_ns + DRAIN_SECONDS * 1000000000ll)) {
        if (given.every_ms > 0 && !has_ended)
            set_alarm_clock(timer, all);
        int count = epoll_wait(poller, events, 256, 20);
        int64_t t = now_ns();
        if (!has_begun && t >= window_begin_ns)
            has_begun = true, cpu_begin = cpu_seconds(), say("begin");
        if (!has_ended && t >= window_end_ns)
            has_ended = true, cpu_end = cpu_seconds(), say("end");
        for (int i = 0; i < count; i++) {
            connection_t *c = events[i].data.ptr;
            uint64_t expirations;
            if (!c && read(timer, &expirations, sizeof(expirations)) < 0)
                continue;
            if (c && receive(c) && !has_ended && given.every_ms <= 0)
                ask(c);
        }
        if (given.every_ms > 0 && !has_ended)
            send_what_is_due(all);
    }
    report(under_way(all), cpu_end - cpu_begin);
}

static workload_t workload_named(const char *name)
{
    for (int i = 0; workloads[i]; i++)
        if (!strcmp(workloads[i], name))
            return (workload_t)i;
    fprintf(stderr, "no workload is called %s\n", name);
    exit(2);
}

static void read_options(int count, char **words)
{
    static const struct option options[] = {
        {"port", 1, 0, 'p'},     {"url", 1, 0, 'u'},     {"function", 1, 0, 'f'}, {"workload", 1, 0, 'w'}, {"accounts", 1, 0, 'a'},
        {"groups", 1, 0, 'g'},   {"per-group", 1, 0, 'd'}, {"ids", 1, 0, 'i'},    {"alpha", 1, 0, 'z'},    {"connections", 1, 0, 'c'},
        {"warmup", 1, 0, 'W'},   {"seconds", 1, 0, 's'}, {"every-ms", 1, 0, 'e'}, {"seed", 1, 0, 'r'},     {0}};
    const char *ids_path = NULL;
    for (int letter; (letter = getopt_long(count, words, "", options, NULL)) != -1;)
        switch (letter) {
        case 'p': given.port = atoi(optarg); break;
        case 'u': given.url = optarg; break;
        case 'f': given.function = optarg; break;
        case 'w': given.workload = workload_named(optarg); break;
        case 'a': given.accounts = atol(optarg); break;
        case 'g': given.groups = atol(optarg); break;
        case 'd': given.documents_per_group = atol(optarg); break;
        case 'i': ids_path = optarg; break;
        case 'z': given.alpha = atof(optarg); break;
        case 'c': given.connections = atoi(optarg); break;
        case 'W': given.warmup_s = atof(optarg); break;
        case 's': given.window_s = atof(optarg); break;
        case 'e': given.every_ms = atof(optarg); break;
        case 'r': chance_state = strtoull(optarg, NULL, 10); break;
        default: exit(2);
        }
    bool is_transfer = given.workload == TRANSFER || given.workload == TRANSFER_BY_ID;
    if (!given.port || !given.url || !given.function || given.connections < 1 || given.connections > CONNECTIONS_MAX ||
        given.accounts < (is_transfer ? 2 : 1) || strlen(given.url) > 100 || strlen(given.function) > 100 ||
        (given.workload == TRANSFER_BY_ID) != (ids_path != NULL)) {
        fprintf(stderr, "usage: load --port N --url PATH --function NAME --workload W [--ids FILE] [--alpha A] ...\n");
        exit(2);
    }
    if (ids_path)
        read_ids(ids_path);
    if (given.alpha > 0)
        prepare_zipf();
}

int main(int count, char **words)
{
    static connection_t all[CONNECTIONS_MAX];
    read_options(count, words);
    alarm((unsigned)(given.warmup_s + given.window_s) + GRACE_SECONDS);
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < given.connections; i++) {
        all[i].reply = must(malloc(REPLY_BYTES));
        open_connection(&all[i]);
    }
    run(all);
    return 0;
}
