/*
 * rwm_process.h: what the programs that have modules do alike: from the command line to a check of the store,
 * or to a process that serves until it is told to stop.
 */
#ifndef CISTERN_SERVICES_RWM_PROCESS_H
#define CISTERN_SERVICES_RWM_PROCESS_H

#include "common/env.h"
#include "common/loop.h"
#include "common/rng.h"
#include "common/service_main.h"
#include "services/rwm/rwm.h"
#include "services/rwm/store_check_tool.h"

/* The program's own struct begins with it. */
struct rwm_process {
    struct loop *loop;
    struct rng rng;
    struct trace *trace;
    struct env env;
    struct service_main sm;
    struct rwm_host *host;
    bool ready;
    unsigned stopping; /* modules that write back */
};
struct rwm_process_config {
    const struct service_options *service;
    uint64_t spin_ns;
    const char *name, *kind;             /* kind names it when name is NULL or empty */
    int (*start)(struct rwm_process *p); /* makes host and modules. 0 or -errno, said in the log */
    void (*shut)(struct rwm_process *p); /* begins the orderly end of each: rwm_process_shut */
    void (*end)(
        struct rwm_process *p); /* destroys what start made, but for the host; after a failed start too */
};
/* Until the process is told to end. 0 or -errno. *p is zeroed but for what is the program's own. */
int rwm_process_run(struct rwm_process *p, const struct rwm_process_config *config);
/* Tells that it serves, once. */
void rwm_process_ready(struct rwm_process *p);
/* For shut: what is not written back after a while is in the journal. NULL is fine. */
struct rwm_runner;
void rwm_process_shut(struct rwm_process *p, struct rwm_runner *r);

/* ---- main ---- */
struct rwm_program {
    struct config_spec *spec;          /* with the options of a service */
    size_t options;                    /* how many, the table's end included */
    struct config_option *check_table; /* room for as many: the same when a store is checked */
    const char *keep;                  /* the option that a check requires, too */
    void *values;                      /* what config_parse fills; of it: */
    const struct store_tool_options *tool;
    char *const *log_level, *const *medium;            /* medium: what is checked, for messages */
    int (*check)(struct env *env, const void *values); /* exit status */
    int (*run)(const void *values);                    /* 0 or -errno */
};
/* The exit status. */
int rwm_program_main(const struct rwm_program *p, int argc, char **argv);

#endif
