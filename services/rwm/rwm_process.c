/* rwm_process.c: see rwm_process.h. */
#include "services/rwm/rwm_process.h"

#include <stdio.h>

#include "common/resolve.h"
#include "common/trace.h"
#include "services/rwm/rwm_runner.h"

#define SHUT_NS (10u * NS_PER_S)

void rwm_process_ready(struct rwm_process *p)
{
    struct fabric_addr addr;
    char text[64], line[128];
    if (p->ready)
        return;
    p->ready = true;
    rwm_host_addr(p->host, &addr);
    snprintf(line, sizeof(line), "listen=%s", fabric_addr_format(&addr, text));
    (void)service_main_ready(&p->sm, line); /* it logged what went wrong; serving goes on */
}

static void stopped(void *arg)
{
    ((struct rwm_process *)arg)->stopping--;
}

void rwm_process_shut(struct rwm_process *p, struct rwm_runner *r)
{
    if (!r)
        return;
    p->stopping++;
    rwm_runner_shutdown(r, stopped, p);
}

static void serve(struct rwm_process *p, const struct rwm_process_config *config)
{
    loop_run(p->loop);
    const uint64_t end = loop_now_ns(p->loop) + SHUT_NS;
    service_main_stopping(&p->sm);
    config->shut(p);
    while (p->stopping > 0 && loop_now_ns(p->loop) < end)
        loop_run_once(p->loop, 100 * NS_PER_MS);
}

int rwm_process_run(struct rwm_process *p, const struct rwm_process_config *config)
{
    const struct loop_options loop_options = {.spin_ns = config->spin_ns};
    int rc = loop_create_real(&loop_options, &p->loop);
    if (rc)
        return rc;
    rng_init_system(&p->rng);
    if (trace_create(4096, &p->trace) == 0)
        trace_set_current(p->trace);
    p->env = (struct env){.loop = p->loop,
                          .rng = &p->rng,
                          .trace = p->trace,
                          .resolver = &resolve_system,
                          .name = config->name && config->name[0] ? config->name : config->kind};
    rc = service_main_start(&p->sm, p->loop, config->service);
    if (rc == 0)
        rc = config->start(p);
    if (rc == 0)
        serve(p, config);
    config->end(p);
    if (p->host)
        rwm_host_destroy(p->host);
    if (p->env.fabric)
        fabric_destroy(p->env.fabric);
    trace_set_current(NULL);
    trace_destroy(p->trace);
    service_main_end(&p->sm);
    loop_destroy(p->loop);
    return rc;
}

/* ---- main ---- */
static int check(const struct rwm_program *p)
{
    struct rng rng;
    struct env env = {.rng = &rng, .name = "check"};
    store_tool_log(*p->log_level);
    rng_init_system(&rng);
    int rc = loop_create_real(NULL, &env.loop);
    if (rc)
        return store_tool_failed(p->tool, *p->medium, rc);
    rc = p->check(&env, p->values);
    loop_destroy(env.loop);
    return rc;
}

int rwm_program_main(const struct rwm_program *p, int argc, char **argv)
{
    const struct config_option *table = p->spec->options;
    if (store_tool_wanted(argc, argv)) {
        store_tool_table(table, p->options - 1, p->keep, p->check_table);
        p->spec->options = p->check_table;
    }
    int rc = config_parse(p->spec, argc, argv, p->values);
    if (rc)
        return rc == 1 ? 0 : 2;
    if (store_tool_sane(p->tool)) {
        config_free(p->spec, p->values);
        return 2;
    }
    bool checks = p->tool->check || p->tool->repair;
    if (!checks &&
        p->spec->options != table) { /* --check=false: what a service needs is required after all */
        config_free(p->spec, p->values);
        p->spec->options = table;
        if (config_parse(p->spec, argc, argv, p->values))
            return 2;
    }
    rc = checks ? check(p) : p->run(p->values) ? 1 : 0;
    config_free(p->spec, p->values);
    return rc;
}
