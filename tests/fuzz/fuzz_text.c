/*
 * fuzz_text.c: what people and other programs write: addresses, names of hosts, LUNs, numbers with units,
 * configuration files, lines of metrics. First byte: which; the rest: the text. What is accepted must come
 * back from its own written form.
 */
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/resolve.h"
#include "common/rng.h"
#include "common/wire/mdc_proto.h"
#include "rdma/fabric_target.h"
#include "services/san/device_iscsi.h"
#include "services/vbs/addr_list.h"

/* ---- addresses ---- */
static void on_addr(char *text)
{
    struct fabric_addr a, again;
    char out[64];
    if (fabric_addr_parse(text, &a) != 0)
        return;
    MUST(fabric_addr_parse(fabric_addr_format(&a, out), &again) == 0 && fabric_addr_eq(&a, &again));
}

static void on_target(char *text)
{
    struct fabric_addr a, again;
    char host[RESOLVE_HOST_BYTES], host_again[RESOLVE_HOST_BYTES], out[FABRIC_TARGET_BYTES];
    if (fabric_target_parse(text, &a, host) != 0)
        return;
    MUST(host[0] == 0 || resolve_name_valid(host));
    MUST(fabric_target_parse(fabric_target_format(&a, host, out), &again, host_again) == 0);
    MUST(fabric_addr_eq(&a, &again) && strcmp(host, host_again) == 0);
}

static void on_listen(char *text)
{
    struct fabric_addr a;
    const int rc = fabric_listen_parse(text, &a);
    MUST(rc == 0 || rc == -EINVAL || rc == -EADDRNOTAVAIL);
    MUST(rc == 0 || fabric_listen_error(rc)[0] != 0);
}

static void on_list(char *text)
{
    struct fabric_addr a[3];
    char hosts[3][RESOLVE_HOST_BYTES];
    unsigned count = 0;
    const int rc = addr_list_parse(text, a, hosts, 3, &count);
    MUST(rc == 0 || rc == -EINVAL || rc == -E2BIG);
    for (unsigned i = 0; rc == 0 && i < count; i++)
        MUST(a[i].provider == a[0].provider && strlen(hosts[i]) < RESOLVE_HOST_BYTES);
}

static void on_lun(char *text)
{
    struct iscsi_lun_url u;
    const char *why = NULL;
    const int rc = iscsi_url_parse(text, &u, &why);
    MUST(rc == 0 || (why != NULL && why[0] != 0));
    if (rc == 0)
        MUST(u.portal[0] != 0 && u.target[0] != 0 && u.lun >= 0);
}

/* ---- numbers and names ---- */
static void on_number(char *text)
{
    uint64_t v = 0;
    char out[24];
    struct uuid id;
    char hex[33];
    enum log_level level;
    if (config_parse_size(text, &v) == 0)
        MUST(strlen(format_size(v, out)) < sizeof(out));
    if (config_parse_duration(text, &v) == 0)
        MUST(strlen(format_duration(v, out)) < sizeof(out));
    (void)config_parse_uint(text, &v);
    (void)log_parse_level(text, &level);
    if (uuid_parse(text, &id) == 0) {
        struct uuid again;
        uuid_format(&id, hex);
        MUST(uuid_parse(hex, &again) == 0 && uuid_eq(&id, &again));
    }
}

static void on_name(char *text)
{
    const bool dots = resolve_name_valid(text);
    MUST(!dots || (text[0] != 0 && text[0] != '.'));
    MUST(!mdc_name_valid(text) || (strlen(text) < MDC_NAME_MAX && host_id_from_name(text) != 0));
}

static void on_metric(char *text)
{
    struct metric_line line;
    char value[32];
    if (!metrics_line_parse(text, &line))
        return;
    MUST(line.name != NULL && line.labels != NULL);
    if (metrics_label_get(line.labels, "pool", value, sizeof(value)))
        MUST(strlen(value) < sizeof(value));
    (void)metrics_label_get(line.labels, "", value, sizeof(value));
}

/* ---- configuration ---- */
struct options {
    char *listen, *mdc;
    bool fast;
    uint64_t count, size, time;
};
#define FIELD(name) offsetof(struct options, name)
static const struct config_option options[] = {
    {.name = "listen", .kind = CONFIG_STRING, .offset = FIELD(listen), .def = "tcp:0.0.0.0:1", .help = "x"},
    {.name = "mdc", .kind = CONFIG_STRING, .offset = FIELD(mdc), .help = "x", .required = true},
    {.name = "fast", .kind = CONFIG_BOOL, .offset = FIELD(fast), .help = "x"},
    {.name = "count",
     .kind = CONFIG_UINT,
     .offset = FIELD(count),
     .min = 1,
     .max = 9,
     .def = "4",
     .help = "x"},
    {.name = "size", .kind = CONFIG_SIZE, .offset = FIELD(size), .def = "1M", .help = "x"},
    {.name = "time",
     .kind = CONFIG_DURATION,
     .offset = FIELD(time),
     .def = "1s",
     .max = 1u << 30,
     .help = "x"},
    {.name = NULL},
};
static const struct config_spec spec = {.program = "fuzz", .summary = "x", .options = options};

/* Its messages go nowhere meanwhile. */
static void on_config(char *text)
{
    static int null_fd = -1;
    struct options o = {.listen = NULL};
    char path[64], program[] = "fuzz", flag[] = "--config";
    char *argv[] = {program, flag, path, NULL};
    if (null_fd < 0)
        null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    const int fd = memfd_create("config", MFD_CLOEXEC), out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
    MUST(null_fd >= 0 && fd >= 0 && out >= 0 && err >= 0);
    MUST(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    fflush(stdout);
    dup2(null_fd, STDOUT_FILENO);
    dup2(null_fd, STDERR_FILENO);
    const int rc = config_parse(&spec, 3, argv, &o);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(out);
    close(err);
    close(fd);
    MUST(rc == 0 || rc == 1 || rc == -EINVAL);
    if (rc == 0) {
        MUST(o.mdc != NULL && o.mdc[0] != 0 && o.listen != NULL);
        MUST(o.count >= 1 && o.count <= 9 && o.time <= 1u << 30);
        config_free(&spec, &o);
    }
}

static void (*const readers[])(char *text) = {
    on_addr, on_target, on_listen, on_list, on_lun, on_number, on_name, on_metric, on_config,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 64 * KIB)
        return 0;
    char *text = malloc(size);
    MUST(text != NULL);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    readers[data[0] % ARRAY_LEN(readers)](text);
    free(text);
    return 0;
}

size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    static const char *const texts[ARRAY_LEN(readers)][4] = {
        {"tcp:127.0.0.1:7100", "tcp:[fe80::1]:9", "rdma:10.0.0.1:65535", "sim:3:7100"},
        {"tcp:cistern-mdc.store.svc:7100", "rdma:node-1:1", "tcp:[::1]:7", "rdma:a_b.c:7100"},
        {"tcp:127.0.0.0/8:0", "tcp:[::1/128]:0", "rdma:10.10.0.0/16:7", "tcp:0.0.0.0/0:0"},
        {"tcp:1.2.3.4:5,tcp:h:6", " tcp:a:1 , tcp:b:2,tcp:c:3", "rdma:[::1]:1", "tcp:1.2.3.4:5,rdma:h:6,,"},
        {"iscsi://10.0.0.1/iqn.2026-01.x:t/0", "iscsi://user@[::1]:3261/iqn.x/255", "iscsi://host:1/t/1",
         "iscsi://a%b@h/t/0"},
        {"128KiB", "1.5G", "250ms", "01234567-89ab-cdef-0123-456789abcdef"},
        {"node-1.example.org", "a..b", "10.0.0.1", "-x"},
        {"cistern_x{pool=\"a\\\"b\",m=\"1\"} c 17", "x{} h 3 4 5 6",
         "y{pool=\"\\\\\"} c 18446744073709551615", "z{pool=\"\n"},
        {"mdc = tcp:1.2.3.4:5\nfast\ncount = 3 # x\n", "[a]\nmdc=x\nsize=1.5G\ntime = 3s\n",
         "mdc = a\nmdc = b\n", "mdc = \"x y\"\r\nfast = no\n"},
    };
    struct rng r;
    rng_seed(&r, seed);
    out[0] = (uint8_t)rng_below(&r, ARRAY_LEN(readers));
    const char *text = texts[out[0]][rng_below(&r, 4)];
    const size_t len = min_u64(strlen(text), cap - 1);
    memcpy(out + 1, text, len);
    return 1 + len;
}
