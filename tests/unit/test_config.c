/* config.h and log.h. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/config.h"
#include "common/env.h"
#include "common/log.h"
#include "common/sim.h"

struct options {
    char *listen;
    char *mdc;
    bool verbose;
    uint64_t depth;
    uint64_t cache;
    uint64_t lease;
};
static const struct config_option options[] = {
    {"listen", CONFIG_STRING, offsetof(struct options, listen), "127.0.0.1:1", 0, 0, false, "ADDR",
     "where to listen"},
    {"mdc", CONFIG_STRING, offsetof(struct options, mdc), NULL, 0, 0, true, "ADDR", "a controller"},
    {"verbose", CONFIG_BOOL, offsetof(struct options, verbose), NULL, 0, 0, false, NULL, "say more"},
    {"depth", CONFIG_UINT, offsetof(struct options, depth), "128", 1, 1024, false, NULL,
     "requests in flight"},
    {"cache", CONFIG_SIZE, offsetof(struct options, cache), "1M", 4096, 0, false, NULL, "memory to use"},
    {"lease", CONFIG_DURATION, offsetof(struct options, lease), "500ms", 0, 0, false, NULL, "how long"},
    {NULL, CONFIG_STRING, 0, NULL, 0, 0, false, NULL, NULL},
};
static const struct config_spec spec = {"cistern-test", "Tests.", options};

static char dir[] = "/tmp/cistern-config-XXXXXX";
static char path[128];
static char said[4096]; /* what went to stdout and stderr */

static int setup(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/file", dir);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static void write_file(const char *text, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

/* Parses up to 7 arguments, keeping what is printed in said. */
static int parse(struct options *o, const char *a, const char *b, const char *c, const char *d, const char *e)
{
    char *argv[] = {(char *)"x", (char *)a, (char *)b, (char *)c, (char *)d, (char *)e, NULL};
    int argc = 1;
    while (argv[argc] != NULL)
        argc++;
    fflush(NULL);
    int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
    FILE *f = tmpfile();
    assert_non_null(f);
    dup2(fileno(f), STDOUT_FILENO);
    dup2(fileno(f), STDERR_FILENO);
    int rc = config_parse(&spec, argc, argv, o);
    fflush(NULL);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(out);
    close(err);
    rewind(f);
    said[fread(said, 1, sizeof said - 1, f)] = '\0';
    fclose(f);
    return rc;
}

static void refused(const char *words, const char *a, const char *b, const char *c, const char *d,
                    const char *e)
{
    struct options o;
    assert_int_equal(parse(&o, a, b, c, d, e), -EINVAL);
    if (strstr(said, words) == NULL)
        fail_msg("\"%s\" is not in: %s", words, said);
    assert_null(o.listen);
    assert_null(o.mdc);
}

static void defaults_and_flags(void **state)
{
    (void)state;
    struct options o;
    assert_int_equal(parse(&o, "--mdc", "a", "--cache=64k", "--mdc=b", "--verbose"), 0);
    assert_string_equal(o.listen, "127.0.0.1:1");
    assert_string_equal(o.mdc, "a,b");
    assert_true(o.verbose);
    assert_int_equal(o.depth, 128);
    assert_int_equal(o.cache, 65536);
    assert_int_equal(o.lease, 500 * NS_PER_MS);
    assert_string_equal(said, "");
    config_free(&spec, &o);
    config_free(&spec, &o);
    assert_int_equal(parse(&o, "--mdc=a=b", "--listen", "--odd", "--verbose=off", NULL), 0);
    assert_string_equal(o.mdc, "a=b");
    assert_string_equal(o.listen, "--odd");
    assert_false(o.verbose);
    config_free(&spec, &o);
}

static void flags_win_over_the_file(void **state)
{
    (void)state;
    struct options o;
    write_file("# a comment\n\n  mdc = one  # behind it\nmdc=two\ndepth =7\nlisten = a#b c\nverbose = yes",
               0600);
    assert_int_equal(parse(&o, "--depth", "9", "--config", path, NULL), 0);
    assert_string_equal(o.mdc, "one,two");
    assert_string_equal(o.listen, "a#b c");
    assert_int_equal(o.depth, 9);
    assert_true(o.verbose);
    config_free(&spec, &o);
    assert_int_equal(parse(&o, "--mdc=three", "--config", path, NULL, NULL), 0);
    assert_string_equal(o.mdc, "three");
    config_free(&spec, &o);
}

static void clear_refusals(void **state)
{
    (void)state;
    refused("--mdc is required", NULL, NULL, NULL, NULL, NULL);
    refused("--mdc is required", "--mdc=", NULL, NULL, NULL, NULL);
    refused("unknown option --nope", "--mdc=a", "--nope=1", NULL, NULL, NULL);
    refused("unexpected argument \"file\"", "--mdc=a", "file", NULL, NULL, NULL);
    refused("--mdc needs a value", "--mdc", NULL, NULL, NULL, NULL);
    refused("from 1 to 1024", "--mdc=a", "--depth=0", NULL, NULL, NULL);
    refused("from 1 to 1024", "--mdc=a", "--depth=1025", NULL, NULL, NULL);
    refused("\"x\" is not a number", "--mdc=a", "--depth=x", NULL, NULL, NULL);
    refused("at least 4 KiB", "--mdc=a", "--cache=1", NULL, NULL, NULL);
    refused("is not a duration", "--mdc=a", "--lease=5", NULL, NULL, NULL);
    refused("true or false", "--mdc=a", "--verbose=maybe", NULL, NULL, NULL);
    refused("cannot open /nonexistent", "--mdc=a", "--config=/nonexistent", NULL, NULL, NULL);
    write_file("mdc = a\nnope = 1\n", 0600);
    refused("file:2: unknown option \"nope\"", "--config", path, NULL, NULL, NULL);
    write_file("mdc\n", 0600);
    refused("file:1: expected \"name = value\"", "--config", path, NULL, NULL, NULL);
    write_file("mdc = a\ndepth = 5000\n", 0600);
    refused("file:2: depth: \"5000\" is out of range", "--config", path, NULL, NULL, NULL);
}

static void help_names_everything(void **state)
{
    (void)state;
    struct options o;
    assert_int_equal(parse(&o, "--depth=0", "--help", NULL, NULL, NULL), 1);
    for (const struct config_option *p = options; p->name != NULL; p++) {
        assert_non_null(strstr(said, p->name));
        assert_non_null(strstr(said, p->help));
    }
    assert_non_null(strstr(said, "(default 500ms)"));
    assert_non_null(strstr(said, "(required)"));
    assert_int_equal(parse(&o, "--version", NULL, NULL, NULL, NULL), 1);
    assert_string_equal(said, "cistern-test " CISTERN_VERSION "\n");
}

static void sizes_and_durations(void **state)
{
    (void)state;
    uint64_t v = 77;
    assert_int_equal(config_parse_size("4k", &v), 0);
    assert_int_equal(v, 4096);
    assert_int_equal(config_parse_size("3GiB", &v), 0);
    assert_int_equal(v, 3 * GIB);
    assert_int_equal(config_parse_size("18446744073709551615", &v), 0);
    assert_true(v == UINT64_MAX);
    assert_int_equal(config_parse_duration("3m", &v), 0);
    assert_int_equal(v, 180 * NS_PER_S);
    assert_int_equal(config_parse_duration("0", &v), 0);
    assert_int_equal(v, 0);
    v = 77;
    assert_int_equal(config_parse_size("18446744073709551616", &v), -ERANGE);
    assert_int_equal(config_parse_size("16777216T", &v), -ERANGE);
    static const char *const bad[] = {"", "k", "-1", "+1", " 1", "1 k", "1kk", "0x10", "1.5G", "1e3"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(config_parse_size(bad[i], &v), -EINVAL);
        assert_int_equal(config_parse_duration(bad[i], &v), -EINVAL);
        assert_int_equal(config_parse_uint(bad[i], &v), -EINVAL);
    }
    assert_int_equal(v, 77);
    char text[24];
    assert_string_equal(format_size(0, text), "0 B");
    assert_string_equal(format_size(1023, text), "1023 B");
    assert_string_equal(format_size(3 * GIB / 2, text), "1.5 GiB");
    assert_string_equal(format_size(MIB - 1, text), "1023.9 KiB");
    assert_string_equal(format_size(UINT64_MAX, text), "16777215.9 TiB");
    assert_string_equal(format_duration(1200000, text), "1.2ms");
    assert_string_equal(format_duration(999, text), "999ns");
    assert_string_equal(format_duration(5 * NS_PER_S, text), "5s");
}

static char logged[2100];
static enum log_level logged_level;
static void sink(void *arg, enum log_level level, const char *line)
{
    ++*(unsigned *)arg;
    logged_level = level;
    snprintf(logged, sizeof logged, "%s", line);
}

static void secrets(void **state)
{
    (void)state;
    char out[16];
    size_t len = 99;
    unsigned lines = 0;
    log_set_sink(sink, &lines);
    write_file("  \n0123456789abcdef\n\n", 0600);
    assert_int_equal(config_read_secret(path, out, sizeof out, &len), 0);
    assert_int_equal(len, 16);
    assert_memory_equal(out, "0123456789abcdef", 16);
    assert_int_equal(lines, 0);
    write_file("key", 0644);
    assert_int_equal(config_read_secret(path, out, sizeof out, &len), 0);
    assert_int_equal(len, 3);
    assert_int_equal(lines, 1);
    assert_int_equal(logged_level, LOG_WARN_);
    assert_null(strstr(logged, "key "));
    write_file(" \n", 0600);
    assert_int_equal(config_read_secret(path, out, sizeof out, &len), -EINVAL);
    write_file("0123456789abcdefg", 0600);
    assert_int_equal(config_read_secret(path, out, sizeof out, &len), -E2BIG);
    assert_int_equal(config_read_secret("/nonexistent", out, sizeof out, &len), -ENOENT);
    assert_int_equal(len, 3);
    write_file("0123456789abcde\n", 0600);
    assert_int_equal(config_read_secret(path, out, sizeof out, &len), 0);
    len = 3;
    assert_int_equal(config_read_cluster_secret(path, out, sizeof out, &len), -EKEYREJECTED);
    assert_int_equal(len, 3);
    assert_non_null(strstr(config_secret_error(-EKEYREJECTED), "16"));
    write_file("0123456789abcdef", 0600);
    assert_int_equal(config_read_cluster_secret(path, out, sizeof out, &len), 0);
    assert_int_equal(len, 16);
    log_set_sink(NULL, NULL);
}

static void log_lines(void **state)
{
    (void)state;
    unsigned lines = 0;
    struct sim_world *world;
    struct env env = {.name = "osd1"};
    assert_int_equal(sim_world_create(1, &world), 0);
    assert_int_equal(loop_create_sim(world, "osd1", 0, &env.loop), 0);
    sim_world_run_until(world, 62 * NS_PER_S + 7 * NS_PER_MS);
    log_set_sink(sink, &lines);
    log_info(&env, "partition opened", "partition=%u epoch=%d", 12u, 3);
    assert_string_equal(logged,
                        "2026-01-01T00:01:02.007Z INFO osd1 msg=\"partition opened\" partition=12 epoch=3");
    log_info(&env, "nothing more", "");
    assert_non_null(strstr(logged, "msg=\"nothing more\""));
    assert_int_equal(logged[strlen(logged) - 1], '"');
    assert_int_equal(lines, 2);
    log_debug(&env, "dropped", "a=%d", 1);
    assert_int_equal(lines, 2);
    log_error(NULL, "forged", "text=%s", "a\nb\033[0m");
    assert_non_null(strstr(logged, "ERROR - msg=\"forged\" text=a?b?[0m"));
    char big[4096];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    log_warn(&env, "long", "text=%s", big);
    assert_in_range(strlen(logged), 1900, 2047);
    enum log_level level;
    assert_int_equal(log_parse_level("debug", &level), 0);
    assert_int_equal(log_parse_level("loud", &level), -EINVAL);
    log_set_level(level);
    log_debug(&env, "kept", "a=%d", 1);
    assert_int_equal(lines, 5);
    log_set_level(LOG_INFO_);

    struct log_limit limit = {.interval_ns = NS_PER_S};
    assert_true(log_allow(&env, &limit));
    assert_int_equal(limit.suppressed, 0);
    assert_false(log_allow(&env, &limit));
    assert_false(log_allow(&env, &limit));
    sim_world_run_until(world, 64 * NS_PER_S);
    assert_true(log_allow(&env, &limit));
    assert_int_equal(limit.suppressed, 2);
    assert_false(log_allow(&env, &limit));
    assert_int_equal(limit.suppressed, 1);
    log_set_sink(NULL, NULL);
    loop_destroy(env.loop);
    sim_world_destroy(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_flags),  cmocka_unit_test(flags_win_over_the_file),
        cmocka_unit_test(clear_refusals),      cmocka_unit_test(help_names_everything),
        cmocka_unit_test(sizes_and_durations), cmocka_unit_test(secrets),
        cmocka_unit_test(log_lines),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
