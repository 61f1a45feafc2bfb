/* rwm_options.c: see rwm_options.h. */
#include "services/rwm/rwm_options.h"

#include "common/log.h"
#include "common/rng.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int bad(struct env *env, const char *option, const char *value, const char *what)
{
    log_error(env, "cannot start: an option is wrong", "option=%s value=\"%s\" why=\"%s\"", option, value,
              what);
    return -EINVAL;
}

static int name_take(struct env *env, const char *option, const char *value, char *out)
{
    if (!mdc_name_valid(value))
        return bad(env, option, value, "names are 1 to 63 letters, digits, dots, dashes and underscores");
    snprintf(out, MDC_NAME_MAX, "%s", value);
    return 0;
}

static bool given(const char *value)
{
    return value && value[0];
}

static int take_names(struct env *env, const struct rwm_options *o, const char *fallback,
                      struct rwm_config *config)
{
    char system_name[MDC_NAME_MAX] = "";
    if (!given(o->host))
        gethostname(system_name, sizeof(system_name) - 1);
    int rc = name_take(env, "host", given(o->host) ? o->host : system_name, config->host);
    if (rc == 0)
        rc = name_take(env, "name", given(o->name) ? o->name : fallback, config->name);
    if (rc == 0 && given(o->rack))
        rc = name_take(env, "rack", o->rack, config->rack);
    return rc;
}

static int take_mdcs(struct env *env, const char *text, struct rwm_config *config)
{
    char one[FABRIC_TARGET_BYTES];
    while (*text) {
        size_t len = strcspn(text, ",");
        if (len >= sizeof(one) || config->mdc_count == CLUSTER_MDCS_MAX)
            return bad(env, "mdc", text, "too long, or too many addresses");
        memcpy(one, text, len);
        one[len] = 0;
        text += len + (text[len] == ',');
        if (len == 0)
            continue;
        if (fabric_target_parse(one, &config->mdc[config->mdc_count], config->mdc_host[config->mdc_count]))
            return bad(env, "mdc", one, "addresses look like tcp:127.0.0.1:7100 or tcp:HOST:7100");
        config->mdc_count++;
    }
    return config->mdc_count ? 0 : bad(env, "mdc", "", "at least one address is needed");
}

/* auto: on wherever a kernel's word on a process can be had, which every provider asks for as it can. */
static int take_fast_fail(struct env *env, const struct rwm_options *o, struct rwm_config *config)
{
    const char *value = given(o->fast_fail) ? o->fast_fail : "auto";
    if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0 && strcmp(value, "auto") != 0)
        return bad(env, "fast-fail", value, "it is on, off or auto");
    config->fast_fail = strcmp(value, "off") != 0;
    return 0;
}

int rwm_options_config(struct env *env, const struct rwm_options *o, const char *fallback,
                       struct rwm_config *config)
{
    int rc = take_names(env, o, fallback, config);
    if (rc == 0)
        rc = take_mdcs(env, o->mdc, config);
    if (rc == 0)
        rc = take_fast_fail(env, o, config);
    config->buffer_bytes = o->buffer_bytes;
    config->requests_max = (unsigned)o->requests;
    config->store.cache_bytes = o->cache_bytes;
    config->scrub_rate = o->scrub_rate;
    config->scrub_interval_ns = o->scrub_interval_ns;
    config->recovery_rate = o->recovery_rate;
    config->warn_full = (unsigned)o->warn_full;
    config->alarm_full = (unsigned)o->alarm_full;
    config->recoveries = (unsigned)o->recoveries;
    return rc;
}

int rwm_options_fabric(struct env *env, const struct rwm_options *o)
{
    struct fabric_config config = {.role = FABRIC_ROLE_MODULE, .incarnation = rng_u64(env->rng)};
    int rc = fabric_listen_parse(o->listen, &config.local);
    if (rc)
        return bad(env, "listen", o->listen, fabric_listen_error(rc));
    if (given(o->cluster) && uuid_parse(o->cluster, &config.cluster))
        return bad(env, "cluster", o->cluster, "a cluster id is 32 hex digits");
    rc = config_read_cluster_secret(o->secret_file, config.secret, sizeof(config.secret), &config.secret_len);
    if (rc)
        log_error(env, "cannot start: the secret cannot be used", "secret-file=%s why=\"%s\"", o->secret_file,
                  config_secret_error(rc));
    if (rc == 0) {
        rc = fabric_create(env, config.local.provider, &config, &env->fabric);
        if (rc)
            log_error(env, "cannot start: no network of the kind of listen", "listen=%s error=\"%s\"",
                      o->listen, strerror(-rc));
    }
    explicit_bzero(config.secret, sizeof(config.secret));
    return rc;
}

int rwm_options_host(struct env *env, const struct rwm_options *o, struct rwm_host **out)
{
    struct fabric_addr addr;
    int rc = fabric_listen_parse(o->listen, &addr);
    if (rc)
        return bad(env, "listen", o->listen, fabric_listen_error(rc));
    rc = rwm_host_create(env, &addr, out);
    if (rc)
        log_error(env, "cannot start: cannot listen", "listen=%s error=\"%s\"", o->listen, strerror(-rc));
    return rc;
}
