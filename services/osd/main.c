/* main.c: cistern-osd: one disk or file of a server node as a module. When the disk fails the process stays
 * up and tries to open it again. */
#include "common/log.h"
#include "common/metrics_http.h"
#include "common/resolve.h"
#include "common/rng.h"
#include "common/service_main.h"
#include "common/trace.h"
#include "services/rwm/rwm_metrics.h"
#include "services/rwm/rwm_options.h"
#include "services/rwm/rwm_runner.h"
#include "services/rwm/store_check_tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct options {
    struct service_options service;
    struct rwm_options rwm;
    struct store_tool_options tool;
    char *data, *journal, *media;
    uint64_t data_size, journal_size, spin_ns;
    bool create;
};
/* clang-format off */
#define AT(field) offsetof(struct options, field)
static const struct config_option option_table[] = {
    {"data", CONFIG_STRING, AT(data), NULL, 0, 0, true, "PATH", "disk or file that holds the data"},
    {"create", CONFIG_BOOL, AT(create), NULL, 0, 0, false, "BOOL", "make the data file (and the journal file) when it is not there: for the first start only"},
    {"data-size", CONFIG_SIZE, AT(data_size), NULL, 0, 0, false, "BYTES", "size of a data file that is made"},
    {"journal", CONFIG_STRING, AT(journal), NULL, 0, 0, false, "PATH", "journal on a medium of its own: pmem, a DAX file, a file or a disk (default: on the data medium)"},
    {"journal-size", CONFIG_SIZE, AT(journal_size), "1G", 8 * MIB, 0, false, "BYTES", "size of a journal file that is made; as much memory is used for what was not written back yet"},
    {"media", CONFIG_STRING, AT(media), "auto", 0, 0, false, "KIND", "ssd, hdd, pmem, or auto: by what the system says of the disk"},
    {"spin", CONFIG_DURATION, AT(spin_ns), "0us", 0, NS_PER_S, false, "TIME", "poll so long after the last event before sleeping"},
    STORE_CHECK_OPTIONS(struct options, tool),
    STORE_REPAIR_OPTIONS(struct options, tool),
    RWM_OPTIONS(struct options, rwm),
    SERVICE_OPTIONS(struct options, service),
    {.name = NULL},
};
/* clang-format on */
static struct config_option check_table[ARRAY_LEN(option_table)]; /* the same, and only --data is required */
static struct config_spec spec = {
    .program = "cistern-osd",
    .summary = "An object storage delegate: serves one disk (or file) of this host to a Cistern cluster.",
    .options = option_table,
};

struct process {
    const struct options *options;
    struct loop *loop;
    struct rng rng;
    struct trace *trace;
    struct env env;
    struct service_main sm;
    struct rwm_host *host;
    struct rwm_runner *runner;
    struct metrics_http *metrics;
    bool ready, stopped;
    char error[400];
};

/* ---- media ---- */
static int open_journal(struct process *p, struct device **out)
{
    const struct options *o = p->options;
    struct device_open_options open = {
        .create = o->create, .preallocate = true, .create_size = o->create ? o->journal_size : 0};
    struct stat st;
    if (stat(o->journal, &st) == 0 && S_ISBLK(st.st_mode)) {
        open.create = false;
        int rc = device_open_file(&p->env, o->journal, &open, out);
        if (rc == 0)
            log_warn(
                &p->env,
                "journal medium is a disk, each write waits for it; persistent memory takes a file system and mount -o dax",
                "device=%s bytes=%llu", o->journal, (unsigned long long)(*out)->size);
        return rc;
    }
    return device_open_pmem(&p->env, o->journal, &open, out);
}

static void media_open(void *user, struct rwm_runner *r)
{
    struct process *p = user;
    const struct options *o = p->options;
    struct device *data = NULL, *journal = NULL;
    struct device_open_options open = {.create = o->create, .create_size = o->create ? o->data_size : 0};
    int rc = device_open_file(&p->env, o->data, &open, &data);
    if (rc)
        snprintf(p->error, sizeof(p->error), "cannot open the data medium %s: %s%s", o->data, strerror(-rc),
                 rc == -EBUSY    ? "; another process has it, or it is mounted"
                 : rc == -ENOENT ? "; --create and --data-size make it"
                                 : "");
    if (rc == 0 && o->journal && o->journal[0]) {
        rc = open_journal(p, &journal);
        if (rc) {
            snprintf(p->error, sizeof(p->error), "cannot open the journal medium %s: %s", o->journal,
                     strerror(-rc));
            device_destroy(data);
        }
    }
    rwm_runner_opened(r, rc, data, journal, p->error);
}

static void media_give_up(void *user)
{
    (void)user; /* media_open ends before it returns */
}

static const struct rwm_media media = {.open = media_open, .give_up = media_give_up};

/* ---- the process ---- */
static void serving(void *user)
{
    struct process *p = user;
    struct fabric_addr addr;
    char text[64], line[128];
    if (p->ready)
        return;
    p->ready = true;
    rwm_host_addr(p->host, &addr);
    snprintf(line, sizeof(line), "listen=%s", fabric_addr_format(&addr, text));
    (void)service_main_ready(&p->sm, line); /* it logged what went wrong; serving goes on */
}

static int take_media(struct process *p, struct rwm_runner_config *config)
{
    static const char *const names[] = {
        [TABLE_MEDIA_SSD] = "ssd", [TABLE_MEDIA_HDD] = "hdd", [TABLE_MEDIA_PMEM] = "pmem"};
    const char *text = p->options->media;
    config->media_auto = strcmp(text, "auto") == 0;
    for (unsigned i = TABLE_MEDIA_SSD; i < ARRAY_LEN(names); i++)
        if (strcmp(text, names[i]) == 0)
            config->rwm.media = (enum table_media)i;
    if (config->media_auto || config->rwm.media)
        return 0;
    log_error(&p->env, "cannot start: the kind of media is not one of ssd, hdd, pmem, auto", "media=%s",
              text);
    return -EINVAL;
}

static void collect(void *user, struct metrics_snapshot *out)
{
    struct process *p = user;
    rwm_runner_metrics(p->runner, out);
    rwm_host_collect(p->host, out);
}

static int start_metrics(struct process *p)
{
    const struct metrics_http_config config = {
        .addr = p->options->service.metrics, .service = "cistern-osd", .collect = collect, .user = p};
    return config.addr && config.addr[0] ? metrics_http_start(&p->env, &config, &p->metrics) : 0;
}

static int start(struct process *p)
{
    const struct options *o = p->options;
    struct rwm_runner_config config = {
        .rwm = {.kind = TABLE_MODULE_OSD}, .format = o->rwm.format, .label = o->data, .serving = serving};
    if (o->create && o->data_size == 0) {
        struct stat st;
        if (stat(o->data, &st)) {
            log_error(&p->env, "cannot start: --create needs --data-size to make a file", "data=%s", o->data);
            return -EINVAL;
        }
    }
    int rc = take_media(p, &config);
    if (rc == 0)
        rc = rwm_options_config(&p->env, &o->rwm, "osd", &config.rwm);
    if (rc == 0)
        rc = rwm_options_fabric(&p->env, &o->rwm);
    if (rc == 0)
        rc = rwm_options_host(&p->env, &o->rwm, &p->host);
    if (rc == 0)
        rc = rwm_runner_create(&p->env, p->host, &config, &media, p, &p->runner);
    if (rc == 0)
        rc = start_metrics(p);
    return rc;
}

static void stopped(void *arg)
{
    ((struct process *)arg)->stopped = true;
}

/* Writes back, for a while: what is not done then is in the journal. */
static void shut(struct process *p)
{
    uint64_t end = loop_now_ns(p->loop) + 10 * NS_PER_S;
    service_main_stopping(&p->sm);
    rwm_runner_shutdown(p->runner, stopped, p);
    while (!p->stopped && loop_now_ns(p->loop) < end)
        loop_run_once(p->loop, 100 * NS_PER_MS);
}

static void end(struct process *p)
{
    metrics_http_stop(p->metrics);
    if (p->runner)
        rwm_runner_destroy(p->runner);
    if (p->host)
        rwm_host_destroy(p->host);
    if (p->env.fabric)
        fabric_destroy(p->env.fabric);
    trace_set_current(NULL);
    trace_destroy(p->trace);
}

static int run(const struct options *o)
{
    struct process p = {.options = o};
    struct loop_options loop_options = {.spin_ns = o->spin_ns};
    int rc = loop_create_real(&loop_options, &p.loop);
    if (rc)
        return rc;
    rng_init_system(&p.rng);
    if (trace_create(4096, &p.trace) == 0)
        trace_set_current(p.trace);
    p.env = (struct env){.loop = p.loop,
                         .rng = &p.rng,
                         .trace = p.trace,
                         .resolver = &resolve_system,
                         .name = o->rwm.name && o->rwm.name[0] ? o->rwm.name : "osd"};
    rc = service_main_start(&p.sm, p.loop, &o->service);
    if (rc == 0)
        rc = start(&p);
    if (rc == 0) {
        loop_run(p.loop);
        shut(&p);
    }
    end(&p);
    service_main_end(&p.sm);
    loop_destroy(p.loop);
    return rc;
}

/* ---- --check, --repair-metadata ---- */
static int check_media(struct env *env, const struct options *o)
{
    /* The journal is read as a file: what is on pmem needs no mapping for that. */
    struct device_open_options open = {.read_only = store_tool_read_only(&o->tool)};
    bool has_journal = o->journal && o->journal[0];
    struct device *data = NULL, *journal = NULL;
    char command[1024];
    int rc = device_open_file(env, o->data, &open, &data);
    if (rc)
        return store_tool_failed(&o->tool, o->data, rc);
    if (has_journal) {
        rc = device_open_file(env, o->journal, &open, &journal);
        if (rc) {
            device_destroy(data);
            return store_tool_failed(&o->tool, o->journal, rc);
        }
    }
    snprintf(command, sizeof(command), "cistern-osd --data %s%s%s", o->data, has_journal ? " --journal " : "",
             has_journal ? o->journal : "");
    rc = store_tool_run(env, &o->tool, command, true, data, journal);
    device_destroy(data);
    if (journal)
        device_destroy(journal);
    return rc;
}

static int check(const struct options *o)
{
    struct rng rng;
    struct env env = {.rng = &rng, .name = "check"};
    store_tool_log(o->service.log_level);
    rng_init_system(&rng);
    int rc = loop_create_real(NULL, &env.loop);
    if (rc)
        return store_tool_failed(&o->tool, o->data, rc);
    rc = check_media(&env, o);
    loop_destroy(env.loop);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o;
    memset(&o, 0, sizeof(o));
    bool tool = store_tool_wanted(argc, argv);
    if (tool) {
        store_tool_table(option_table, ARRAY_LEN(option_table) - 1, "data", check_table);
        spec.options = check_table;
    }
    int rc = config_parse(&spec, argc, argv, &o);
    if (rc)
        return rc == 1 ? 0 : 2;
    if (store_tool_sane(&o.tool)) {
        config_free(&spec, &o);
        return 2;
    }
    tool = o.tool.check || o.tool.repair;
    if (!tool &&
        spec.options == check_table) { /* --check=false: what a service needs is required after all */
        config_free(&spec, &o);
        spec.options = option_table;
        if (config_parse(&spec, argc, argv, &o))
            return 2;
    }
    rc = tool ? check(&o) : run(&o) ? 1 : 0;
    config_free(&spec, &o);
    return rc;
}
