/* test_fabric_tcp_garbage.c: what strangers send to a listening port ends their connection, and nothing else.
 */
#include "fabric_fixture.h"

#include "rdma/fabric_tcp_frame.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

struct bench {
    struct net n;
    struct fabric_listener *l;
    struct fabric_addr addr;
    struct fabric_conn *good, *accepted;
    int ups, downs, messages;
    enum fabric_down reason;
};

static void on_up(struct fabric_conn *c, const struct fabric_peer *p)
{
    struct bench *b = fabric_conn_user(c);
    (void)p;
    b->ups++;
}
static void on_message(struct fabric_conn *c, const struct fabric_msg *m)
{
    struct bench *b = fabric_conn_user(c);
    b->messages++;
    if (m->source.len)
        fabric_drop(c, &m->source);
}
static void on_down(struct fabric_conn *c, enum fabric_down reason)
{
    struct bench *b = fabric_conn_user(c);
    b->downs++;
    b->reason = reason;
    fabric_close(c);
}
static const struct fabric_conn_events events = {on_up, on_message, on_down};
static const struct fabric_conn_events *on_accept(void *user, const struct fabric_peer *p, void **conn_user)
{
    (void)p;
    *conn_user = user;
    return &events;
}

static void bench_start(struct bench *b)
{
    memset(b, 0, sizeof(*b));
    net_init(&b->n, false, 11);
    b->n.config[0].connect_timeout_ns = 150 * NS_PER_MS;
    net_start(&b->n, 0);
    net_start(&b->n, 1);
    struct fabric_addr a;
    struct fabric_accept accept = {on_accept, b};
    net_addr(&b->n, 0, 0, &a);
    assert_int_equal(fabric_listen(b->n.f[0], &a, &accept, &b->l), 0);
    fabric_listener_addr(b->l, &b->addr);
    assert_int_equal(fabric_connect(b->n.f[1], &b->addr, FABRIC_DOMAIN_CLUSTER, &events, b, &b->good), 0);
    NET_UNTIL_INT(&b->n, b->ups, 2);
}
static uint64_t refused(struct bench *b)
{
    struct fabric_counters c;
    fabric_counters_get(b->n.f[0], &c);
    return c.conns_refused;
}
static uint64_t errors(struct bench *b)
{
    struct fabric_counters c;
    fabric_counters_get(b->n.f[0], &c);
    return c.protocol_errors;
}
/* The good connection has not noticed anything. */
static void bench_stop(struct bench *b)
{
    struct fabric_op op = {.kind = FABRIC_OP_SEND, .header = "alive", .header_len = 5};
    int before = b->messages;
    assert_int_equal(b->downs, 0);
    assert_int_equal(fabric_post(b->good, &op), 0);
    NET_UNTIL_INT(&b->n, b->messages, before + 1);
    fabric_close(b->good);
    NET_UNTIL_INT(&b->n, b->downs, 1);
    net_fini(&b->n);
}

static int raw_open(struct bench *b)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(b->addr.port)};
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)(void *)&in, sizeof(in)), 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}
static void raw_send(struct bench *b, int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return; /* it was closed already: fine */
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
        net_step(&b->n);
    }
}
/* Reads exactly len bytes. */
static void raw_read(struct bench *b, int fd, void *data, size_t len)
{
    char *at = data;
    uint64_t end = net_real_ns() + 20 * NS_PER_S;
    while (len > 0 && net_real_ns() < end) {
        ssize_t n = recv(fd, at, len, 0);
        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
        net_step(&b->n);
    }
    assert_int_equal(len, 0);
}
static bool raw_closed(int fd)
{
    char b[4096];
    ssize_t n;
    while ((n = recv(fd, b, sizeof(b), 0)) > 0)
        ;
    return n == 0 || errno != EAGAIN;
}

static struct tcp_frame frame(enum tcp_frame_type type, uint32_t body, uint32_t payload)
{
    struct tcp_frame f;
    memset(&f, 0, sizeof(f));
    f.magic = TCP_FRAME_MAGIC;
    f.type = (uint8_t)type;
    f.body_len = body;
    f.payload_len = payload;
    return f;
}

static void random_bytes(void **state)
{
    struct bench b;
    (void)state;
    bench_start(&b);
    struct rng rng;
    rng_seed(&rng, 5);
    for (int i = 0; i < 60; i++) {
        unsigned char junk[20000];
        size_t len = 40 + rng_below(&rng, sizeof(junk) - 40);
        uint64_t before = refused(&b);
        rng_fill(&rng, junk, len);
        if (i % 3 == 0)
            memcpy(junk, "TF", 2); /* the magic alone is not enough */
        if (i % 3 == 1)
            memcpy(junk, "GET / HTTP/1.1\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 60);
        int fd = raw_open(&b);
        raw_send(&b, fd, junk, len);
        NET_UNTIL_INT(&b.n, refused(&b), before + 1);
        NET_UNTIL_INT(&b.n, raw_closed(fd), true);
        close(fd);
    }
    assert_int_equal(errors(&b), 60);
    bench_stop(&b);
}

static void bad_frames_before_up(void **state)
{
    struct bench b;
    (void)state;
    bench_start(&b);
    for (int type = 0; type < 256; type++) {
        if (type == TCP_FRAME_HELLO)
            continue;
        struct tcp_frame f = frame((enum tcp_frame_type)type, type == TCP_FRAME_AUTH ? 40 : 0, 0);
        if (type == TCP_FRAME_MESSAGE)
            f.body_len = 10;
        if (type == TCP_FRAME_READ)
            f.len = 8;
        if (type == TCP_FRAME_REFUSE)
            f.len = FABRIC_DOWN_AUTH;
        unsigned char data[100] = {0};
        uint64_t before = refused(&b);
        memcpy(data, &f, sizeof(f));
        int fd = raw_open(&b);
        raw_send(&b, fd, data, sizeof(f) + f.body_len);
        if (type != TCP_FRAME_BEAT)
            NET_UNTIL_INT(&b.n, refused(&b), before + 1);
        close(fd);
        NET_UNTIL_INT(&b.n, refused(&b), before + 1);
    }
    assert_int_equal(b.ups, 2);
    bench_stop(&b);
}

/* A hello in order, as far as it goes. */
static void hello_fill(struct bench *b, unsigned char *data, unsigned seed)
{
    struct tcp_frame f = frame(TCP_FRAME_HELLO, sizeof(struct fabric_hello), 0);
    struct fabric_hello h;
    memset(&h, 0, sizeof(h));
    h.magic = FABRIC_HELLO_MAGIC;
    h.version_min = h.version_max = 1;
    h.cluster = b->n.config[0].cluster;
    h.role = FABRIC_ROLE_VBS;
    h.domain = FABRIC_DOMAIN_CLUSTER;
    h.incarnation = seed;
    memcpy(data, &f, sizeof(f));
    memcpy(data + sizeof(f), &h, sizeof(h));
}

static void wrong_hellos_and_proofs(void **state)
{
    struct bench b;
    unsigned char data[200], reply[200];
    (void)state;
    bench_start(&b);
    static const size_t places[] = {40, 44 + 20 - 4 + 4, 41, 40 + 24, 40 + 25};
    for (unsigned i = 0; i < ARRAY_LEN(places); i++) {
        uint64_t before = refused(&b);
        hello_fill(&b, data, 1);
        data[places[i]] ^= 0xff;
        int fd = raw_open(&b);
        raw_send(&b, fd, data, 96);
        NET_UNTIL_INT(&b.n, refused(&b), before + 1);
        raw_read(&b, fd, reply, 40);
        assert_int_equal(reply[2], TCP_FRAME_REFUSE);
        close(fd);
    }
    /* a proof of nothing; the listener's own proof is not shown before */
    hello_fill(&b, data, 2);
    uint64_t before = refused(&b);
    int fd = raw_open(&b);
    raw_send(&b, fd, data, 96);
    raw_read(&b, fd, reply, 96);
    assert_int_equal(reply[2], TCP_FRAME_HELLO);
    struct tcp_frame f = frame(TCP_FRAME_AUTH, sizeof(struct fabric_auth), 0);
    struct fabric_auth a;
    memset(&a, 0, sizeof(a));
    a.recv_messages = 64;
    a.beat_ms = 1000;
    memcpy(data, &f, sizeof(f));
    memcpy(data + sizeof(f), &a, sizeof(a));
    raw_send(&b, fd, data, 80);
    NET_UNTIL_INT(&b.n, refused(&b), before + 1);
    raw_read(&b, fd, reply, 40);
    assert_int_equal(reply[2], TCP_FRAME_REFUSE);
    memcpy(&f, reply, sizeof(f));
    assert_int_equal(f.len, FABRIC_DOWN_AUTH);
    close(fd);
    /* two hellos */
    before = refused(&b);
    hello_fill(&b, data, 3);
    fd = raw_open(&b);
    raw_send(&b, fd, data, 96);
    raw_send(&b, fd, data, 96);
    NET_UNTIL_INT(&b.n, refused(&b), before + 1);
    close(fd);
    bench_stop(&b);
}

static void slow_strangers(void **state)
{
    struct bench b;
    unsigned char data[96];
    enum { COUNT = 20 };
    int fd[COUNT];
    (void)state;
    bench_start(&b);
    uint64_t before = refused(&b), start = net_real_ns();
    for (int i = 0; i < COUNT; i++)
        fd[i] = raw_open(&b);
    hello_fill(&b, data, 4);
    /* one byte at a time, or none: dropped all the same */
    for (size_t at = 0; refused(&b) < before + COUNT && net_real_ns() - start < 30 * NS_PER_S; at++) {
        for (int i = 0; i < COUNT / 2; i++)
            if (at < 60)
                raw_send(&b, fd[i], data + at, 1);
        net_idle(&b.n, 5);
    }
    assert_int_equal(refused(&b), before + COUNT);
    for (int i = 0; i < COUNT; i++) {
        NET_UNTIL_INT(&b.n, raw_closed(fd[i]), true);
        close(fd[i]);
    }
    bench_stop(&b);
}

/* A stranger who knows the secret: everything is still checked. */
struct insider {
    struct bench b;
    int fd;
};
static void insider_start(struct insider *x)
{
    unsigned char data[200], reply[200];
    struct fabric_hello mine, theirs;
    bench_start(&x->b);
    hello_fill(&x->b, data, 6);
    x->fd = raw_open(&x->b);
    raw_send(&x->b, x->fd, data, 96);
    raw_read(&x->b, x->fd, reply, 96);
    memcpy(&mine, data + 40, sizeof(mine));
    memcpy(&theirs, reply + 40, sizeof(theirs));
    struct fabric_auth a;
    memset(&a, 0, sizeof(a));
    a.recv_messages = 64;
    a.beat_ms = 1000;
    fabric_auth_sign(&x->b.n.config[0], 0, &mine, &theirs, &a);
    struct tcp_frame f = frame(TCP_FRAME_AUTH, sizeof(a), 0);
    memcpy(data, &f, sizeof(f));
    memcpy(data + sizeof(f), &a, sizeof(a));
    raw_send(&x->b, x->fd, data, 80);
    raw_read(&x->b, x->fd, reply, 80);
    assert_int_equal(reply[2], TCP_FRAME_AUTH);
    NET_UNTIL_INT(&x->b.n, x->b.ups, 3);
}
static void insider_ends(struct insider *x, enum fabric_down reason)
{
    NET_UNTIL_INT(&x->b.n, x->b.downs, 1);
    assert_int_equal(x->b.reason, reason);
    x->b.downs = 0;
    close(x->fd);
    bench_stop(&x->b);
}

static void insider_frames(void **state)
{
    (void)state;
    struct {
        struct tcp_frame f;
        enum fabric_down reason;
    } cases[16];
    int count = 0;
#define CASE(frame_, why) cases[count].f = frame_, cases[count].reason = why, count++
    CASE(frame(TCP_FRAME_MESSAGE, FABRIC_MESSAGE_MAX + 1, 0), FABRIC_DOWN_PROTOCOL);
    CASE(frame(TCP_FRAME_MESSAGE, UINT32_MAX, 0), FABRIC_DOWN_PROTOCOL);
    CASE(frame(TCP_FRAME_MESSAGE, 8, FABRIC_PAYLOAD_MAX + 1), FABRIC_DOWN_PROTOCOL);
    CASE(frame(TCP_FRAME_MESSAGE, 0, 0), FABRIC_DOWN_PROTOCOL);
    CASE(frame(TCP_FRAME_WRITE, 0, UINT32_MAX), FABRIC_DOWN_PROTOCOL);
    CASE(frame(TCP_FRAME_WRITE, 0, 100), FABRIC_DOWN_ACCESS);
    CASE(frame(TCP_FRAME_PUSH, 0, 100), FABRIC_DOWN_ACCESS);
    CASE(frame(TCP_FRAME_READ_REPLY, 0, 100), FABRIC_DOWN_PROTOCOL);
    CASE(frame(TCP_FRAME_READ, 0, 0), FABRIC_DOWN_PROTOCOL); /* of no bytes */
    CASE(frame(TCP_FRAME_HELLO, 56, 0), FABRIC_DOWN_PROTOCOL);
    CASE(frame(TCP_FRAME_AUTH, 40, 0), FABRIC_DOWN_PROTOCOL);
    CASE(frame(TCP_FRAME_CLOSE, 0, 0), FABRIC_DOWN_PEER_CLOSED);
    struct tcp_frame f = frame(TCP_FRAME_WRITE_ACK, 0, 0);
    f.len = 1; /* nothing was written */
    CASE(f, FABRIC_DOWN_PROTOCOL);
    f = frame(TCP_FRAME_READ, 0, 0);
    f.len = 8;
    f.key = 1;
    CASE(f, FABRIC_DOWN_ACCESS);
    for (int i = 0; i < count; i++) {
        struct insider x;
        unsigned char data[200] = {0};
        insider_start(&x);
        memcpy(data, &cases[i].f, sizeof(f));
        raw_send(&x.b, x.fd, data, sizeof(f) + (cases[i].f.body_len < 100 ? cases[i].f.body_len : 100));
        insider_ends(&x, cases[i].reason);
    }
}

/* Cut off in the middle of a frame, at every byte of it. */
static void truncated_frames(void **state)
{
    (void)state;
    for (size_t cut = 0; cut < 40 + 20 + 60; cut += 7) {
        struct insider x;
        unsigned char data[120];
        memset(data, 7, sizeof(data));
        insider_start(&x);
        struct tcp_frame f = frame(TCP_FRAME_MESSAGE, 20, 60);
        memcpy(data, &f, sizeof(f));
        raw_send(&x.b, x.fd, data, cut);
        net_idle(&x.b.n, 2);
        assert_int_equal(x.b.downs, 0);
        assert_int_equal(x.b.messages, cut >= 60);
        shutdown(x.fd, SHUT_RDWR);
        insider_ends(&x, FABRIC_DOWN_PEER_DIED);
    }
}

/* More READs than our own side ever has under way, and no answer is taken. */
static void flood_of_reads(void **state)
{
    struct insider x;
    (void)state;
    insider_start(&x);
    static unsigned char table[1 << 20];
    struct fabric_mem *mem;
    assert_int_equal(fabric_mem_register(x.b.n.f[0], FABRIC_DOMAIN_CLUSTER, table, sizeof(table),
                                         FABRIC_ACCESS_REMOTE_READ, &mem),
                     0);
    struct tcp_frame f = frame(TCP_FRAME_READ, 0, 0);
    f.addr = mem->remote_addr;
    f.key = mem->key;
    f.len = sizeof(table);
    for (int i = 0; i < 2000 && x.b.downs == 0; i++)
        raw_send(&x.b, x.fd, &f, sizeof(f));
    NET_UNTIL_INT(&x.b.n, x.b.downs, 1);
    assert_int_equal(x.b.reason, FABRIC_DOWN_PROTOCOL);
    fabric_mem_unregister(mem);
    insider_ends(&x, FABRIC_DOWN_PROTOCOL);
}

/* Memory that goes away while a peer's WRITE is coming in takes the connection with it. */
static void memory_goes_away(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct insider x;
        insider_start(&x);
        unsigned char *memory = calloc(1, 4 << 20);
        struct fabric_mem *mem;
        assert_int_equal(fabric_mem_register(x.b.n.f[0], FABRIC_DOMAIN_CLUSTER, memory, 4 << 20,
                                             FABRIC_ACCESS_REMOTE_READ | FABRIC_ACCESS_REMOTE_WRITE, &mem),
                         0);
        struct tcp_frame f = frame(kind ? TCP_FRAME_READ : TCP_FRAME_WRITE, 0, kind ? 0 : 100000);
        f.addr = mem->remote_addr;
        f.key = mem->key;
        f.len = kind ? 4 << 20 : 0;
        raw_send(&x.b, x.fd, &f, sizeof(f));
        if (!kind)
            raw_send(&x.b, x.fd, memory, 1000);
        net_idle(&x.b.n, 5);
        assert_int_equal(x.b.downs, 0);
        fabric_mem_unregister(mem);
        free(memory);
        insider_ends(&x, FABRIC_DOWN_ACCESS);
    }
}

static void addresses(void **state)
{
    static const char *const good[] = {"tcp:127.0.0.1:7100", "tcp:[::1]:7100", "rdma:10.0.0.1:1",
                                       "sim:3:7100", "tcp:0.0.0.0:65535"};
    static const char *const bad[] = {"",
                                      "tcp:",
                                      "tcp:1.2.3.4",
                                      "tcp:1.2.3.4:",
                                      "tcp:host:1",
                                      "tcp:1.2.3.4:x",
                                      "tcp:1.2.3.4:65536",
                                      "tcp:1.2.3.4:-1",
                                      "tcp:[::1:1",
                                      "tcp:::1:1",
                                      "udp:1.2.3.4:1",
                                      "sim::1",
                                      "sim:x:1",
                                      "sim:4294967296:1",
                                      "tcp:1.2.3.4 :1",
                                      "tcp:[]:1"};
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
        struct fabric_addr a, again;
        char text[64];
        assert_int_equal(fabric_addr_parse(good[i], &a), 0);
        assert_string_equal(fabric_addr_format(&a, text), good[i]);
        assert_int_equal(fabric_addr_parse(text, &again), 0);
        assert_true(fabric_addr_eq(&a, &again));
    }
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        struct fabric_addr a;
        memset(&a, 0x5a, sizeof(a));
        assert_int_equal(fabric_addr_parse(bad[i], &a), -EINVAL);
        assert_int_equal(a.provider, 0x5a); /* untouched */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(bad_frames_before_up),
        cmocka_unit_test(wrong_hellos_and_proofs),
        cmocka_unit_test(slow_strangers),
        cmocka_unit_test(insider_frames),
        cmocka_unit_test(truncated_frames),
        cmocka_unit_test(flood_of_reads),
        cmocka_unit_test(memory_goes_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
