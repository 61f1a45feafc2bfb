/* service_main.h: with a real loop, real signals and files in a folder of its own. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/log.h"
#include "common/service_main.h"

struct options {
    struct service_options service;
};
static const struct config_option table[] = {
    SERVICE_OPTIONS(struct options, service),
    {NULL, CONFIG_STRING, 0, NULL, 0, 0, false, NULL, NULL},
};
static const struct config_spec spec = {"cistern-test", "Tests.", table};

static char dir[64], pid_file[128], ready_file[128];
static struct loop *loop;
static struct options opts;
static struct service_main sm;

static void no_log(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/cistern-main-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(pid_file, sizeof pid_file, "%s/pid", dir);
    snprintf(ready_file, sizeof ready_file, "%s/ready", dir);
    char *argv[] = {(char *)"x", (char *)"--pid-file", pid_file, (char *)"--ready-file", ready_file};
    log_set_sink(no_log, NULL);
    if (config_parse(&spec, ARRAY_LEN(argv), argv, &opts) != 0)
        return -1;
    return loop_create_real(NULL, &loop);
}

static int teardown(void **state)
{
    (void)state;
    loop_destroy(loop);
    config_free(&spec, &opts);
    log_set_sink(NULL, NULL);
    unsetenv("NOTIFY_SOCKET");
    return rmdir(dir); /* fails if anything was left behind */
}

static void read_text(const char *path, char *out, size_t room)
{
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    out[fread(out, 1, room - 1, f)] = '\0';
    fclose(f);
}

static void files_and_descriptor(void **state)
{
    (void)state;
    char text[256], expected[64];
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    opts.service.ready_fd = (uint64_t)fds[1];
    FILE *f = fopen(ready_file, "we"); /* of an earlier run */
    assert_non_null(f);
    fclose(f);
    assert_int_equal(service_main_start(&sm, loop, &opts.service), 0);
    assert_int_equal(access(ready_file, F_OK), -1);
    snprintf(expected, sizeof expected, "%ld\n", (long)getpid());
    read_text(pid_file, text, sizeof text);
    assert_string_equal(text, expected);
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(limit.rlim_cur == limit.rlim_max);

    assert_int_equal(service_main_ready(&sm, "listen=tcp:127.0.0.1:7100"), 0);
    read_text(ready_file, text, sizeof text);
    assert_string_equal(text, "ready listen=tcp:127.0.0.1:7100\n");
    ssize_t n = read(fds[0], text, sizeof text);
    assert_int_equal(n, 32);
    assert_memory_equal(text, "ready listen=tcp:127.0.0.1:7100\n", 32);
    assert_int_equal(read(fds[0], text, sizeof text), 0); /* closed */
    close(fds[0]);
    service_main_stopping(&sm);
    service_main_end(&sm);
    assert_int_equal(access(pid_file, F_OK), -1);
    assert_int_equal(access(ready_file, F_OK), -1);
}

static void second_instance_refused(void **state)
{
    (void)state;
    struct service_main second;
    assert_int_equal(service_main_start(&sm, loop, &opts.service), 0);
    assert_int_equal(service_main_start(&second, loop, &opts.service), -EBUSY);
    assert_int_equal(access(pid_file, F_OK), 0);
    service_main_end(&sm);
    /* a file left by a killed process is no obstacle */
    FILE *f = fopen(pid_file, "we");
    assert_non_null(f);
    fputs("12345678901234567890\n", f);
    fclose(f);
    assert_int_equal(service_main_start(&sm, loop, &opts.service), 0);
    char text[64];
    read_text(pid_file, text, sizeof text);
    assert_int_equal(atol(text), getpid());
    service_main_end(&sm);
}

static void signals_stop_the_loop(void **state)
{
    (void)state;
    assert_int_equal(service_main_start(&sm, loop, &opts.service), 0);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    close(fds[0]);
    assert_int_equal(write(fds[1], "x", 1), -1); /* would have ended us */
    assert_int_equal(errno, EPIPE);
    close(fds[1]);
    raise(SIGTERM);
    loop_run(loop);
    service_main_end(&sm);
}

static void second_interrupt_ends(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        if (service_main_start(&sm, loop, &opts.service) != 0)
            _exit(1);
        raise(SIGINT);
        if (!loop_stopping(loop))
            _exit(2);
        raise(SIGINT);
        _exit(3);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 128 + SIGINT);
    assert_int_equal(unlink(pid_file), 0);
}

static void service_manager_is_told(void **state)
{
    (void)state;
    char path[128], text[256];
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(path, sizeof path, "%s/notify", dir);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    setenv("NOTIFY_SOCKET", path, 1);
    assert_int_equal(service_main_start(&sm, loop, &opts.service), 0);
    assert_int_equal(service_main_ready(&sm, ""), 0);
    ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(text, "READY=1\nSTATUS=ready\n");
    service_main_stopping(&sm);
    n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(text, "STOPPING=1\n");
    close(fd);
    unlink(path);
    /* nobody listens: an error that is told, and the ready file all the same */
    assert_int_equal(service_main_ready(&sm, "again"), -ENOENT);
    read_text(ready_file, text, sizeof text);
    assert_string_equal(text, "ready again\n");
    service_main_end(&sm);
}

static void bad_options(void **state)
{
    (void)state;
    free(opts.service.log_level);
    opts.service.log_level = strdup("loud");
    assert_int_equal(service_main_start(&sm, loop, &opts.service), -EINVAL);
    service_main_end(&sm);
    strcpy(opts.service.log_level, "warn");
    free(opts.service.pid_file);
    opts.service.pid_file = strdup("/nonexistent/pid");
    assert_int_equal(service_main_start(&sm, loop, &opts.service), -ENOENT);
    service_main_end(&sm);
    log_set_level(LOG_INFO_);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(files_and_descriptor),  T(second_instance_refused), T(signals_stop_the_loop),
        T(second_interrupt_ends), T(service_manager_is_told), T(bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
