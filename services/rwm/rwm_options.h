/* rwm_options.h: the options that the programs with modules share, and what is made of them. */
#ifndef CISTERN_SERVICES_RWM_OPTIONS_H
#define CISTERN_SERVICES_RWM_OPTIONS_H

#include "common/config.h"
#include "services/rwm/rwm.h"

struct rwm_options {
    char *listen, *mdc, *secret_file, *host, *rack, *name, *cluster;
    char *fast_fail;
    bool format;
    uint64_t buffer_bytes, cache_bytes, requests, scrub_rate, scrub_interval_ns, recovery_rate, recoveries,
        warn_full, alarm_full;
};
/* clang-format off */
#define RWM_OPTIONS(type, f)                                                                                      \
    {"listen", CONFIG_STRING, offsetof(type, f.listen), "tcp:127.0.0.1:0", 0, 0, false, "ADDR",                   \
     "address for the data path, tcp:IP:PORT or rdma:IP:PORT, as others reach it, or NETWORK/BITS for the IP: "   \
     "this host's address there; port 0 picks one"},                                                              \
    {"mdc", CONFIG_STRING, offsetof(type, f.mdc), NULL, 0, 0, true, "ADDR,...",                                   \
     "metadata controllers; the name of a host for the IP is asked for at each connect"},                         \
    {"secret-file", CONFIG_STRING, offsetof(type, f.secret_file), NULL, 0, 0, true, "FILE",                       \
     "file with the cluster's secret, at least 16 bytes"},                                                        \
    {"cluster", CONFIG_STRING, offsetof(type, f.cluster), NULL, 0, 0, false, "ID",                                \
     "cluster id (32 hex digits); learnt from the metadata controller when not given"},                           \
    {"host", CONFIG_STRING, offsetof(type, f.host), NULL, 0, 0, false, "NAME",                                    \
     "name of this host: the failure domain (default: the system's host name)"},                                  \
    {"rack", CONFIG_STRING, offsetof(type, f.rack), NULL, 0, 0, false, "NAME", "name of the rack it stands in"},  \
    {"name", CONFIG_STRING, offsetof(type, f.name), NULL, 0, 0, false, "NAME", "name of the service"},            \
    {"format", CONFIG_BOOL, offsetof(type, f.format), "true", 0, 0, false, "BOOL",                                \
     "make a store on a medium that is blank; anything else on it is never written over"},                        \
    {"buffer-memory", CONFIG_SIZE, offsetof(type, f.buffer_bytes), "64M", 8 * MIB, 64 * GIB, false, "BYTES",      \
     "payloads in memory, per module; over it requests wait"},                                                    \
    {"cache-memory", CONFIG_SIZE, offsetof(type, f.cache_bytes), "64M", MIB, 64 * GIB, false, "BYTES",            \
     "cache of the store's metadata, per module"},                                                                \
    {"fast-fail", CONFIG_STRING, offsetof(type, f.fast_fail), "auto", 0, 0, false, "on|off|auto",                 \
     "take over from a killed process at once: its host's kernel must be what answers for it; auto: on"},         \
    {"requests", CONFIG_UINT, offsetof(type, f.requests), "512", 8, 65536, false, "N",                            \
     "requests worked on at once, per module"},                                                                   \
    {"scrub-rate", CONFIG_SIZE, offsetof(type, f.scrub_rate), "16M", 64 * KIB, 64 * GIB, false, "BYTES",          \
     "read so much a second, at most, to look for rot; a quarter of it beside a load"},                           \
    {"scrub-interval", CONFIG_DURATION, offsetof(type, f.scrub_interval_ns), "168h", 0, 0, false, "TIME",         \
     "look at every block once in this time; 0: only when told to (cistern scrub start)"},                        \
    {"recovery-rate", CONFIG_SIZE, offsetof(type, f.recovery_rate), "128M", MIB, 64 * GIB, false, "BYTES",        \
     "send so much a second, at most, to members that are not in sync; a quarter of it beside a load"},           \
    {"recoveries", CONFIG_UINT, offsetof(type, f.recoveries), "4", 1, 64, false, "N",                             \
     "members brought up at once, each by four blocks at a time"},                                                \
    {"warn-full", CONFIG_UINT, offsetof(type, f.warn_full), "85", 1, 100, false, "PERCENT",                       \
     "nearly full: say so in the log and in cistern status"},                                                     \
    {"alarm-full", CONFIG_UINT, offsetof(type, f.alarm_full), "95", 1, 100, false, "PERCENT", "all but full: likewise"}
/* clang-format on */

/* Fills names, addresses and limits of config; fallback: the service's name when there is none. 0, or -errno
 * after a clear log line. */
int rwm_options_config(struct env *env, const struct rwm_options *o, const char *fallback,
                       struct rwm_config *config);
/* The fabric of the process, of the kind of the address in listen, as env->fabric. 0, or -errno after a clear
 * log line. */
int rwm_options_fabric(struct env *env, const struct rwm_options *o);
/* 0, or -errno after a clear log line. */
int rwm_options_host(struct env *env, const struct rwm_options *o, struct rwm_host **out);

#endif
