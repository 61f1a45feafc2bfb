/*
 * metrics_http.h: GET /metrics, /healthz and /readyz of a service, by libmicrohttpd.
 *
 * A thread of its own serves HTTP and touches nothing of the service. When somebody asks, it posts a task to
 * the loop, which copies its figures into a snapshot and goes on; the thread waits for that, half a second at
 * most, and writes the text. It asks no more than ten times a second, whoever asks it. What a hostile client
 * can get at is this thread, a bounded number of connections and their bounded memory.
 */
#ifndef CISTERN_COMMON_METRICS_HTTP_H
#define CISTERN_COMMON_METRICS_HTTP_H

#include "common/env.h"
#include "common/metrics.h"

struct metrics_http;
struct metrics_http_config {
    const char *addr;    /* "127.0.0.1:9470", "[::1]:9470", ":9470" (all addresses); port 0 picks one */
    const char *service; /* "cistern-osd": a label of cistern_build_info */
    /* Fills the snapshot, and says whether the service is ready. On the loop. */
    void (*collect)(void *user, struct metrics_snapshot *out);
    void *user;
};
/*
 * env->loop must be a real loop; *config is copied. collect runs from now on until metrics_http_stop, which
 * comes before whatever collect looks at is destroyed. 0, or -errno after a log line.
 */
int metrics_http_start(struct env *env, const struct metrics_http_config *config, struct metrics_http **out);
/* On the loop's thread; NULL is fine. Connections are cut. */
void metrics_http_stop(struct metrics_http *h);
uint16_t metrics_http_port(const struct metrics_http *h);

#endif
