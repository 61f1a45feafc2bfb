/* metrics_http.h over real sockets and a real loop: what is told, when the loop answers and when it does not,
 * and what garbage does. Clients are threads, so the thread sanitizer sees both sides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/loop.h"
#include "common/loop_metrics.h"
#include "common/metrics_http.h"

struct fixture {
    struct loop *loop;
    struct env env;
    struct metrics_http *http;
    struct loop_timer work; /* the service's own: changes what collect looks at */
    uint64_t turns, collected;
    const char *why, *remark;
};

struct counted {
    uint64_t turns, same;
};
#define METRICS_STRUCT counted
static const struct metric table[] = {METRICS_ENTRY(COUNTER, turns, "turns_total", NULL, "Turns.")
                                          METRICS_ENTRY(COUNTER, same, "same_total", NULL, "As many.")};
static const struct metrics_group group = METRICS_GROUP("the test", table);
#undef METRICS_STRUCT

static void collect(void *user, struct metrics_snapshot *out)
{
    struct fixture *f = user;
    f->collected++;
    struct counted *c = metrics_snapshot_add(out, &group, NULL);
    assert_non_null(c);
    c->turns = c->same = f->turns;
    loop_metrics(f->loop, out);
    if (f->why != NULL)
        metrics_snapshot_not_ready(out, "%s", f->why);
    if (f->remark != NULL)
        metrics_snapshot_remark(out, "%s", f->remark);
}

static void on_work(struct loop_timer *t)
{
    struct fixture *f = container_of(t, struct fixture, work);
    f->turns++;
    loop_timer_arm(f->loop, t, 50 * NS_PER_US);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_int_equal(loop_create_real(NULL, &f->loop), 0);
    f->env = (struct env){.loop = f->loop, .name = "test"};
    const struct metrics_http_config config = {
        .addr = "127.0.0.1:0", .service = "cistern-test", .collect = collect, .user = f};
    assert_int_equal(metrics_http_start(&f->env, &config, &f->http), 0);
    loop_timer_init(&f->work, on_work);
    loop_timer_arm(f->loop, &f->work, 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    metrics_http_stop(f->http);
    loop_timer_cancel(f->loop, &f->work);
    loop_destroy(f->loop);
    free(f);
    return 0;
}

/* ---- clients ---- */

struct client {
    pthread_t thread;
    uint16_t port;
    const char *request;
    size_t request_len;
    unsigned repeat;
    unsigned patience_ms; /* for the answer to garbage: there may be none */
    char answer[65536];   /* of the last one */
    size_t len;
    _Atomic bool done;
};

static int connect_to(uint16_t port)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    close(fd);
    return -1;
}

static void *run_client(void *arg)
{
    struct client *c = arg;
    for (unsigned i = 0; i < c->repeat; i++) {
        int fd = connect_to(c->port);
        if (fd < 0) /* stopped already: no answer */
            break;
        c->len = 0;
        const struct timeval patience = {.tv_sec = c->patience_ms / 1000,
                                         .tv_usec = c->patience_ms % 1000 * 1000};
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        (void)!send(fd, c->request, c->request_len, MSG_NOSIGNAL);
        (void)shutdown(fd, SHUT_WR);
        for (ssize_t n; (n = recv(fd, c->answer + c->len, sizeof c->answer - 1 - c->len, 0)) > 0;)
            c->len += (size_t)n;
        close(fd);
        c->answer[c->len] = '\0';
    }
    atomic_store(&c->done, true);
    return NULL;
}

static void start_client(struct fixture *f, struct client *c, const char *request)
{
    *c = (struct client){.port = metrics_http_port(f->http),
                         .request = request,
                         .request_len = strlen(request),
                         .repeat = c->repeat != 0 ? c->repeat : 1,
                         .patience_ms = c->patience_ms};
    assert_int_equal(pthread_create(&c->thread, NULL, run_client, c), 0);
}

/* The loop turns until the client has its answer. */
static void finish_client(struct fixture *f, struct client *c)
{
    while (!atomic_load(&c->done))
        loop_run_once(f->loop, NS_PER_MS);
    pthread_join(c->thread, NULL);
}

static struct client *ask(struct fixture *f, const char *request)
{
    static struct client c;
    c.repeat = 1;
    start_client(f, &c, request);
    finish_client(f, &c);
    return &c;
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

static void tells(struct fixture *f, const char *request, const char *status, const char *text)
{
    const struct client *c = ask(f, request);
    char line[64];
    snprintf(line, sizeof line, "HTTP/1.1 %s ", status);
    if (strncmp(c->answer, line, strlen(line)) != 0 || strstr(c->answer, text) == NULL)
        fail_msg("%s is answered with: %s", request, c->answer);
}

/* ---- tests ---- */

static void pages(void **state)
{
    struct fixture *f = *state;
    tells(f, GET("/healthz"), "200", "\r\n\r\nok\n");
    tells(f, GET("/readyz"), "200", "\r\n\r\nready\n");
    tells(f, GET("/metrics"), "200",
          "\ncistern_build_info{service=\"cistern-test\",name=\"test\",version=\"");
    tells(f, GET("/metrics"), "200", "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n");
    tells(f, GET("/metrics"), "200", "\ncistern_loop_rounds_total ");
    tells(f, GET("/metrics"), "200", "\nprocess_resident_memory_bytes ");
    tells(f, GET("/"), "200", "/metrics");
    tells(f, GET("/nosuch"), "404", "/metrics");
    tells(f, GET("/metrics/"), "404", "");
    tells(f, "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", "405",
          "GET");
    tells(f, "HEAD /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200", "Content-Length: ");
    f->why = "the disk is away";
    struct client *c = ask(f, GET("/readyz"));
    while (strstr(c->answer, "ready\n") != NULL) /* what was told a moment ago may be told again */
        c = ask(f, GET("/readyz"));
    tells(f, GET("/readyz"), "503", "\r\n\r\nthe disk is away\n");
    tells(f, GET("/healthz"), "200", "ok");
    tells(f, GET("/metrics"), "200", "turns_total");
    f->remark = "the controller is away";
    f->why = NULL;
    do
        c = ask(f, GET("/readyz"));
    while (strstr(c->answer, "controller") == NULL);
    tells(f, GET("/readyz"), "200", "\r\n\r\nready\nthe controller is away\n");
}

static uint64_t figure(const char *text, const char *name)
{
    char line[64];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *p = strstr(text, line);
    assert_non_null(p);
    return strtoull(p + strlen(line), NULL, 10);
}

/* Many at once, while the service changes its figures all the time: each page is of one moment, and the loop
 * is asked ten times a second at most. */
static void many_at_once(void **state)
{
    enum { CLIENTS = 8, REPEAT = 25 };
    struct fixture *f = *state;
    static struct client c[CLIENTS];
    const uint64_t begin_ns = loop_clock_ns(f->loop);
    for (int i = 0; i < CLIENTS; i++) {
        c[i].repeat = REPEAT;
        start_client(f, &c[i], GET("/metrics"));
    }
    for (int i = 0; i < CLIENTS; i++) {
        finish_client(f, &c[i]);
        assert_int_equal(figure(c[i].answer, "turns_total"), figure(c[i].answer, "same_total"));
    }
    const uint64_t took_ns = loop_clock_ns(f->loop) - begin_ns;
    assert_true(f->collected >= 1);
    assert_true(f->collected <= took_ns / (100 * NS_PER_MS) + 2);
}

/* A loop that does not turn: the answer says so, soon, to everybody; and all is well when it turns again. */
static void loop_hangs(void **state)
{
    enum { CLIENTS = 6 };
    struct fixture *f = *state;
    static struct client c[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        c[i].repeat = 1;
        start_client(f, &c[i], i % 2 == 0 ? GET("/metrics") : GET("/readyz"));
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(c[i].thread, NULL);
        assert_memory_equal(c[i].answer, "HTTP/1.1 503 ", 13);
        assert_non_null(strstr(c[i].answer, "does not answer"));
    }
    assert_int_equal(f->collected, 0);
    loop_run_once(f->loop, 0); /* takes what was posted, */
    loop_run_once(f->loop, 0);
    assert_int_equal(f->collected, 1); /* once */
    tells(f, GET("/metrics"), "200", "turns_total");
    assert_true(f->collected >= 2);
}

/* Ends while somebody waits for an answer of the loop: at once, not after the time limit alone. */
static void stop_while_asked(void **state)
{
    struct fixture *f = *state;
    static struct client c;
    c.repeat = 1;
    start_client(f, &c, GET("/metrics"));
    for (int i = 0; i < 3; i++)
        loop_run_once(f->loop, NS_PER_MS);
    metrics_http_stop(f->http);
    f->http = NULL;
    pthread_join(c.thread, NULL);
}

static void garbage(void **state)
{
    struct fixture *f = *state;
    static char big[200000];
    static struct client c;
    static const char *const bad[] = {"\r\n\r\n",
                                      "GET\r\n\r\n",
                                      "GET /metrics\r\n\r\n",
                                      "\x16\x03\x01\x02\x00",
                                      "GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
                                      "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
                                      "GET /metrics HTTP/9.9\r\n\r\n",
                                      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                                      "GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                                      "GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        c.repeat = 1;
        c.patience_ms = 200;
        start_client(f, &c, bad[i]);
        finish_client(f, &c);
        assert_null(strstr(c.answer, "root:"));
    }
    memset(big, 'a', sizeof big - 1); /* one line without an end */
    c.repeat = 1;
    start_client(f, &c, big);
    finish_client(f, &c);
    memcpy(big, "GET /metrics HTTP/1.1\r\nX: ", 26); /* a header of that size */
    c.repeat = 1;
    start_client(f, &c, big);
    finish_client(f, &c);
    assert_null(strstr(c.answer, "turns_total"));
    /* more connections than are served at once, that say nothing and go */
    int fds[200];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = connect_to(metrics_http_port(f->http));
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    tells(f, GET("/metrics"), "200", "turns_total");
}

static void addresses(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"",         "127.0.0.1",     ":",           "127.0.0.1:",
                                      "::1:9000", "nosuch.host:1", "127.0.0.1:x", "127.0.0.1:99999",
                                      "[::1:9",   "256.0.0.1:80"};
    struct metrics_http_config config = {.service = "cistern-test", .collect = collect, .user = f};
    struct metrics_http *h;
    char taken[32];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        config.addr = bad[i];
        assert_int_equal(metrics_http_start(&f->env, &config, &h), -EINVAL);
    }
    snprintf(taken, sizeof taken, "127.0.0.1:%u", metrics_http_port(f->http));
    config.addr = taken;
    assert_int_equal(metrics_http_start(&f->env, &config, &h), -EADDRINUSE);
    config.addr = "127.0.0.1:0";
    assert_int_equal(metrics_http_start(&f->env, &config, &h), 0);
    assert_int_not_equal(metrics_http_port(h), metrics_http_port(f->http));
    metrics_http_stop(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pages, setup, teardown),
        cmocka_unit_test_setup_teardown(many_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(loop_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(stop_while_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(garbage, setup, teardown),
        cmocka_unit_test_setup_teardown(addresses, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
