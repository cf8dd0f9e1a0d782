/* WebSocket clients for tools/bench live: one thread, epoll, many connections to 127.0.0.1 that watch queries.
 *
 * Connection s watches --queries queries, the arguments of which hold the number (s * queries + q) % distinct, and says "ready" when
 * all of them have their first results. Then it does what the lines on its standard input ask for, one after the other, and answers
 * each with one line of JSON:
 *
 *   commits N           N times: a mutation over HTTP that changes the balance of one watched account, until its answer is there and
 *                       the new balance has been pushed to everybody who watches it. Every push is checked.
 *   mutations W A S     for A seconds of warm-up and S of measuring, W mutations under way on the first connection; every answer is
 *                       checked. "begin" and "end" are said around the measured window.
 *   wait S              S seconds of reading what comes (and answering pings).
 *
 * A frame is masked, as clients must, with the mask zero, which costs its sender nothing and the server the same as any other.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "measure.h"

#define ROOM_FIRST 1024
#define ROOM_MAX (64 << 20)
#define OPENING_MAX 64 /* connections that are being made at the same time */
#define SILENCE_MS_MAX 30000
#define IN_FLIGHT_MAX 1024

typedef struct {
    int socket, number;
    bool is_upgraded;
    long results; /* of its queries, so far */
    size_t received, room;
    char *bytes;
} connection_t;

static struct {
    int port;
    long sockets, queries, distinct, accounts;
    const char *function, *args;
} given = {.sockets = 1, .queries = 0, .distinct = 1, .accounts = 2, .function = "bank:get", .args = "{\"id\":%ld}"};

static int poller, http;
static connection_t *all;
static long ready, pushes, transitions, bytes_received;
static latencies_t after_answer, whole;

/* What is being waited for: the new balance of one account. */
static struct {
    char balance[48];
    size_t length;
    bool is_answered;
    long missing;
    int64_t asked_ns, answered_ns, last_push_ns;
} commit;
static long *balances; /* of the accounts that are watched */

/* Mutations on the first connection. */
static struct {
    bool is_asking;
    long next, answered, in_window, under_way, moved;
    int64_t begin_ns, end_ns, asked_ns[IN_FLIGHT_MAX];
    long weights[IN_FLIGHT_MAX];
} mutations;

static void give_up(const char *why, const char *text, size_t length)
{
    fprintf(stderr, "%s: %.*s\n", why, (int)(length > 600 ? 600 : length), text);
    exit(1);
}

/* -- sending ------------------------------------------------------------------------------------------------------ */

static void send_all(int socket, const char *bytes, size_t length)
{
    while (length) {
        ssize_t sent = send(socket, bytes, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            die("send");
        if (sent > 0)
            bytes += sent, length -= sent;
    }
}

static void send_frame(connection_t *c, int opcode, const char *payload, size_t length)
{
    char *frame = must(malloc(length + 14));
    size_t at = 0;
    frame[at++] = (char)(0x80 | opcode);
    if (length < 126)
        frame[at++] = (char)(0x80 | length);
    else {
        int size = length < 65536 ? 2 : 8;
        frame[at++] = (char)(0x80 | (size == 2 ? 126 : 127));
        for (int i = size - 1; i >= 0; i--)
            frame[at++] = (char)(length >> (8 * i));
    }
    memset(frame + at, 0, 4);
    at += 4;
    memcpy(frame + at, payload, length);
    send_all(c->socket, frame, at + length);
    free(frame);
}

static int connected(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(given.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0 || connect(made, (struct sockaddr *)&to, sizeof(to)))
        die("connect");
    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return made;
}

static void open_connection(int number)
{
    connection_t *c = &all[number];
    char request[256];
    *c = (connection_t){.socket = connected(), .number = number, .room = ROOM_FIRST, .bytes = must(malloc(ROOM_FIRST))};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->socket, &event))
        die("epoll_ctl");
    int length = snprintf(request, sizeof(request),
                          "GET /api/1.31.2/sync HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          given.port);
    send_all(c->socket, request, length);
}

/* Says who it is, and what it watches. */
static void introduce(connection_t *c)
{
    char text[256];
    int length = snprintf(text, sizeof(text),
                          "{\"type\":\"Connect\",\"sessionId\":\"%08x-0000-4000-8000-%012d\",\"connectionCount\":0,"
                          "\"lastCloseReason\":\"InitialConnect\",\"clientTs\":0}",
                          (unsigned)getpid(), c->number);
    send_frame(c, 1, text, length);
    if (!given.queries) {
        ready++;
        return;
    }
    size_t room = 128 + given.queries * (128 + strlen(given.function) + 2 * strlen(given.args)), at;
    char *message = must(malloc(room));
    at = snprintf(message, room, "{\"type\":\"ModifyQuerySet\",\"baseVersion\":0,\"newVersion\":1,\"modifications\":[");
    for (long q = 0; q < given.queries; q++) {
        long key = (c->number * given.queries + q) % given.distinct;
        at += snprintf(message + at, room - at, "%s{\"type\":\"Add\",\"queryId\":%ld,\"udfPath\":\"%s\",\"args\":[", q ? "," : "", q,
                       given.function);
        at += snprintf(message + at, room - at, given.args, key, key);
        at += snprintf(message + at, room - at, "]}");
    }
    at += snprintf(message + at, room - at, "]}");
    send_frame(c, 1, message, at);
    free(message);
}

static void ask_mutation(void)
{
    char text[256];
    long from = any_below(given.accounts), to = (from + 1 + any_below(given.accounts - 1)) % given.accounts, id = mutations.next++;
    int length = snprintf(text, sizeof(text),
                          "{\"type\":\"Mutation\",\"requestId\":%ld,\"udfPath\":\"bank:transfer\",\"args\":[{\"from\":%ld,\"to\":%ld,"
                          "\"amount\":1}]}",
                          id, from, to);
    mutations.asked_ns[id % IN_FLIGHT_MAX] = now_ns();
    mutations.weights[id % IN_FLIGHT_MAX] = to - from;
    mutations.under_way++;
    send_frame(&all[0], 1, text, length);
}

/* -- receiving ---------------------------------------------------------------------------------------------------- */

static long count_of(const char *text, size_t length, const char *what)
{
    long found = 0;
    const char *end = text + length;
    for (const char *at = text; (at = memmem(at, end - at, what, strlen(what))); at++)
        found++;
    return found;
}

/* First results: what each account holds before anything is done here. */
static void take_first(connection_t *c, const char *text, size_t length)
{
    const char *end = text + length;
    for (const char *at = text; (at = memmem(at, end - at, "{\"queryId\":", 11)); at += 11) {
        const char *balance = memmem(at, end - at, "\"balance\":", 10);
        if (!balance)
            give_up("not the result that was expected", text, length);
        long key = (c->number * given.queries + strtol(at + 11, NULL, 10)) % given.distinct;
        balances[key] = strtol(balance + 10, NULL, 10);
        c->results++;
    }
    if (c->results == given.queries)
        ready++;
}

static void take_transition(connection_t *c, const char *text, size_t length)
{
    transitions++;
    if (c->results < given.queries) {
        take_first(c, text, length);
        return;
    }
    if (!commit.missing)
        return; /* of a mutation of its own: it says no more than that it is done */
    long found = count_of(text, length, commit.balance);
    if (!found || found != count_of(text, length, "\"type\":\"QueryUpdated\""))
        give_up("not the push that was expected", text, length);
    pushes++;
    commit.missing -= found;
    commit.last_push_ns = now_ns();
}

static void take_answer(const char *text, size_t length)
{
    const char *id_at = memmem(text, length, "\"requestId\":", 12);
    if (!id_at || !memmem(text, length, "\"success\":true", 14))
        give_up("a mutation failed", text, length);
    long id = strtol(id_at + 12, NULL, 10);
    int64_t at_ns = now_ns();
    mutations.answered++;
    mutations.under_way--;
    mutations.moved += mutations.weights[id % IN_FLIGHT_MAX];
    if (at_ns >= mutations.begin_ns && at_ns < mutations.end_ns) {
        mutations.in_window++;
        keep_latency(&whole, at_ns - mutations.asked_ns[id % IN_FLIGHT_MAX]);
    }
    if (mutations.is_asking)
        ask_mutation();
}

static void take_message(connection_t *c, int opcode, char *text, size_t length)
{
    if (opcode == 9)
        send_frame(c, 10, text, length);
    else if (opcode != 1)
        give_up("a frame that was not expected", text, length);
    else if (!strncmp(text, "{\"type\":\"Transition\"", 20))
        take_transition(c, text, length);
    else if (!strncmp(text, "{\"type\":\"MutationResponse\"", 26))
        take_answer(text, length);
    else if (strncmp(text, "{\"type\":\"Ping\"", 14))
        give_up("a message that was not expected", text, length);
}

/* Takes one frame off what was received; how many bytes it had, 0 where it is not whole. */
static size_t take_frame(connection_t *c, char *at, size_t left)
{
    if (left < 2)
        return 0;
    size_t length = at[1] & 127, head = 2;
    if (length > 125) {
        int size = length == 126 ? 2 : 8;
        head += size;
        if (left < head)
            return 0;
        length = 0;
        for (int i = 0; i < size; i++)
            length = length << 8 | (unsigned char)at[2 + i];
    }
    if (!(at[0] & 0x80) || (at[0] & 0x70))
        give_up("a part of a message, or a compressed one", at, 2);
    if (left < head + length)
        return 0;
    take_message(c, at[0] & 15, at + head, length);
    return head + length;
}

static void receive(connection_t *c)
{
    if (c->received == c->room) {
        if (c->room >= ROOM_MAX)
            give_up("a message is too long", c->bytes, 100);
        c->bytes = must(realloc(c->bytes, c->room *= 4));
    }
    ssize_t count = recv(c->socket, c->bytes + c->received, c->room - c->received, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0)
        give_up("the server closed a connection", c->bytes, c->received);
    c->received += count;
    bytes_received += count;
    size_t at = 0, step;
    if (!c->is_upgraded) {
        char *end = memmem(c->bytes, c->received, "\r\n\r\n", 4);
        if (!end)
            return;
        if (strncmp(c->bytes, "HTTP/1.1 101 ", 13))
            give_up("no WebSocket", c->bytes, c->received);
        c->is_upgraded = true;
        at = end + 4 - c->bytes;
        introduce(c);
    }
    while ((step = take_frame(c, c->bytes + at, c->received - at)))
        at += step;
    c->received -= at;
    memmove(c->bytes, c->bytes + at, c->received);
}

/* The answer to the one request that is under way over HTTP; it comes in one piece. */
static void receive_http(void)
{
    char reply[4096];
    ssize_t count = recv(http, reply, sizeof(reply), 0);
    if (count <= 0 || strncmp(reply, "HTTP/1.1 200 ", 13) || !memmem(reply, count, "{\"status\":\"success\"", 19))
        give_up("a mutation over HTTP failed", reply, count > 0 ? count : 0);
    commit.is_answered = true;
    commit.answered_ns = now_ns();
}

static void look(int patience_ms)
{
    struct epoll_event events[256];
    int count = epoll_wait(poller, events, 256, patience_ms);
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr)
            receive(events[i].data.ptr);
        else
            receive_http();
}

static void look_until(bool (*is_done)(void), const char *what)
{
    int64_t begin_ns = now_ns();
    while (!is_done()) {
        look(100);
        if (now_ns() - begin_ns > SILENCE_MS_MAX * 1000000ll)
            give_up("nothing happens", what, strlen(what));
    }
}

/* -- what is asked for -------------------------------------------------------------------------------------------- */

static bool is_committed(void)
{
    return commit.is_answered && commit.missing <= 0;
}

/* One account that is watched gets one from one that is not: those have the numbers from `distinct` on. */
static void do_commit(void)
{
    long key = any_below(given.distinct), payer = given.distinct + any_below(given.accounts - given.distinct);
    char body[256], request[512];
    balances[key]++;
    int length = snprintf(body, sizeof(body),
                          "{\"path\":\"bank:transfer\",\"args\":{\"from\":%ld,\"to\":%ld,\"amount\":1},\"format\":\"json\"}", payer, key);
    length = snprintf(request, sizeof(request),
                      "POST /api/mutation HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
                      "content-length: %d\r\n\r\n%s",
                      given.port, length, body);
    commit.length = snprintf(commit.balance, sizeof(commit.balance), "\"balance\":%ld", balances[key]);
    commit.missing = given.sockets * given.queries / given.distinct;
    commit.is_answered = false;
    commit.last_push_ns = 0;
    commit.asked_ns = now_ns();
    send_all(http, request, length);
    look_until(is_committed, "a commit");
    int64_t last_ns = commit.last_push_ns > commit.answered_ns ? commit.last_push_ns : commit.answered_ns;
    keep_latency(&after_answer, last_ns - commit.answered_ns);
    keep_latency(&whole, last_ns - commit.asked_ns);
}

static void forget_measures(void)
{
    after_answer.count = whole.count = 0;
    pushes = transitions = bytes_received = 0;
}

static void report(double wall_s, double cpu_s)
{
    sort_latencies(&after_answer);
    sort_latencies(&whole);
    printf("{\"count\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"whole_p50_us\":%.1f,\"whole_p99_us\":%.1f,"
           "\"pushes\":%ld,\"transitions\":%ld,\"bytes\":%ld,\"wall_s\":%.4f,\"load_cpu_s\":%.4f,\"moved\":%ld}\n",
           whole.count, latency_us(&after_answer, .5), latency_us(&after_answer, .99), latency_us(&after_answer, 1),
           latency_us(&whole, .5), latency_us(&whole, .99), pushes, transitions, bytes_received, wall_s, cpu_s, mutations.moved);
    fflush(stdout);
}

static void do_commits(long count)
{
    forget_measures();
    http = connected();
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, http, &event))
        die("epoll_ctl");
    double cpu_s = cpu_seconds();
    int64_t begin_ns = now_ns();
    for (long i = 0; i < count; i++)
        do_commit();
    close(http);
    report((double)(now_ns() - begin_ns) / 1e9, cpu_seconds() - cpu_s);
}

static bool is_answered(void)
{
    return mutations.under_way == 0;
}

static void do_mutations(long in_flight, double warmup_s, double window_s)
{
    forget_measures();
    mutations.begin_ns = now_ns() + (int64_t)(warmup_s * 1e9);
    mutations.end_ns = mutations.begin_ns + (int64_t)(window_s * 1e9);
    mutations.moved = 0;
    mutations.is_asking = true;
    for (long i = 0; i < in_flight; i++)
        ask_mutation();
    while (now_ns() < mutations.begin_ns)
        look(1);
    puts("begin");
    fflush(stdout);
    double cpu_s = cpu_seconds();
    while (now_ns() < mutations.end_ns)
        look(1);
    cpu_s = cpu_seconds() - cpu_s;
    puts("end");
    fflush(stdout);
    mutations.is_asking = false;
    look_until(is_answered, "answers");
    report(window_s, cpu_s);
}

static void do_wait(double seconds)
{
    forget_measures();
    double cpu_s = cpu_seconds();
    int64_t end_ns = now_ns() + (int64_t)(seconds * 1e9);
    while (now_ns() < end_ns)
        look(100);
    report(seconds, cpu_seconds() - cpu_s);
}

/* The next line of the standard input, while the connections are kept alive; lines come one at a time. */
static bool read_line(char *line, int room)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    while (!poll(&input, 1, 0))
        look(10);
    return fgets(line, room, stdin);
}

static void obey(void)
{
    char line[256];
    while (read_line(line, sizeof(line))) {
        long count;
        double first_s, second_s;
        if (sscanf(line, "commits %ld", &count) == 1)
            do_commits(count);
        else if (sscanf(line, "mutations %ld %lf %lf", &count, &first_s, &second_s) == 3 && count > 0 && count <= IN_FLIGHT_MAX)
            do_mutations(count, first_s, second_s);
        else if (sscanf(line, "wait %lf", &first_s) == 1)
            do_wait(first_s);
        else
            give_up("nobody knows what this asks for", line, strlen(line));
    }
}

/* -- the beginning ------------------------------------------------------------------------------------------------ */

static void read_options(int count, char **words)
{
    static const struct option options[] = {
        {"port", 1, 0, 'p'},     {"sockets", 1, 0, 's'},  {"queries", 1, 0, 'q'}, {"distinct", 1, 0, 'd'}, {"accounts", 1, 0, 'a'},
        {"function", 1, 0, 'f'}, {"args", 1, 0, 'j'},     {"seed", 1, 0, 'r'},    {0}};
    for (int letter; (letter = getopt_long(count, words, "", options, NULL)) != -1;)
        switch (letter) {
        case 'p': given.port = atoi(optarg); break;
        case 's': given.sockets = atol(optarg); break;
        case 'q': given.queries = atol(optarg); break;
        case 'd': given.distinct = atol(optarg); break;
        case 'a': given.accounts = atol(optarg); break;
        case 'f': given.function = optarg; break;
        case 'j': given.args = optarg; break;
        case 'r': chance_state = strtoull(optarg, NULL, 10); break;
        default: exit(2);
        }
    if (!given.port || given.sockets < 1 || given.distinct < 1 || given.accounts <= given.distinct ||
        (given.sockets * given.queries) % given.distinct) {
        fprintf(stderr, "usage: live --port N --sockets S --queries Q --distinct D --accounts A [--function F --args JSON]\n");
        exit(2);
    }
}

int main(int count, char **words)
{
    read_options(count, words);
    struct rlimit files = {0, 0};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(EPOLL_CLOEXEC);
    all = must(calloc(given.sockets, sizeof(*all)));
    balances = must(calloc(given.distinct, sizeof(*balances)));
    int64_t begin_ns = now_ns();
    for (int opened = 0; ready < given.sockets;) {
        while (opened < given.sockets && opened - ready < OPENING_MAX)
            open_connection(opened++);
        look(100);
        if (now_ns() - begin_ns > 4 * SILENCE_MS_MAX * 1000000ll)
            give_up("the connections are not made", "", 0);
    }
    printf("{\"ready_s\":%.3f}\n", (double)(now_ns() - begin_ns) / 1e9);
    fflush(stdout);
    obey();
    return 0;
}
