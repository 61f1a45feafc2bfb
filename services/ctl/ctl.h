/*
 * ctl.h: `cistern`, the operator's command line. Read this first.
 *
 * main.c parses the line (args.c) by the table of commands (commands.c) and runs the command: one file a
 * subject (status.c, nodes.c, modules.c, pools.c, partitions.c, volumes.c, attachments.c, bench.c, top*.c,
 * fabric_*.c). A command calls the metadata controller through ctl_call, which blocks: it steps a loop of its
 * own until the answer is there. What comes out goes through a sheet (sheet.h), as a table or as JSON. Errors
 * are one line on stderr, and the exit status tells which kind.
 */
#ifndef CISTERN_SERVICES_CTL_CTL_H
#define CISTERN_SERVICES_CTL_CTL_H

#include "common/config.h"
#include "common/env.h"
#include "common/rng.h"
#include "common/wire/mdc_proto.h"
#include "services/cluster/cluster.h"
#include "services/ctl/bench.h"
#include "services/ctl/sheet.h"

/* Exit statuses: part of the interface for scripts. Commands return one of them. */
enum ctl_exit {
    CTL_DONE = 0,
    CTL_FAILED = 1,      /* refused, or failed on the way */
    CTL_USAGE = 2,       /* the command line or the configuration is wrong */
    CTL_UNREACHABLE = 3, /* no metadata controller answered; the command may or may not have been done */
};

/* Of the commands `cistern fabric ...`. */
struct fabric_tool_options {
    char *device, *listen;
    uint64_t count, interval_ns, size_bytes;                             /* ping */
    uint64_t depth, large_bytes, rounds, runtime_ns, warmup_ns, spin_ns; /* bench */
};

/* Every option of every command; each command's table says which it takes. */
struct ctl_options {
    /* all commands */
    char *mdc, *gateway, *secret_file, *host;
    uint64_t timeout_ns;
    bool json, verbose;
    bool via_gateway; /* not an option: I/O is to go through gateway, not direct */
    /* some */
    char *pool, *volume, *modules;
    uint64_t copies, min_copies, partitions, stripe_bytes, module;
    bool allow_shrink, force, wait, read_only, shared, undo;
    struct bench_options bench;
    struct fabric_tool_options fabric;
    uint64_t top_interval_ns;
    bool top_once;
};

struct ctl {
    const struct ctl_options *options;
    char host[MDC_NAME_MAX]; /* the option, or gethostname(2) */
    /* after ctl_open */
    struct loop *loop;
    struct rng rng;
    struct env env;
    struct cluster *cluster;
    bool progress_shown; /* a progress line stands on the terminal */
};

#define CTL_ARGS_MAX 4
struct ctl_command {
    const char *group, *name; /* "volume", "create"; group NULL: a command of one word */
    const char *args;         /* for the usage line: "NAME SIZE"; "[NAME]": the last may be left out (NULL) */
    unsigned arg_count;       /* exactly, or one less where the last is optional */
    const char *complete;     /* what its first argument names: "volume", "pool"; NULL = nothing known */
    const char *help;         /* one line */
    const struct config_option *options; /* its own; NULL = none */
    enum ctl_exit (*run)(struct ctl *ctl, char *const *args);
};
/* Ends with an entry whose name is NULL. */
extern const struct ctl_command ctl_commands[];
extern const struct config_option ctl_common_options[];

/* ---- args.c ---- */
struct ctl_line {
    const struct ctl_command *command;
    char *args[CTL_ARGS_MAX]; /* point into argv */
    unsigned arg_count;
    struct ctl_options options;
    struct config_option *table; /* common options, then the command's */
};
/*
 * Reads a command line and the configuration file (--config FILE, else $CISTERN_CONFIG, else
 * /etc/cistern/client.conf if it exists). 0: to be freed with ctl_line_free; 1: help or the version was
 * printed; -EINVAL or -ENOMEM after a message on stderr. I/O goes direct when both mdc and gateway are known,
 * but through the gateway when only that was given by a flag.
 */
int ctl_line_parse(struct ctl_line *line, int argc, char **argv);
void ctl_line_free(struct ctl_line *line);
/* The option of that name (len bytes) that command (may be NULL) takes, or NULL. */
const struct config_option *ctl_option_find(const struct ctl_command *command, const char *name, size_t len);

/* ---- help.c ---- */
/* Help on all (NULL, NULL), on a group, or on one command. */
void ctl_help_print(const char *group, const struct ctl_command *command, FILE *out);
/* The commands alone, a line each: for who gave none. */
void ctl_help_commands(FILE *out);
/* A bash completion script made from the table of commands. */
void ctl_completion_print(FILE *out);

/* ---- session.c ---- */
/* One line "cistern: ..." on stderr, without control characters. */
void ctl_say(struct ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Starts looking for the metadata controller; with_table: also for a copy of the tables. */
enum ctl_exit ctl_open(struct ctl *ctl, bool with_table);
/* In any state. */
void ctl_close(struct ctl *ctl);
/*
 * One call to the metadata controller, to its end. request and reply are the method's structs; reply may be
 * NULL when it is mdc_empty. fmt says what was attempted ("create volume \"x\""), for the message on stderr
 * that comes with every status but CTL_DONE. Calls ctl_open if need be. What is refused for a moment only
 * (STATUS_AGAIN) is tried again until --timeout has passed.
 */
enum ctl_exit ctl_call(struct ctl *ctl, enum mdc_method method, const void *request, void *reply,
                       const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The same call without a message for one refusal: *status (enum status) tells it, and CTL_DONE comes back.
 */
enum ctl_exit ctl_call_expecting(struct ctl *ctl, enum mdc_method method, const void *request, void *reply,
                                 uint32_t expected, uint32_t *status, const char *what);
/* All pages of a list. reply: the method's reply struct, in which next is at next_offset; each page goes to
 * add. */
struct ctl_pages {
    enum mdc_method method;
    const char *filter; /* may be NULL */
    const char *what;   /* "list the volumes" */
    void *reply;
    size_t next_offset;
    void (*add)(void *arg, const void *reply);
    void *arg;
};
enum ctl_exit ctl_pages_read(struct ctl *ctl, const struct ctl_pages *pages);
/* Reads all pages, then prints and frees the sheet that they were added to. */
enum ctl_exit ctl_list(struct ctl *ctl, struct sheet *sheet, const struct ctl_pages *pages);
/* The table copy, waited for; NULL after a message. It is at least as new as the call. */
const struct table *ctl_table(struct ctl *ctl);
/* Lets the loop run for so long. */
void ctl_pause(struct ctl *ctl, uint64_t ns);
/* A line that the next one replaces; only when stderr is a terminal. "" removes it. */
void ctl_progress(struct ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints in the form that was asked for, and frees. */
enum ctl_exit ctl_print_list(struct ctl *ctl, struct sheet *sheet);
enum ctl_exit ctl_print_record(struct ctl *ctl, struct sheet *sheet);
/* What was done, for people in words; as JSON {"done": "the same"}. */
enum ctl_exit ctl_done(struct ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Copies a name from the command line; false after a message when it is longer than any name. */
bool ctl_name(struct ctl *ctl, char out[MDC_NAME_MAX], const char *text);

/* ---- the commands ---- */
enum ctl_exit ctl_status(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_node_list(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_module_list(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_module_add(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_module_drain(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_module_remove(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_module_reweight(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_gateway_list(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_scrub_start(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_scrub_status(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_scrub_stop(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_pool_list(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_pool_status(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_pool_create(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_pool_grow(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_pool_delete(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_partition_list(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_partition_locate(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_partition_show(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_volume_list(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_volume_create(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_volume_show(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_volume_resize(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_volume_delete(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_volume_attach(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_volume_detach(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_attachment_list(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_bench(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_fabric_info(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_fabric_ping(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_fabric_bench(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_fabric_counters(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_top(struct ctl *ctl, char *const *args);
enum ctl_exit ctl_completion(struct ctl *ctl, char *const *args);

/* Waits, with a line of progress, until the module (0 = none in particular) of that pool has given away all
 * it has, or all copies of the pool are where they are to be. removing: until it is out of the pool. */
enum ctl_exit ctl_wait_moves(struct ctl *ctl, const char *pool, uint32_t module, bool removing);
/* Words for the numbers of table.h; "unknown" for others. */
const char *ctl_module_kind_name(unsigned kind);
const char *ctl_media_name(unsigned media);
/* Of blocks that are to be sent to copies that are not in sync: how many percent have been. 100: none is
 * left. */
uint32_t ctl_percent(uint64_t left, uint64_t done);
const char *ctl_module_state_name(unsigned state);
const char *ctl_volume_state_name(unsigned state);
/* "tcp:127.0.0.1:7100" of an address in a message; out holds at least 64 bytes. */
const char *ctl_addr_format(const uint8_t addr[MDC_ADDR_LEN], char *out);

#endif
