/* fabric_tool.c: endpoints, connections and messages of the commands `cistern fabric ...`. */
#include "services/ctl/fabric_tool.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/loop.h"

/* ---- opening ---- */

static enum ctl_exit read_secret(struct ctl *ctl, struct fabric_config *config)
{
    const char *file = ctl->options->secret_file;
    if (file == NULL) {
        ctl_say(
            ctl,
            "the cluster's secret is needed: give --secret-file, or \"secret-file = ...\" in the configuration file");
        return CTL_USAGE;
    }
    const int rc =
        config_read_cluster_secret(file, config->secret, sizeof(config->secret), &config->secret_len);
    if (rc == 0)
        return CTL_DONE;
    ctl_say(ctl, "the secret in %s cannot be used: %s", file, config_secret_error(rc));
    return CTL_USAGE;
}

static enum ctl_exit cannot_open(struct ctl *ctl, const struct fabric_addr *addr, int rc)
{
    if (addr->provider == FABRIC_PROVIDER_VERBS && rc == -ENODEV)
        ctl_say(ctl, "this host has no RDMA device for such an address: see cistern fabric info");
    else if (addr->provider == FABRIC_PROVIDER_VERBS && rc == -ENOMEM)
        ctl_say(ctl,
                "memory cannot be registered: too little may be locked (ulimit -l): see cistern fabric info");
    else
        ctl_say(ctl, "cannot set up the fabric: %s", strerror(-rc));
    return CTL_FAILED;
}

enum ctl_exit fabric_tool_open(struct ctl *ctl, const char *address, bool listens, struct fabric_addr *out)
{
    const struct ctl_options *o = ctl->options;
    struct fabric_config config = {.role = FABRIC_ROLE_ADMIN, .connect_timeout_ns = o->timeout_ns};
    if (fabric_addr_parse(address, out) != 0 || out->provider == FABRIC_PROVIDER_SIM ||
        (out->port == 0 && !listens)) {
        ctl_say(ctl, "\"%s\" is not an address such as rdma:192.0.2.1:7100 or tcp:192.0.2.1:7100", address);
        return CTL_USAGE;
    }
    if (!o->verbose)
        log_set_level(LOG_ERROR_);
    const enum ctl_exit rc = read_secret(ctl, &config);
    if (rc != CTL_DONE)
        return rc;
    rng_init_system(&ctl->rng);
    config.incarnation = rng_u64(&ctl->rng) | 1;
    if (listens)
        config.local = *out;
    const struct loop_options loop_options = {.spin_ns = o->fabric.spin_ns};
    int err = loop_create_real(&loop_options, &ctl->loop);
    ctl->env = (struct env){.loop = ctl->loop, .rng = &ctl->rng, .name = "cistern"};
    if (err == 0)
        err = fabric_create(&ctl->env, out->provider, &config, &ctl->env.fabric);
    explicit_bzero(config.secret, sizeof(config.secret));
    return err == 0 ? CTL_DONE : cannot_open(ctl, out, err);
}

const char *fabric_tool_role(enum fabric_role role)
{
    static const char *const words[] = {[FABRIC_ROLE_MDC] = "metadata controller",
                                        [FABRIC_ROLE_MODULE] = "module",
                                        [FABRIC_ROLE_VBS] = "gateway",
                                        [FABRIC_ROLE_CLIENT] = "client",
                                        [FABRIC_ROLE_ADMIN] = "cistern fabric bench"};
    return (unsigned)role < ARRAY_LEN(words) && words[role] != NULL ? words[role] : "unknown";
}

/* ---- ^C ---- */

static volatile sig_atomic_t interrupted;
static struct sigaction before;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

void fabric_tool_interrupted_begin(void)
{
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    interrupted = 0;
    sigaction(SIGINT, &action, &before);
}

bool fabric_tool_interrupted(void)
{
    return interrupted != 0;
}

void fabric_tool_interrupted_end(void)
{
    sigaction(SIGINT, &before, NULL);
}

/* ---- connections ---- */

static void link_up(void *service, struct rpc_peer *peer)
{
    struct fabric_tool_link *link = service;
    link->up = true;
    link->info = *rpc_peer_info(peer);
}

static void link_down(void *service, struct rpc_peer *peer, enum fabric_down reason)
{
    struct fabric_tool_link *link = service;
    (void)peer; /* goes by itself */
    link->up = false;
    link->peer = NULL;
    link->reason = reason;
}

static const struct rpc_events link_events = {.up = link_up, .down = link_down};

int fabric_tool_connect(struct ctl *ctl, const struct fabric_addr *addr, enum fabric_domain domain,
                        struct fabric_tool_link *link)
{
    const struct rpc_service service = {.events = &link_events, .service = link};
    const uint64_t start_ns = loop_clock_ns(ctl->loop);
    *link = (struct fabric_tool_link){.up = false};
    const int rc = rpc_connect(&ctl->env, addr, domain, &service, &link->peer);
    if (rc != 0) {
        link->peer = NULL;
        return rc;
    }
    while (!link->up && link->reason == 0 && !fabric_tool_interrupted())
        loop_run_once(ctl->loop, 100 * NS_PER_MS);
    link->connect_ns = loop_clock_ns(ctl->loop) - start_ns;
    return link->up ? 0 : link->reason == 0 ? -EINTR : -ENOTCONN;
}

void fabric_tool_unlink(struct fabric_tool_link *link)
{
    if (link->peer != NULL)
        rpc_close(link->peer);
    link->peer = NULL;
    link->up = false;
}

enum ctl_exit fabric_tool_unreachable(struct ctl *ctl, const char *address,
                                      const struct fabric_tool_link *link, int rc)
{
    const char *more = "";
    switch (link->reason) {
    case FABRIC_DOWN_REFUSED:
        more = " (no service listens there?)";
        break;
    case FABRIC_DOWN_AUTH:
        more = " (--secret-file is not the cluster's)";
        break;
    case FABRIC_DOWN_TIMEOUT:
    case FABRIC_DOWN_UNREACHABLE:
        more = " (its host is off, a firewall, or no route)";
        break;
    default:
        break;
    }
    if (rc == -EINTR)
        ctl_say(ctl, "interrupted while connecting to %s", address);
    else
        ctl_say(ctl, "cannot connect to %s: %s%s", address,
                link->reason != 0 ? fabric_down_text(link->reason) : strerror(-rc), more);
    return CTL_UNREACHABLE;
}

/* ---- advice ---- */

const struct sheet_column fabric_tool_advice_columns[4] = {
    {"level", "LEVEL", SHEET_TEXT},
    {"about", "ABOUT", SHEET_TEXT},
    {"what", "WHAT", SHEET_TEXT},
    {"fix", "FIX", SHEET_TEXT},
};

static const char *level_word(enum fabric_advice_level level)
{
    return level == FABRIC_ADVICE_PROBLEM ? "problem" : level == FABRIC_ADVICE_SLOW ? "slow" : "note";
}

void fabric_tool_advice_add(struct sheet *s, const struct fabric_advice *advice, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        sheet_add_text(s, level_word(advice[i].level));
        sheet_add_text(s, advice[i].about);
        sheet_add_text(s, advice[i].what);
        sheet_add_text(s, advice[i].fix);
    }
}

void fabric_tool_advice_print(const struct fabric_advice *advice, unsigned count, FILE *out)
{
    if (count == 0)
        fputs("Nothing to mend.\n", out);
    for (unsigned i = 0; i < count; i++)
        fprintf(out, "%-7s  %s: %s\n         fix: %s\n", level_word(advice[i].level), advice[i].about,
                advice[i].what, advice[i].fix);
}

int fabric_tool_json_part(const char *before_key, const char *key, struct sheet *s, enum sheet_form form)
{
    printf("%s\"%s\": ", before_key, key);
    const int rc = sheet_print(s, form, stdout);
    sheet_free(s);
    return rc;
}
