/* main.c: cistern-osd: one disk or file of a server node as a module. When the disk fails the process stays
 * up and tries to open it again. */
#include "common/log.h"
#include "common/metrics_http.h"
#include "services/rwm/rwm_metrics.h"
#include "services/rwm/rwm_options.h"
#include "services/rwm/rwm_process.h"
#include "services/rwm/rwm_runner.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    struct service_options service;
    struct rwm_options rwm;
    struct store_tool_options tool;
    char *data, *journal, *media;
    uint64_t data_size, journal_size, spin_ns, device_timeout_ns;
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
    {"device-timeout", CONFIG_DURATION, AT(device_timeout_ns), "30s", 0, 86400 * NS_PER_S, false, "TIME", "end this process when its disk has not answered a request for so long, that others serve instead; 0: never"},
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
    struct rwm_process base;
    const struct options *options;
    struct rwm_runner *runner;
    struct metrics_http *metrics;
    char error[400];
};

/* ---- media ---- */

/*
 * A disk that answers nothing, no error either. Its requests cannot be taken back: the kernel has their
 * buffers, so nothing of this process can be freed and begun anew. It ends, as if it had been killed. The
 * descriptors go first, since the kernel lets a process go only after its requests: nobody is to wait for its
 * connections meanwhile.
 */
static void medium_changed(struct device *medium, void *arg)
{
    struct process *p = arg;
    if (medium->link_state != DEVICE_LINK_STUCK)
        return;
    log_error(
        &p->base.env,
        "the disk does not answer, this process ends: check the disk, and start it again when it answers",
        "device=%s device_timeout_ms=%lu", medium->name,
        (unsigned long)(p->options->device_timeout_ns / NS_PER_MS));
    (void)close_range(STDERR_FILENO + 1, UINT_MAX, 0);
    _exit(1);
}

static void watch(struct process *p, struct device *medium)
{
    medium->changed = medium_changed;
    medium->changed_arg = p;
}

static int open_journal(struct process *p, struct device **out)
{
    const struct options *o = p->options;
    struct device_open_options open = {.create = o->create,
                                       .preallocate = true,
                                       .create_size = o->create ? o->journal_size : 0,
                                       .timeout_ns = o->device_timeout_ns};
    struct stat st;
    if (stat(o->journal, &st) == 0 && S_ISBLK(st.st_mode)) {
        open.create = false;
        int rc = device_open_file(&p->base.env, o->journal, &open, out);
        if (rc == 0)
            log_warn(
                &p->base.env,
                "journal medium is a disk, each write waits for it; persistent memory takes a file system and mount -o dax",
                "device=%s bytes=%llu", o->journal, (unsigned long long)(*out)->size);
        return rc;
    }
    return device_open_pmem(&p->base.env, o->journal, &open, out);
}

static void media_open(void *user, struct rwm_runner *r)
{
    struct process *p = user;
    const struct options *o = p->options;
    struct device *data = NULL, *journal = NULL;
    struct device_open_options open = {
        .create = o->create, .create_size = o->create ? o->data_size : 0, .timeout_ns = o->device_timeout_ns};
    int rc = device_open_file(&p->base.env, o->data, &open, &data);
    if (rc)
        snprintf(p->error, sizeof(p->error), "cannot open the data medium %s: %s%s", o->data, strerror(-rc),
                 rc == -EBUSY ? "; another process has it, or it is mounted"
                 : rc == -ENOENT
                     ? "; is its file system mounted? Only for a new module: --create and --data-size"
                     : "");
    if (rc == 0 && o->journal && o->journal[0]) {
        rc = open_journal(p, &journal);
        if (rc) {
            snprintf(p->error, sizeof(p->error), "cannot open the journal medium %s: %s", o->journal,
                     strerror(-rc));
            device_destroy(data);
        }
    }
    if (rc == 0)
        watch(p, data);
    if (rc == 0 && journal)
        watch(p, journal);
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
    rwm_process_ready(&((struct process *)user)->base);
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
    log_error(&p->base.env, "cannot start: the kind of media is not one of ssd, hdd, pmem, auto", "media=%s",
              text);
    return -EINVAL;
}

static void collect(void *user, struct metrics_snapshot *out)
{
    struct process *p = user;
    rwm_runner_metrics(p->runner, out);
    rwm_host_collect(p->base.host, out);
}

static int start_metrics(struct process *p)
{
    const struct metrics_http_config config = {
        .addr = p->options->service.metrics, .service = "cistern-osd", .collect = collect, .user = p};
    return config.addr && config.addr[0] ? metrics_http_start(&p->base.env, &config, &p->metrics) : 0;
}

static int start(struct rwm_process *base)
{
    struct process *p = container_of(base, struct process, base);
    const struct options *o = p->options;
    struct rwm_runner_config config = {
        .rwm = {.kind = TABLE_MODULE_OSD}, .format = o->rwm.format, .label = o->data, .serving = serving};
    if (o->create && o->data_size == 0) {
        struct stat st;
        if (stat(o->data, &st)) {
            log_error(&p->base.env, "cannot start: --create needs --data-size to make a file", "data=%s",
                      o->data);
            return -EINVAL;
        }
    }
    int rc = take_media(p, &config);
    if (rc == 0)
        rc = rwm_options_config(&p->base.env, &o->rwm, "osd", &config.rwm);
    if (rc == 0)
        rc = rwm_options_fabric(&p->base.env, &o->rwm);
    if (rc == 0)
        rc = rwm_options_host(&p->base.env, &o->rwm, &p->base.host);
    if (rc == 0)
        rc = rwm_runner_create(&p->base.env, p->base.host, &config, &media, p, &p->runner);
    if (rc == 0)
        rc = start_metrics(p);
    return rc;
}

static void shut(struct rwm_process *base)
{
    rwm_process_shut(base, container_of(base, struct process, base)->runner);
}

static void end(struct rwm_process *base)
{
    struct process *p = container_of(base, struct process, base);
    metrics_http_stop(p->metrics);
    if (p->runner)
        rwm_runner_destroy(p->runner);
}

static int run(const void *values)
{
    const struct options *o = values;
    struct process p = {.options = o};
    const struct rwm_process_config config = {.service = &o->service,
                                              .spin_ns = o->spin_ns,
                                              .name = o->rwm.name,
                                              .kind = "osd",
                                              .start = start,
                                              .shut = shut,
                                              .end = end};
    return rwm_process_run(&p.base, &config);
}

/* ---- --check, --repair-metadata ---- */
static int check(struct env *env, const void *values)
{
    const struct options *o = values;
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

int main(int argc, char **argv)
{
    static struct options o;
    const struct rwm_program program = {.spec = &spec,
                                        .options = ARRAY_LEN(option_table),
                                        .check_table = check_table,
                                        .keep = "data",
                                        .values = &o,
                                        .tool = &o.tool,
                                        .log_level = &o.service.log_level,
                                        .medium = &o.data,
                                        .check = check,
                                        .run = run};
    return rwm_program_main(&program, argc, argv);
}
