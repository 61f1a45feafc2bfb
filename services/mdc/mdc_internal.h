/* mdc_internal.h: what mdc.c, jobs.c, serve.c and publish.c share. */
#ifndef CISTERN_SERVICES_MDC_MDC_INTERNAL_H
#define CISTERN_SERVICES_MDC_MDC_INTERNAL_H

#include "common/log.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "common/rng.h"
#include "rdma/rpc.h"
#include "services/mdc/mdc.h"
#include "services/mdc/ops.h"

struct mdc;

/* How one method of mdc.def is served. */
struct mdc_method_info {
    uint16_t number;
    const char *name;
    const struct wire_type *request_type, *reply_type;
    uint32_t (*decide)(struct mdc_decision *d, const void *request, void *reply);
};
extern const struct mdc_method_info mdc_methods[];
extern const size_t mdc_method_count;

/*
 * A request from arrival to reply: queued; decided, in the batch; committed and published; for a detach,
 * waiting for the modules' confirmation; replied and freed.
 */
struct mdc_job {
    struct list link;
    const struct mdc_method_info *method;
    struct rpc_request *req;
    uint32_t status;
    struct mdc_error error;
    bool awaits; /* the volume's confirmation */
    struct uuid volume;
    uint64_t version, deadline_ns; /* while waiting */
    void *request, *reply;         /* one allocation with the job */
};

/* For metrics. */
#define MDC_STATUS_MAX 96u /* above all of status.def */
enum {
#define MDC_METHOD(number, name, handler, request, reply) MDC_PLACE_##name,
#define MDC_NOTIFY(number, name, message)
#include "common/wire/mdc.def"
#undef MDC_METHOD
#undef MDC_NOTIFY
    MDC_PLACES
};
struct mdc_counts {
    uint64_t requests[MDC_PLACES];    /* in the order of mdc_methods */
    uint64_t refused[MDC_STATUS_MAX]; /* by status */
    uint64_t commits, commit_records, commit_begun_ns;
    struct metric_hist commit;
};

struct mdc {
    struct env *env;
    struct mdc_config config;
    struct mdc_state *state;
    struct mdc_tx tx;
    struct table table;
    struct fabric_mem *mem;
    struct rpc_listener *listener;
    struct list queue, batch, waiting; /* struct mdc_job */
    struct meta_commit commit;
    struct meta_item *items;
    size_t item_count;
    bool started;    /* the first commit is done: the table is whole, requests are decided */
    bool committing; /* nothing is decided meanwhile */
    bool failed;     /* the store; everything is refused */
    uint64_t start;  /* of this process, random */
    struct loop_task run_task, hint_task;
    struct loop_timer tick;
    struct loop_timer lost; /* a module's session went: is it back? */
    struct loop_timer move; /* something changed that copies may have to move for */
    uint64_t last_tick_ns;
    uint64_t judge_ns; /* until then nobody counts as dead: this process stood still itself */
    uint64_t hinted_version;
    struct mdc_counts counts;
};

/* jobs.c */
/* Takes the decoded job; it is decided in its turn. */
void mdc_job_submit(struct mdc *m, struct mdc_job *job);
/* Replies and frees. */
void mdc_job_reply(struct mdc *m, struct mdc_job *job);
/* A round of decisions as soon as no commit is in flight. */
void mdc_kick(struct mdc *m);
void mdc_run(struct loop_task *t);
/* Answers the detaches that are confirmed, or whose time is over. */
void mdc_check_waiting(struct mdc *m);
/* Frees jobs without a reply. */
void mdc_jobs_abandon(struct list *jobs);

/* serve.c */
int mdc_serve(struct mdc *m);
void mdc_send_hint(struct loop_task *t);
/* Table version and the like, known only now that the batch is published. */
void mdc_reply_complete(struct mdc *m, const struct mdc_method_info *method, struct rpc_request *req,
                        void *reply);
/* Makes the connection's session. NULL: out of memory, or the connection is gone. */
struct mdc_session *mdc_session_begin(struct mdc *m, struct rpc_request *req,
                                      const struct mdc_session_request *rq);
void mdc_reply_status(struct rpc_request *req, uint32_t status, const char *text);

/* mdc_metrics.c */
void mdc_count_job(struct mdc *m, const struct mdc_job *job); /* it is answered */
void mdc_count_commit(struct mdc *m);                         /* ... is done */

/* publish.c */
int mdc_publish_init(struct mdc *m);
/* Notes everything that is in use, for the first publication. */
void mdc_publish_all(struct mdc *m);
/* Publishes what the batch noted, in its order, and tells the sessions. */
void mdc_publish_batch(struct mdc *m);

#endif
