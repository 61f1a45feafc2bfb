/* ops_scrub.c: modules are told to look through their data, or to stop doing so. Kept in memory alone: a
 * module that heard it goes on, whatever becomes of the controller. */
#include "services/mdc/ops.h"

uint32_t mdc_op_scrub(struct mdc_decision *d, const struct mdc_scrub_request *rq, struct mdc_scrub_reply *rep)
{
    struct mdc_state *s = d->state;
    const struct mdc_pool *pool = rq->pool[0] != 0 ? mdc_pool_by_name(s, rq->pool) : NULL;
    if (rq->pool[0] != 0 && pool == NULL)
        return mdc_refuse(d, STATUS_NOT_FOUND, "cannot scrub pool \"%s\": there is no pool of that name",
                          rq->pool);
    if (rq->module != 0 && mdc_module_by_id(s, rq->module) == NULL)
        return mdc_refuse(d, STATUS_NOT_FOUND, "cannot scrub module %u: there is no such module", rq->module);
    for (uint32_t i = 0; i < s->limits.modules; i++) {
        struct mdc_module *m = &s->modules[i];
        if (m->rec.id == 0 || m->rec.pool == 0 || (pool != NULL && m->rec.pool != pool->rec.id) ||
            (rq->module != 0 && m->rec.id != rq->module))
            continue;
        m->scrub = rq->order;
        rep->modules++;
    }
    return STATUS_OK;
}
