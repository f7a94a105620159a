/* How fast Redis answers commands that were serialized beforehand: the floor of every client.
 *
 *     cc -O2 -o pipelines pipelines.c && ./pipelines PORT CONNECTIONS SECONDS FILE
 *
 * The file holds pipelines, each as two 32 bit numbers (commands, bytes) and the bytes. A connection sends one, looks for
 * the end of its replies and for nothing else in them, and sends another. Prints what wrk tells in post.lua.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct pipeline {
    uint32_t commands, bytes;
    const char *text;
};

struct connection {
    int socket;
    const struct pipeline *pipeline;
    size_t sent;
    uint32_t replies;      /* that are not there yet */
    uint64_t open, skip;   /* elements of the reply at hand, bytes of the text at hand */
    char line[64];
    size_t line_length;
    int64_t started;
};

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

static void line_ended(struct connection *it) {
    long long number = strtoll(it->line + 1, NULL, 10);
    if (it->line[0] == '-') {
        fprintf(stderr, "Redis answered %.*s\n", (int)it->line_length, it->line);
        exit(1);
    }
    if (it->open == 0) it->open = 1;
    it->open--;
    if (it->line[0] == '*' && number > 0) it->open += (uint64_t)number;
    if (it->line[0] == '$' && number >= 0) it->skip = (uint64_t)number + 2;
    it->line_length = 0;
    if (it->skip == 0 && it->open == 0) it->replies--;
}

static void take(struct connection *it, const char *bytes, size_t length) {
    size_t at = 0;
    while (at < length) {
        if (it->skip > 0) {
            size_t passed = it->skip < length - at ? it->skip : length - at;
            it->skip -= passed;
            at += passed;
            if (it->skip == 0 && it->open == 0) it->replies--;
            continue;
        }
        char byte = bytes[at++];
        if (byte == '\n') {
            line_ended(it);
        } else if (it->line_length + 1 < sizeof it->line) {
            it->line[it->line_length++] = byte;
            it->line[it->line_length] = 0;
        }
    }
}

static void watch(int epoll, struct connection *it, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = it};
    if (epoll_ctl(epoll, operation, it->socket, &event) != 0) fail("epoll_ctl");
}

/* Whether all is sent. */
static int send_more(struct connection *it) {
    while (it->sent < it->pipeline->bytes) {
        ssize_t sent = send(it->socket, it->pipeline->text + it->sent, it->pipeline->bytes - it->sent, MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
        if (sent <= 0) fail("send");
        it->sent += (size_t)sent;
    }
    return 1;
}

static void begin(int epoll, struct connection *it, const struct pipeline *pipeline) {
    it->pipeline = pipeline;
    it->sent = 0;
    it->replies = pipeline->commands;
    it->started = now();
    if (!send_more(it)) watch(epoll, it, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: pipelines PORT CONNECTIONS SECONDS FILE\n");
        return 2;
    }
    size_t connections = strtoul(argv[2], NULL, 10);
    FILE *file = fopen(argv[4], "rb");
    if (file == NULL) fail(argv[4]);
    struct pipeline *pipelines = NULL;
    size_t n_pipelines = 0;
    uint32_t header[2];
    while (fread(header, sizeof header, 1, file) == 1) {
        char *text = malloc(header[1]);
        if (text == NULL || fread(text, 1, header[1], file) != header[1]) fail(argv[4]);
        pipelines = realloc(pipelines, (n_pipelines + 1) * sizeof *pipelines);
        if (pipelines == NULL) fail("realloc");
        pipelines[n_pipelines++] = (struct pipeline){header[0], header[1], text};
    }
    if (n_pipelines == 0 || connections == 0) {
        fprintf(stderr, "there is nothing to send\n");
        return 2;
    }

    int epoll = epoll_create1(0);
    struct connection *all = calloc(connections, sizeof *all);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (epoll < 0 || all == NULL) fail("epoll_create1");
    size_t next = 0, done = 0, room = 1 << 16;
    uint32_t *times = malloc(room * sizeof *times);
    int64_t started = now(), end = started + (int64_t)(atof(argv[3]) * 1e6);
    for (size_t at = 0; at < connections; at++) {
        int one = 1;
        all[at].socket = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(all[at].socket, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
        setsockopt(all[at].socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(epoll, &all[at], EPOLL_CTL_ADD, EPOLLIN);
        begin(epoll, &all[at], &pipelines[next++ % n_pipelines]);
    }
    static char bytes[1 << 18];
    struct epoll_event events[64];
    size_t working = connections;
    while (working > 0) {
        int ready = epoll_wait(epoll, events, 64, 60000);
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) fail("Redis does not answer");
        for (int at = 0; at < ready; at++) {
            struct connection *it = events[at].data.ptr;
            if (events[at].events & EPOLLOUT && send_more(it)) watch(epoll, it, EPOLL_CTL_MOD, EPOLLIN);
            if (!(events[at].events & EPOLLIN)) continue;
            ssize_t length = recv(it->socket, bytes, sizeof bytes, MSG_DONTWAIT);
            if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) continue;
            if (length <= 0) fail("recv");
            take(it, bytes, (size_t)length);
            if (it->replies > 0) continue;
            int64_t ended = now();
            if (done == room) times = realloc(times, (room *= 2) * sizeof *times);
            if (times == NULL) fail("realloc");
            times[done++] = (uint32_t)(ended - it->started);
            if (ended < end) {
                begin(epoll, it, &pipelines[next++ % n_pipelines]);
            } else {
                working--;
            }
        }
    }
    int64_t passed = now() - started;
    qsort(times, done, sizeof *times, ascending);
    printf("{\"requests\": %zu, \"microseconds\": %lld, \"p50\": %u, \"p99\": %u, \"bad\": 0}\n", done, (long long)passed,
           times[done / 2], times[done * 99 / 100]);
    return 0;
}
