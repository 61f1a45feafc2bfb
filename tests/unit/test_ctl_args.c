/* test_ctl_args.c: what a command line of `cistern` means, what is refused, and that help and completion know
 * all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "services/ctl/ctl.h"

/* Parses "cistern" and words; messages go to text. */
static int parse(struct ctl_line *line, char *text, size_t room, const char *words)
{
    static char copy[512];
    char *argv[32] = {(char *)"cistern"};
    int argc = 1;
    snprintf(copy, sizeof(copy), "%s", words);
    for (char *save, *w = strtok_r(copy, " ", &save); w != NULL; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    FILE *f = tmpfile();
    assert_non_null(f);
    fflush(stderr);
    fflush(stdout);
    const int err = dup(STDERR_FILENO), out = dup(STDOUT_FILENO);
    dup2(fileno(f), STDERR_FILENO);
    dup2(fileno(f), STDOUT_FILENO);
    const int rc = ctl_line_parse(line, argc, argv);
    fflush(stderr);
    fflush(stdout);
    dup2(err, STDERR_FILENO);
    dup2(out, STDOUT_FILENO);
    close(err);
    close(out);
    rewind(f);
    text[fread(text, 1, room - 1, f)] = '\0';
    fclose(f);
    return rc;
}

static void assert_accepted(struct ctl_line *line, const char *words)
{
    char text[4096];
    const int rc = parse(line, text, sizeof(text), words);
    if (rc != 0)
        fail_msg("'%s': %d, %s", words, rc, text);
    assert_string_equal(text, "");
}

static void assert_refused(const char *words, const char *because)
{
    struct ctl_line line;
    char text[4096];
    const int rc = parse(&line, text, sizeof(text), words);
    if (rc != -EINVAL || strstr(text, because) == NULL || strncmp(text, "cistern: ", 9) != 0)
        fail_msg("'%s': %d, %s", words, rc, text);
}

static int no_config(void **state)
{
    (void)state;
    return setenv("CISTERN_CONFIG", "/dev/null", 1);
}

static void words_and_options_in_any_order(void **state)
{
    static const char *const lines[] = {
        "volume create data 1G --pool fast --json --mdc tcp:127.0.0.1:1 --timeout 2s",
        "--json --timeout 2s --mdc tcp:127.0.0.1:1 volume create --pool fast data 1G",
        "--timeout=2s volume --mdc=tcp:127.0.0.1:1 create data --json=true --pool=fast 1G",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct ctl_line line;
        assert_accepted(&line, lines[i]);
        assert_string_equal(line.command->group, "volume");
        assert_string_equal(line.command->name, "create");
        assert_int_equal(line.arg_count, 2);
        assert_string_equal(line.args[0], "data");
        assert_string_equal(line.args[1], "1G");
        assert_string_equal(line.options.pool, "fast");
        assert_string_equal(line.options.mdc, "tcp:127.0.0.1:1");
        assert_true(line.options.json);
        assert_int_equal(line.options.timeout_ns, 2 * NS_PER_S);
        ctl_line_free(&line);
    }
}

static void defaults_are_those_of_the_table(void **state)
{
    struct ctl_line line;
    (void)state;
    assert_accepted(&line, "bench data");
    const struct ctl_options *o = &line.options;
    assert_int_equal(o->timeout_ns, 10 * NS_PER_S);
    assert_int_equal(o->bench.io_bytes, 4096);
    assert_int_equal(o->bench.depth, 1);
    assert_int_equal(o->bench.runtime_ns, 10 * NS_PER_S);
    assert_int_equal(o->bench.warmup_ns, NS_PER_S);
    assert_int_equal(o->bench.seed, 1);
    assert_false(o->json || o->bench.write || o->bench.verify || o->shared || o->via_gateway);
    assert_null(o->mdc);
    ctl_line_free(&line);
}

static void two_dashes_end_the_options(void **state)
{
    struct ctl_line line;
    (void)state;
    assert_accepted(&line, "volume create -- --pool 1G");
    assert_string_equal(line.args[0], "--pool");
    assert_null(line.options.pool);
    ctl_line_free(&line);
}

static void short_forms_are_the_same_commands(void **state)
{
    struct ctl_line line, full;
    (void)state;
    assert_accepted(&line, "detach data host");
    assert_accepted(&full, "volume detach data host");
    assert_ptr_equal(line.command->run, full.command->run);
    ctl_line_free(&line);
    ctl_line_free(&full);
    assert_accepted(&line, "attach data host --read-only --shared");
    assert_true(line.options.read_only && line.options.shared);
    ctl_line_free(&line);
}

static void ping_has_its_short_options(void **state)
{
    struct ctl_line line;
    (void)state;
    assert_accepted(&line, "fabric ping tcp:127.0.0.1:1 -c 5 -i 100ms");
    assert_int_equal(line.options.fabric.count, 5);
    assert_int_equal(line.options.fabric.interval_ns, 100 * NS_PER_MS);
    assert_int_equal(line.options.fabric.size_bytes, 64);
    ctl_line_free(&line);
}

static void a_last_argument_may_be_optional(void **state)
{
    struct ctl_line line;
    (void)state;
    assert_accepted(&line, "fabric bench --listen tcp:127.0.0.1:0");
    assert_null(line.args[0]);
    assert_string_equal(line.options.fabric.listen, "tcp:127.0.0.1:0");
    ctl_line_free(&line);
    assert_accepted(&line, "fabric bench tcp:127.0.0.1:1 --depth 4");
    assert_string_equal(line.args[0], "tcp:127.0.0.1:1");
    assert_null(line.options.fabric.listen);
    ctl_line_free(&line);
}

static void wrong_lines_are_refused(void **state)
{
    (void)state;
    assert_refused("", "which command");
    assert_refused("frobnicate", "no command \"frobnicate\"");
    assert_refused("volume", "needs one of these");
    assert_refused("volume frobnicate", "no command \"volume frobnicate\"");
    assert_refused("volume create data", "volume create NAME SIZE");
    assert_refused("volume create data 1G more", "unexpected argument \"more\"");
    assert_refused("status now", "unexpected argument \"now\"");
    assert_refused("status --pool fast", "unknown option --pool");
    assert_refused("--size 4k bench data", "--size belongs behind");
    assert_refused("status --frobnicate", "unknown option --frobnicate");
    assert_refused("status -x", "unknown option -x");
    assert_refused("status --timeout soon", "is not a duration");
    assert_refused("status --mdc", "needs a value");
    assert_refused("bench data --depth 0", "out of range");
    assert_refused("bench data --depth 129", "out of range");
    assert_refused("bench data --size 2M", "out of range");
    assert_refused("bench data --mix 100", "out of range");
    assert_refused("fabric ping", "fabric ping ADDRESS");
    assert_refused("fabric ping a b", "unexpected argument \"b\"");
    assert_refused("fabric bench a b", "unexpected argument \"b\"");
    assert_refused("fabric bench a -c 3", "unknown option -c");
    assert_refused("fabric ping a --size 1M", "out of range");
    assert_refused("status --config /nonexistent/client.conf", "cannot open");
}

static void the_file_gives_what_flags_do_not(void **state)
{
    struct ctl_line line;
    char path[] = "/tmp/cistern-test-XXXXXX", words[200];
    const int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0);
    static const char text[] =
        "mdc = tcp:127.0.0.1:1\ngateway = tcp:127.0.0.1:2\nsecret-file = /s\nhost = h1\n";
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    close(fd);
    setenv("CISTERN_CONFIG", path, 1);
    assert_accepted(&line, "status --host h2");
    assert_string_equal(line.options.mdc, "tcp:127.0.0.1:1");
    assert_string_equal(line.options.secret_file, "/s");
    assert_string_equal(line.options.host, "h2");
    assert_false(line.options.via_gateway);
    ctl_line_free(&line);
    assert_accepted(&line, "bench v --gateway tcp:127.0.0.1:3");
    assert_true(line.options.via_gateway);
    assert_string_equal(line.options.gateway, "tcp:127.0.0.1:3");
    ctl_line_free(&line);
    setenv("CISTERN_CONFIG", "/dev/null", 1);
    snprintf(words, sizeof(words), "--config %s status", path);
    assert_accepted(&line, words);
    assert_string_equal(line.options.host, "h1");
    ctl_line_free(&line);
    unlink(path);
}

static void only_a_gateway_means_through_it(void **state)
{
    struct ctl_line line;
    (void)state;
    assert_accepted(&line, "bench v --gateway tcp:127.0.0.1:3");
    assert_true(line.options.via_gateway);
    ctl_line_free(&line);
    assert_accepted(&line, "bench v --gateway tcp:127.0.0.1:3 --mdc tcp:127.0.0.1:1");
    assert_false(line.options.via_gateway);
    ctl_line_free(&line);
}

static void help_tells_every_command_and_option(void **state)
{
    struct ctl_line line;
    char text[16384], words[100];
    (void)state;
    assert_int_equal(parse(&line, text, sizeof(text), "--help"), 1);
    for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++) {
        char one[8192];
        assert_non_null(strstr(text, c->help));
        snprintf(words, sizeof(words), "%s %s --help", c->group != NULL ? c->group : "", c->name);
        assert_int_equal(parse(&line, one, sizeof(one), words), 1);
        for (const struct config_option *o = c->options; o != NULL && o->name != NULL; o++)
            assert_non_null(strstr(one, o->name));
        assert_non_null(strstr(one, "--secret-file"));
    }
    assert_int_equal(parse(&line, text, sizeof(text), "volume -h"), 1);
    assert_non_null(strstr(text, "volume resize"));
    assert_null(strstr(text, "pool create"));
    assert_int_equal(parse(&line, text, sizeof(text), "--version"), 1);
    assert_string_equal(text, "cistern " CISTERN_VERSION "\n");
}

/* What bash would offer for the words, the last of which is being typed. */
static void assert_completes(const char *script, const char *words, int count, const char *expected)
{
    char command[300], text[2000];
    snprintf(
        command, sizeof(command),
        "bash -c '. %s; COMP_WORDS=(cistern %s); COMP_CWORD=%d; _cistern; echo \"${COMPREPLY[*]}\"' 2>&1",
        script, words, count);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    text[fread(text, 1, sizeof(text) - 1, p)] = '\0';
    assert_int_equal(pclose(p), 0);
    text[strcspn(text, "\n")] = '\0';
    assert_string_equal(text, expected);
}

static void completion_works_in_bash(void **state)
{
    char path[] = "/tmp/cistern-test-XXXXXX";
    const int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    assert_non_null(f);
    ctl_completion_print(f);
    fclose(f);
    if (system("command -v bash >/dev/null") == 0) {
        assert_completes(path, "vol", 1, "volume");
        assert_completes(path, "volume re", 2, "resize");
        assert_completes(path, "--mdc volume volume cr", 4, "create");
        assert_completes(path, "bench data --ru", 3, "--runtime");
        assert_completes(path, "volume resize --al", 3, "--allow-shrink");
        assert_completes(path, "status --al", 2, "");
        assert_completes(path, "completion \"\"", 2, "bash");
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_and_options_in_any_order),
        cmocka_unit_test(defaults_are_those_of_the_table),
        cmocka_unit_test(two_dashes_end_the_options),
        cmocka_unit_test(short_forms_are_the_same_commands),
        cmocka_unit_test(ping_has_its_short_options),
        cmocka_unit_test(a_last_argument_may_be_optional),
        cmocka_unit_test(wrong_lines_are_refused),
        cmocka_unit_test(the_file_gives_what_flags_do_not),
        cmocka_unit_test(only_a_gateway_means_through_it),
        cmocka_unit_test(help_tells_every_command_and_option),
        cmocka_unit_test(completion_works_in_bash),
    };
    return cmocka_run_group_tests(tests, no_config, NULL);
}
