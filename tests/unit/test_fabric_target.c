/* Names of hosts and networks in addresses (rdma/fabric_target.h), and asking for names (common/resolve.h).
 */
#include "rdma/fabric_target.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/loop.h"

/* ---- parsing ---- */

static void names_and_numbers(void **state)
{
    (void)state;
    struct fabric_addr a, numeric;
    char host[RESOLVE_HOST_BYTES], text[FABRIC_TARGET_BYTES];
    assert_int_equal(fabric_target_parse("tcp:192.0.2.1:7100", &a, host), 0);
    assert_int_equal(fabric_addr_parse("tcp:192.0.2.1:7100", &numeric), 0);
    assert_memory_equal(&a, &numeric, sizeof(a));
    assert_string_equal(host, "");
    assert_int_equal(fabric_target_parse("rdma:[fd00::1]:7100", &a, host), 0);
    assert_string_equal(host, "");
    assert_string_equal(fabric_target_format(&a, host, text), "rdma:[fd00::1]:7100");
    assert_int_equal(fabric_target_parse("rdma:mdc-0.mdc.storage.svc:7100", &a, host), 0);
    assert_string_equal(host, "mdc-0.mdc.storage.svc");
    assert_int_equal(a.provider, FABRIC_PROVIDER_VERBS);
    assert_int_equal(a.family, 0);
    assert_int_equal(a.port, 7100);
    assert_string_equal(fabric_target_format(&a, host, text), "rdma:mdc-0.mdc.storage.svc:7100");
    const struct resolve_addr found = {.family = 4, .ip = {192, 0, 2, 9}};
    const struct fabric_addr there = fabric_target_with(&a, &found);
    assert_string_equal(fabric_target_format(&there, "", text), "rdma:192.0.2.9:7100");
}

static void what_is_no_target(void **state)
{
    static const char *const bad[] = {"",
                                      "mdc",
                                      "mdc:7100",
                                      "tcp:mdc",
                                      "tcp:mdc:",
                                      "tcp::7100",
                                      "tcp:mdc:70000",
                                      "tcp:mdc:-1",
                                      "udp:mdc:7100",
                                      "sim:mdc:7100",
                                      "tcp:a b:7100",
                                      "tcp:a..b:7100",
                                      "tcp:.a:7100",
                                      "tcp:1.2.3:7100",
                                      "tcp:1.2.3.4.5:7100",
                                      "tcp:300.1.2.3:7100",
                                      "tcp:a/b:7100",
                                      "tcp:fd00::1:7100",
                                      "tcp:[fd00::g]:7100"};
    (void)state;
    struct fabric_addr a;
    char host[RESOLVE_HOST_BYTES] = "untouched", text[400];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(fabric_target_parse(bad[i], &a, host), -EINVAL);
    memset(text, 'a', sizeof(text));
    memcpy(text, "tcp:", 4);
    memcpy(text + 4 + RESOLVE_HOST_BYTES, ":7100", 6);
    assert_int_equal(fabric_target_parse(text, &a, host), -EINVAL);
    assert_string_equal(host, "untouched");
    memcpy(text + 4 + RESOLVE_HOST_BYTES - 1, ":7100", 6);
    assert_int_equal(fabric_target_parse(text, &a, host), 0);
    assert_int_equal(strlen(host), RESOLVE_HOST_BYTES - 1);
    assert_true(resolve_name_valid("mdc."));
    assert_false(resolve_name_valid("."));
    assert_false(resolve_name_valid("10.0.0.1."));
}

/* ---- this host ---- */

static void listen_on_this_host(void **state)
{
    (void)state;
    struct fabric_addr a, want;
    char text[64];
    assert_int_equal(fabric_addr_parse("tcp:127.0.0.1:0", &want), 0);
    assert_int_equal(fabric_listen_parse("tcp:127.0.0.1:0", &a), 0);
    assert_memory_equal(&a, &want, sizeof(a));
    assert_int_equal(fabric_listen_parse("tcp:127.0.0.0/8:7100", &a), 0);
    assert_string_equal(fabric_addr_format(&a, text), "tcp:127.0.0.1:7100");
    assert_int_equal(fabric_listen_parse("tcp:203.0.113.0/24:7100", &a), -EADDRNOTAVAIL);
    assert_int_equal(fabric_listen_parse("tcp:127.0.0.0/33:7100", &a), -EINVAL);
    assert_int_equal(fabric_listen_parse("tcp:127.0.0.0/:7100", &a), -EINVAL);
    assert_int_equal(fabric_listen_parse("tcp:127.0.0.0/8", &a), -EINVAL);
    assert_int_equal(fabric_listen_parse("tcp:127.0.0.0/8x:7100", &a), -EINVAL);
    assert_int_equal(fabric_listen_parse("tcp:127.0.0.0/8/8:7100", &a), -EINVAL);
    assert_int_equal(fabric_listen_parse("tcp:[fd00::/129]:7100", &a), -EINVAL);
    assert_int_equal(fabric_listen_parse("tcp:mdc:7100", &a), -EINVAL);
    assert_int_equal(fabric_listen_parse("sim:3/8:7100", &a), -EINVAL);
}

static void the_lowest_in_the_network(void **state)
{
    static const struct resolve_addr have[] = {{4, {10, 9, 0, 1}},  {4, {10, 10, 3, 7}}, {4, {10, 10, 3, 5}},
                                               {6, {10, 10, 1, 1}}, {4, {10, 10, 4, 1}}, {6, {0xfd, 0, 1}}};
    (void)state;
    struct fabric_addr net, a;
    char text[64];
    assert_int_equal(fabric_addr_parse("rdma:10.10.2.9:7100", &net), 0);
    assert_true(fabric_listen_choose(&net, 23, have, ARRAY_LEN(have), &a));
    assert_string_equal(fabric_addr_format(&a, text), "rdma:10.10.3.5:7100");
    assert_false(fabric_listen_choose(&net, 24, have, ARRAY_LEN(have), &a));
    assert_false(fabric_listen_choose(&net, 32, have, ARRAY_LEN(have), &a));
    assert_true(fabric_listen_choose(&net, 0, have, ARRAY_LEN(have), &a));
    assert_string_equal(fabric_addr_format(&a, text), "rdma:10.9.0.1:7100");
    assert_int_equal(fabric_addr_parse("rdma:[fd00:100::]:7100", &net), 0);
    assert_true(fabric_listen_choose(&net, 128, have, ARRAY_LEN(have), &a));
    assert_string_equal(fabric_addr_format(&a, text), "rdma:[fd00:100::]:7100");
}

/* ---- the system's names ---- */

struct asked {
    struct resolve_request req;
    unsigned done;
    int rc;
    unsigned count;
    struct resolve_addr first;
};

static void on_done(struct resolve_request *req, int rc, const struct resolve_addr *addrs, unsigned count)
{
    struct asked *a = container_of(req, struct asked, req);
    assert_null(req->job);
    a->done++;
    a->rc = rc;
    a->count = count;
    if (count > 0)
        a->first = addrs[0];
}

static void the_system_knows_localhost(void **state)
{
    (void)state;
    struct env env = {.name = "t", .resolver = &resolve_system};
    struct asked a = {.req = {.done = on_done}};
    static const uint8_t v4[16] = {127, 0, 0, 1};
    assert_int_equal(loop_create_real(NULL, &env.loop), 0);
    assert_int_equal(resolve_start(&env, &a.req, "localhost"), 0);
    assert_int_equal(a.done, 0);
    for (unsigned i = 0; a.done == 0 && i < 10000; i++)
        loop_run_once(env.loop, 100 * NS_PER_MS);
    assert_int_equal(a.done, 1);
    assert_int_equal(a.rc, 0);
    assert_true(a.count > 0);
    if (a.first.family == 4)
        assert_memory_equal(a.first.ip, v4, 16);
    /* Cancelled in every state: under way, perhaps posted, done. Nothing comes any more, nothing leaks. */
    for (unsigned i = 0; i < 50; i++) {
        struct asked b = {.req = {.done = on_done}};
        assert_int_equal(resolve_start(&env, &b.req, "localhost"), 0);
        for (unsigned k = 0; k < i && b.done == 0; k++)
            loop_run_once(env.loop, 0);
        resolve_cancel(&env, &b.req);
        const unsigned done = b.done;
        loop_run_once(env.loop, 0);
        assert_int_equal(b.done, done);
    }
    loop_destroy(env.loop);
}

static void without_a_resolver(void **state)
{
    (void)state;
    struct env env = {.name = "t"};
    struct asked a = {.req = {.done = on_done}};
    assert_int_equal(resolve_start(&env, &a.req, "localhost"), -ENOTSUP);
    resolve_cancel(&env, &a.req);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_numbers),          cmocka_unit_test(what_is_no_target),
        cmocka_unit_test(listen_on_this_host),        cmocka_unit_test(the_lowest_in_the_network),
        cmocka_unit_test(the_system_knows_localhost), cmocka_unit_test(without_a_resolver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
