"""The bugs that run.py plants: each the smallest change that breaks one contract. edits: file, what is there (exactly once), what
is put there. copies: with how many copies the contract matters. kind: "moves" or "rot", the simulator's option that it needs.
missed: why no seed finds it, and what else watches it."""

RWM, VBS, MDC = "services/rwm/", "services/vbs/", "services/mdc/"
MUTATIONS = []


def plant(name, contract, *edits, copies=(1, 2, 3), kind="", missed=None):
    MUTATIONS.append({"name": name, "contract": contract, "edits": edits, "copies": copies, "kind": kind,
                      **({"missed": missed} if missed else {})})


SEVERAL = (2, 3)

# ---- the store under the module
plant("ack-before-flush", "a write is acknowledged when it is durable",
      (RWM + "store_journal.c", "    if (b->state == BATCH_WRITING && !b->s->broken) {", "    if (false) {"))
plant("checkpoint-without-flush", "the journal's space is reused when what it protected is durable in its place",
      (RWM + "store_checkpoint.c", "    flush_request(s, &s->flush_data, &s->ck.wait);", "    flushed(&s->ck.wait, 0);"))
plant("reuse-slot-early", "a slot is reused when the record that freed it is durable and its readers have left",
      (RWM + "store_write.c", "        r->freed = old;\n    }\n    if (inlined) {",
       "        r->freed = old;\n        if (old != STORE_NONE)\n            alloc_mark(s, old, true);\n    }\n    if (inlined) {"))
plant("drop-overlay-early", "a unit is read from memory until its write-back has landed",
      (RWM + "store_checkpoint.c", "    io->sio.priv_generation = blk_reader_enter(b);",
       "    io->sio.priv_generation = blk_reader_enter(b);\n    b->overlay_mask &= ~b->wb_mask;"))
plant("replay-past-torn", "replay ends before the first batch that is not whole",
      (RWM + "store_apply.c", "    if (!c->payload_ok)\n        return false;\n", "    if (c)\n        return true;\n"))
plant("answer-from-memory", "what a LUN's index says is told only while the LUN is ours",
      (RWM + "store_read.c", "    if (memory && !store_may_be_taken(s)) {", "    if (memory) {"), copies=(1,))

# ---- a request at the module
plant("no-wait-for-merge", "a merge reads what the writes before it left",
      (RWM + "rwm_block.c", "    if (b->in_store > 0)\n        return false;\n    /* Each goes on",
       "    if (b->in_store > 0 && !merges)\n        return false;\n    /* Each goes on"))
plant("skip-epoch", "a request with an older epoch is refused",
      (RWM + "rwm_check.c", "    return r->epoch < part->epoch ? STATUS_STALE_EPOCH : STATUS_OK;", "    return STATUS_OK;"),
      missed="masked: the module looks at its own epoch, in which it is the primary or not, and which its members joined; the sender's only makes that one refresh. unit.rwm")
plant("skip-incarnation", "a request for another start of the module is refused",
      (RWM + "rwm_check.c", "    if (r->incarnation != m->config.incarnation)", "    if (false)"),
      missed="masked: a start serves in a new epoch only, and asks nobody what the sender believes. unit.rwm")
plant("skip-epoch-and-incarnation", "both of these",
      (RWM + "rwm_check.c", "    return r->epoch < part->epoch ? STATUS_STALE_EPOCH : STATUS_OK;", "    return STATUS_OK;"),
      (RWM + "rwm_check.c", "    if (r->incarnation != m->config.incarnation)", "    if (false)"),
      missed="masked: as each of them")
plant("skip-generation", "a request with an older generation is refused",
      (RWM + "rwm_check.c", "    if (r->generation < v->generation)", "    if (false)"))
plant("skip-turn", "a write with a lower turn is refused",
      (RWM + "rwm_check.c", "    if (status == STATUS_OK && write && r->turn <", "    if (false && status == STATUS_OK && write && r->turn <"))
plant("forget-turns", "turns survive a restart",
      (RWM + "rwm_turn.c", "        if (uuid_is_zero(&rec->volume))\n            continue;\n        uint32_t *head",
       "        if (true)\n            continue;\n        uint32_t *head"))
plant("no-second-look", "turn and generation are looked at again before a version is given",
      (RWM + "rwm_block.c", "    return rwm_check(m, &p->req->r, true, &newer);", "    (void)newer;\n    return STATUS_OK;"))
plant("no-turn-floor", "a turn whose record went leaves a floor",
      (RWM + "rwm_turn.c", "    int rc = v ? rwm_volume_set_turn_floor(m, v, turn_at(m, lowest)->turn) : 0;", "    int rc = v ? 0 : 0;"))
plant("keep-older-connection", "the older connection of a client ends before its newer one is served",
      (RWM + "rwm_host.c", "    struct rwm_conn *older = i->conn;", "    struct rwm_conn *older = NULL;"))
plant("serve-dropped", "what a dead connection left without a version gets none",
      (RWM + "rwm_block.c", "    if (p->req->dropped || !p->req->rpc || !rpc_request_alive(p->req->rpc))", "    if (!p->req->rpc)"),
      missed="masked: two earlier looks at the same (queue, held requests) and the order of a block's queue leave nothing for this one to catch")
plant("skip-payload-crc", "a payload is checked before it is used",
      ("rdma/rpc_serve.c", "    if (rc == 0 && sge_crc(req->fetch_sge, op->sge_count) != req->payload_crc)", "    if (false)"))
plant("epoch-of-before", "a start serves in a new epoch only",
      (RWM + "rwm_apply.c", "    if (known && p->epoch == old->epoch) {", "    if (false) {"),
      missed="not in 84 seeds; seed 43 with two copies found it, before a later change of the code")

# ---- generations, turns, detaches
plant("confirm-early", "a generation is confirmed when the last write of before it has ended",
      (RWM + "rwm_apply.c", "    return list_empty(&m->versioned) ||", "    return true || list_empty(&m->versioned) ||"),
      missed="masked: the generation's own record is durable only behind all writes before it in the journal, and what is not committed is read by nobody: confirm-from-memory has the former guard removed, too. unit.rwm")
plant("confirm-from-memory", "... and when its record is durable",
      (RWM + "rwm_apply.c", "    return list_empty(&m->versioned) ||", "    return true || list_empty(&m->versioned) ||"),
      (RWM + "rwm_apply.c", "    if (a->phase == RWM_APPLY_DURABLE && a->out == 0) {", "    if (a->phase == RWM_APPLY_DURABLE) {"))
plant("confirm-while-ahead", "nothing is confirmed that is refused for being old",
      (RWM + "rwm_volume.c", "    volume_complain(m, v, what);\n    m->apply.incomplete = true;", "    volume_complain(m, v, what);"),
      missed="masked: the controller begins above all that the store it lost can have given, goes above what modules tell when they register, and is told what is refused with the heartbeat that would confirm it: confirm-below has these removed, too. unit.mdc_state, unit.rwm")
plant("confirm-below", "... where the controller knows no better",
      (RWM + "rwm_volume.c", "    volume_complain(m, v, what);\n    m->apply.incomplete = true;\n    if (b->ahead_count < MDC_AHEAD_MAX)", "    volume_complain(m, v, what);\n    if (b->ahead_count < MDC_AHEAD_MAX && !generation)"),
      (MDC + "ops_restore.c", "        unknown(held->generation, s->loaded.generation, s->base.generation, c->highest_generation);", "        false;"),
      (MDC + "ops_restore.c", "    c->highest_generation = max_u64(c->highest_generation, held->generation);\n    s->turn_next", "    s->turn_next"),
      (MDC + "state.c", "    s->counters.highest_generation = max_u64(s->counters.highest_generation, s->base.generation);\n", ""))
plant("ahead-is-not-told", "what is refused for being old is told to the controller",
      (RWM + "rwm_volume.c", "    volume_complain(m, v, what);\n    m->apply.incomplete = true;\n    if (b->ahead_count < MDC_AHEAD_MAX)", "    volume_complain(m, v, what);\n    if (b->ahead_count < MDC_AHEAD_MAX && !generation)"))
plant("lower-generation", "a module never goes back to a lower generation",
      (RWM + "rwm_volume.c", "    if (v->generation < rec->generation) {", "    if (false) {"))
plant("detach-at-once", "a detach is answered when all modules have confirmed it", (MDC + "ops_attach.c", "    d->await = v;\n", ""))
plant("reopen-as-new", "an open that was ended by a detach does not go on",
      (VBS + "gateway_client.c", "        r.held = v->info.generation;\n", "        r.id = (struct uuid){{0}};\n"))
plant("generation-from-table", "a generation is taken from the controller's answer alone",
      (VBS + "volume_open.c", "        volume_open_again(v);\n    if (record != NULL)",
       "        if (record) {\n            v->generation = record->generation;\n            parts_kick_volume(v);\n        }\n    if (record != NULL)"))
plant("association-never-ends", "an association at a gateway has one turn",
      (VBS + "volume_open.c", "    if (v->options.one_turn) {", "    if (false) {"))

# ---- the controller
plant("grow-before-the-cut", "what a shrink cut off is gone before a grow",
      (MDC + "ops_module.c", "    if (pool_removing(s, v->rec.pool))\n        return;\n", ""))
plant("cut-forgotten", "a shrink removes what lies beyond the new end",
      (RWM + "rwm_volume.c", " || v->resized_generation > extra_get(rec).cleaned_generation;", " || (rec && false);"))
plant("attached-as-it-was", "a detach holds although the store that knew of it is lost",
      (MDC + "ops_restore.c", "        record_set_since(&a->rec, ahead->generation);\n", ""))
plant("turns-of-the-copy", "numbers are not given out twice by a restored store",
      (MDC + "mdc.c", "    mdc_numbers_lift(s);\n    mdc_tx_counters(&m->tx);\n",
       "    s->counters.turn_limit += TURN_BATCH;\n    mdc_tx_counters(&m->tx);\n"))
plant("twin-of-a-term", "... nor where the lost one had started once more than the copy says",
      (MDC + "ops_module.c", "term >> 16 < s->term >> 16", "term < s->term"))
plant("publish-before-commit", "a decision is committed before it is published",
      (MDC + "jobs.c", "    int rc = mdc_tx_seal(m->state, &m->tx, &m->items, &m->item_count);",
       "    if (m->started)\n        mdc_publish_batch(m);\n    int rc = mdc_tx_seal(m->state, &m->tx, &m->items, &m->item_count);"),
      missed="not in 39 seeds with its scene: the controller dies within that commit and it is lost, and then everybody who saw the epoch. unit.mdc_state")
plant("paused-controller-judges", "a controller that was paused itself declares nobody dead before a round of heartbeats",
      (MDC + "mdc.c", "    bool late = now_ns < m->judge_ns;", "    bool late = false;"),
      (MDC + "mdc.c", "now_ns >= m->judge_ns && now_ns - m->last_tick_ns <= 2 * period_ns(m) &&", "true &&"))
plant("rolled-back-disk", "a medium that was put back from an old copy is refused",
      (MDC + "ops_module.c", "    if (rq->start_counter < m->rec.start_counter)", "    if (false)"),
      (MDC + "ops_module.c", "    if (rq->start_counter == m->rec.start_counter && rq->incarnation != m->rec.incarnation)", "    if (false)"),
      (MDC + "ops_module.c", "    if (!served_last(m, rq))", "    if (false)"),
      missed="not in 100 seeds, 44 of them with its scene; seed 94 with two copies of an earlier simulator found it. unit.mdc_ops, unit.torture_*")
plant("last-member-dropped", "the last member in sync is never dropped",
      (MDC + "ops_member.c", " ||\n        !others_in_sync(d->state, p, module))", ")"), copies=SEVERAL)
plant("report-of-an-older-epoch", "a member is taken in by a report of the present epoch only",
      (MDC + "ops_member.c", " || p->epoch != item->epoch ||\n            mdc_partition_primary(p) != rq->module ||",
       " ||\n            mdc_partition_primary(p) != rq->module ||"), copies=SEVERAL)
plant("report-of-an-older-start", "... and of the member's present start",
      (MDC + "ops_member.c", "        if (pool == NULL || item->partition >= pool->rec.partitions || m == NULL ||\n"
       "            m->rec.incarnation != item->member_incarnation)",
       "        if (pool == NULL || item->partition >= pool->rec.partitions || m == NULL)"), copies=SEVERAL,
      missed="masked: a new start makes a new epoch, by which the report is refused as well; both: report-of-any-age. unit.mdc_members")
plant("report-of-any-age", "both of these",
      (MDC + "ops_member.c", " || p->epoch != item->epoch ||\n            mdc_partition_primary(p) != rq->module ||",
       " ||\n            mdc_partition_primary(p) != rq->module ||"),
      (MDC + "ops_member.c", "        if (pool == NULL || item->partition >= pool->rec.partitions || m == NULL ||\n"
       "            m->rec.incarnation != item->member_incarnation)",
       "        if (pool == NULL || item->partition >= pool->rec.partitions || m == NULL)"), copies=SEVERAL)

# ---- promises
plant("read-without-promise", "a primary answers reads while it holds every member's promise",
      (RWM + "rwm_epoch.c", "        if (k->member && (k->in_sync || k->claimed) && (!k->joined || !rwm_peer_promised(k->peer, clock)))", "        if (false && clock && k)"),
      copies=SEVERAL)
plant("promise-never-ends", "... and until it runs out",
      (RWM + "rwm_peer.c", "    return peer->state == PEER_UP && clock_ns < peer->promise_until_ns;",
       "    (void)clock_ns;\n    return peer->promise_until_ns != 0;"), copies=SEVERAL)
plant("promise-before-the-fetch", "... looked at after the data was fetched",
      (RWM + "rwm_request.c", "    if (c && !writes && !rwm_copies_may_answer(c)) {", "    if (false) {"),
      (RWM + "rwm_request.c", "    if (status == STATUS_AGAIN) {\n        list_remove(&req->link);\n        req->state = RWM_REQUEST_APART;",
       "    if (c && !rwm_method_writes(req->method) && !rwm_copies_may_answer(c))\n        status = STATUS_AGAIN;\n"
       "    if (status == STATUS_AGAIN) {\n        list_remove(&req->link);\n        req->state = RWM_REQUEST_APART;"), copies=SEVERAL,
      missed="masked: a read that was allowed at any time after it had begun may return what held then; and an epoch that ended meanwhile is looked for again after the fetch")
plant("promise-counted-from-the-answer", "the holder counts from sending its request",
      (RWM + "rwm_peer.c", "    peer->promise_until_ns = peer->promise_sent_ns + peer->promise.duration_ns;",
       "    peer->promise_until_ns = loop_clock_ns(m->env->loop) + peer->promise.duration_ns;"), copies=SEVERAL)
plant("promise-without-margin", "the granter adds a margin for drift",
      (RWM + "rwm_grant.c", "rwm_grant_margin(rq->duration_ns));", "rq->duration_ns);"), copies=SEVERAL)
plant("late-refusal-ignored", "a promise that was not answered in time may have been refused",
      (RWM + "rwm_peer.c", "    if (result->rc != 0 || result->status == STATUS_STALE_EPOCH) {",
       "    if (result->rc != 0)\n        return;\n    if (result->status == STATUS_STALE_EPOCH) {"), copies=SEVERAL)
plant("promise-void-by-hearsay", "a promise ends early by three signs only (fast_fail)",
      (RWM + "rwm_grant.c", "        if (g->reset && g->vacant && agreed && g->until_ns > now", "        if ((g->reset || agreed) && g->until_ns > now"), copies=SEVERAL)
plant("release-of-any-epoch", "who gives a partition up releases what was promised for the epochs before, and for no later one",
      (RWM + "rwm_grant.c", " &&\n           c->release.epoch >= c->m->parts[c->partition].epoch;", ";"), copies=SEVERAL)
plant("break-a-promise", "who promised joins no other primary before the promise ran out",
      (RWM + "rwm_serve.c", " ||\n        loop_clock_ns(m->env->loop) < rwm_copies_wait_until(c))", ")"), copies=(3,),
      missed="masked: whoever becomes the primary was in sync, so it promised too, and waits itself: break-all-promises, break-the-own-promise")
plant("break-all-promises", "both of these",
      (RWM + "rwm_serve.c", " ||\n        loop_clock_ns(m->env->loop) < rwm_copies_wait_until(c))", ")"),
      (RWM + "rwm_epoch.c", " &&\n        loop_clock_ns(m->env->loop) >= rwm_copies_wait_until(c)) {", ") {"), copies=SEVERAL)
plant("break-the-own-promise", "a new primary waits out its own promise",
      (RWM + "rwm_epoch.c", " &&\n        loop_clock_ns(m->env->loop) >= rwm_copies_wait_until(c)) {", ") {"), copies=SEVERAL)
plant("forget-promises", "a promise outlives the granter's restart",
      (RWM + "rwm_epoch.c", "    c->wait_until_ns = m->promise_grace_ns;\n", ""), copies=SEVERAL)

# ---- new epochs
plant("no-reconciliation", "a new primary makes the members equal before it serves",
      (RWM + "rwm_epoch.c", "        if (c->in_sync == 0) {\n            rwm_epoch_serving(c);", "        if (true) {\n            rwm_epoch_serving(c);"), copies=(3,))
plant("lowest-version-wins", "the highest version of a block wins",
      (RWM + "rwm_reconcile.c", "version_cmp(item->v[i], item->v[*best]) > 0", "version_cmp(item->v[i], item->v[*best]) < 0"), copies=(3,),
      missed="harmless: only writes that were not acknowledged differ, and either outcome of those is right; unit.rwm_copies")
plant("skip-a-member", "... and is made durable at all of them",
      (RWM + "rwm_reconcile.c", "    for (unsigned i = 1; i < w->count && !w->stopped && !w->failed; i++) {\n        bool differs",
       "    for (unsigned i = 2; i < w->count && !w->stopped && !w->failed; i++) {\n        bool differs"), copies=(3,))
plant("believe-recent", "what is recent counts where it is whole",
      (RWM + "rwm_reconcile.c", "rwm_walk_start(c, who, count, !whole, reconcile_compared, NULL)",
       "rwm_walk_start(c, who, count, whole && false, reconcile_compared, NULL)"), copies=(3,))
plant("ignore-overflow", "... and had room for all",
      (RWM + "rwm_copies.h", "    return c->whole && version_cmp(c->overflow, c->committed) <= 0;", "    return c->whole;"), copies=(3,))
plant("recent-forgotten", "a member keeps what it took until that is committed",
      (RWM + "rwm_serve.c", "        if (req->status == STATUS_OK && c)\n            rwm_recent_add", "        if (false)\n            rwm_recent_add"), copies=(3,))
plant("committed-too-soon", "told is what is committed",
      (RWM + "rwm_forward.c", "    if (list_empty(&c->flight))\n        return c->given;", "    if (true)\n        return c->given;"), copies=(3,))
plant("hole-forgotten", "absence is a version",
      (RWM + "rwm_lookup.c", "    if (r && r->hole && version_cmp", "    if (false && r->hole && version_cmp"), copies=SEVERAL,
      missed="masked: an acknowledged discard is at every member in sync, and who comes back is compared by the primary's list; only one that was not acknowledged comes undone")
plant("join-before-durable", "a member answers a join when what it took is durable",
      (RWM + "rwm_serve.c", "    if (c->storing > 0 || rwm_leave_busy", "    if (rwm_leave_busy"), copies=(3,),
      missed="masked where epoch and data share a journal, which keeps their order; else a window of one write of a medium. unit.rwm_member")
plant("joined-epoch-not-durable", "an epoch is durable before it is joined",
      (RWM + "rwm_apply.c", "    if (a->phase == RWM_APPLY_DURABLE && a->out == 0) {", "    if (a->phase == RWM_APPLY_DURABLE) {"), copies=SEVERAL,
      missed="masked: a start serves in a new epoch only (epoch-of-before), above all that the controller or any member knows; and after a start of the controller all members of the highest record have to tell")
plant("forwards-of-an-older-epoch", "who joined an epoch takes no forwards of an older one",
      (RWM + "rwm_serve.c", "    if (h->epoch < epoch)\n        return STATUS_STALE_EPOCH;", "    if (h->epoch < epoch && c && joined) {\n        *out = c;\n        return STATUS_OK;\n    }"),
      (RWM + "rwm_block.c", "    if (p->req && (p->req->r.epoch != m->parts[p->partition].epoch || c->joined_by != p->req->from_module))", "    if (false)"),
      copies=SEVERAL)
plant("versions-of-the-epoch-before", "a version is never given twice",
      (RWM + "rwm_block.c", "        p->op.version = (struct version){.epoch = part->epoch, .counter = ++part->counter};",
       "        p->op.version = (struct version){.epoch = part->opened_epoch ? part->opened_epoch : part->epoch, .counter = ++part->counter};"))
plant("counter-begins-anew", "... within an epoch",
      (RWM + "rwm_apply.c", "        part->primary = part->staged_primary;\n", "        part->primary = part->staged_primary;\n        part->counter = 0;\n"),
      (RWM + "rwm_block.c", ".epoch = part->epoch, .counter = ++part->counter}", ".epoch = 1, .counter = ++part->counter}"), copies=SEVERAL)

# ---- writes
plant("ack-before-last-copy", "a write is acknowledged when every member in sync has it",
      (RWM + "rwm_forward.c", "        if (rwm_copy_counts(k) && !(p->answered & bit_of(k)))", "        if (false)"), copies=SEVERAL)
plant("ack-without-one-copy", "... every one of them",
      (RWM + "rwm_forward.c", "        if (rwm_copy_counts(k) && !(p->answered & bit_of(k)))",
       "        if (rwm_copy_counts(k) && !(p->answered & bit_of(k)) && p->answered == 0)"), copies=(3,))
plant("skip-base", "a forward is applied over its base",
      (RWM + "rwm_block.c", "    return !b->unreadable && version_cmp(p->base, b->version) == 0 ? STATUS_OK : STATUS_STALE_BASE;",
       "    return STATUS_OK;"), copies=SEVERAL)
plant("forward-without-turn", "turns travel with forwards",
      (RWM + "rwm_serve.c", "    int rc = uuid_is_zero(&f->volume) ? 0 : rwm_turn_accept(m, &f->volume, f->host, f->turn);", "    int rc = 0;"), copies=SEVERAL,
      missed="not in 76 seeds with its scene; found by one of 150 in which nothing but that scene was played. unit.rwm_member")
plant("read-uncommitted", "a read returns committed data",
      (RWM + "rwm_read.c", "    if (rc == 0 && !rwm_forward_readable(p->m, p))\n        return;\n", ""), copies=SEVERAL)
plant("clear-not-forwarded", "a discard is a write",
      (RWM + "rwm_forward.c", "    if (!k->joined || k->peer->state != PEER_UP)\n        return false;\n    if (p->sent",
       "    if (p->kind == RWM_PIECE_CLEAR)\n        p->answered |= bit_of(k);\n"
       "    if (!k->joined || k->peer->state != PEER_UP || p->kind == RWM_PIECE_CLEAR)\n        return false;\n    if (p->sent"), copies=SEVERAL)

# ---- catching up
plant("discard-comes-back", "what the primary has not is removed at a member that comes back",
      (RWM + "rwm_catchup.c", "        if (item_gone(item) != removals || !item_differs(k, item))",
       "        if (item_gone(item) || removals || !item_differs(k, item))"), copies=SEVERAL)
plant("replace-keeps-the-rest", "a block that differs is replaced whole",
      (RWM + "rwm_block.c", "    p->op.replace = p->kind == RWM_PIECE_REPLACE;", "    p->op.replace = false;"), copies=SEVERAL)
plant("copy-beside-a-write", "a block is copied in the order of its writes",
      (RWM + "rwm_block.c", "    if (b->in_store > 0)\n        return false;\n    /* Each goes on",
       "    if (b->in_store > 0 && p->kind != RWM_PIECE_COPY)\n        return false;\n    /* Each goes on"), copies=SEVERAL)
plant("equal-too-soon", "a member is equal when all that differed has arrived",
      (RWM + "rwm_catchup.c", "    if (k->walk != w || w->next < 2 * w->items || k->copying > 0 ||", "    if (k->walk != w || w->next < 2 * w->items ||"),
      (RWM + "rwm_peer.c", "    if (!k->in_sync && k->lockstep && k->joined && k->loose == 0 && k->copying == 0)", "    if (!k->in_sync && k->lockstep && k->joined)"),
      copies=SEVERAL)
plant("equal-with-writes-under-way", "... and what was committed without it meanwhile",
      (RWM + "rwm_peer.c", " && k->loose == 0 && k->copying == 0)", " && k->copying == 0)"), copies=SEVERAL)
plant("equal-does-not-count", "who was reported equal counts",
      (RWM + "rwm_copies.h", "    return k->member && (k->in_sync || k->lockstep || k->claimed);", "    return k->member && k->in_sync;"), copies=SEVERAL)
plant("lost-is-not-told", "... until an epoch says more, whatever became of it",
      (RWM + "rwm_copies.h", "    return k->member && (k->in_sync || k->lockstep || k->claimed);", "    return k->member && (k->in_sync || k->lockstep);"), copies=SEVERAL)
plant("stale-base-is-equal", "to a member that comes back a write over another base sends the whole block",
      (RWM + "rwm_forward.c", "            rwm_catchup_block(k, &p->op.key);\n", ""), copies=SEVERAL,
      missed="masked by the order of things: the comparison is made of what the member lists after it has joined, and from then on each forward reaches it; so a block whose base it has not is listed with that other version, and copied. unit.rwm_copies")

# ---- moving copies
plant("leave-before-filled", "a copy is made before one is given up",
      (MDC + "ops_move.c", "        others += id != module && synced && answers(s, id);", "        others += id != 0 && id != module && answers(s, id);"),
      (MDC + "placement_plan.c", "        const bool may = v.wanted != 0 && (v.good == v.wanted ||", "        const bool may = v.wanted != 0 && (v.present == v.wanted ||"),
      kind="moves")
plant("one-copy-goes-on", "what a copy wrote while it was alone is in its store before anything is compared",
      (RWM + "rwm_epoch.c", "    return c->storing == 0 && !alone_writes(c->m, c->partition) && !rwm_leave_busy", "    return c->storing == 0 && !rwm_leave_busy"),
      copies=(1,), kind="moves")
plant("turns-stay-behind", "a member that is filled gets the write turns, too",
      (RWM + "rwm_catchup.c", "k->copying > 0 || !rwm_turns_told(k))", "k->copying > 0)"), copies=(2,))
plant("claimed-does-not-promise", "who was reported equal must promise before a read is answered",
      (RWM + "rwm_epoch.c", "        if (k->member && (k->in_sync || k->claimed) && (!k->joined", "        if (k->member && k->in_sync && (!k->joined"),
      copies=(2,))
plant("leaves-by-the-table", "what was left is removed when the epoch that does not name the module is accepted, durably",
      (RWM + "rwm_leave.c", "           p->epoch >= rec->epoch && !names(rec->members, m->id) && !names(p->members, m->id);",
       "           !names(p->members, m->id);"), kind="moves")
plant("leaves-by-the-record", "... and the table in force does not name it either",
      (RWM + "rwm_leave.c", "           p->epoch >= rec->epoch && !names(rec->members, m->id) && !names(p->members, m->id);",
       "           !names(rec->members, m->id);"), kind="moves",
      missed="masked: a record is taken over before what was left is looked for; what a later table names is joined when no removal is under way, and then compared; and an older table's record is refused, and settled by this one after a restore. Not in 100 seeds")
plant("join-beside-a-removal", "who becomes a member again joins when no removal is under way",
      (RWM + "rwm_leave.c", "    return partition < m->part_count && m->parts[partition].leave_out != 0;", "    return (partition < m->part_count && m->parts[partition].leave_out != 0) && false;"),
      kind="moves",
      missed="a removal that was asked for after the epoch's record, and is not durable when the member has been listed: seed 99 with one copy found it, before a later change of the code; not in 598 seeds with its scene since")
plant("left-forever", "what a module has left is removed",
      (RWM + "rwm_leave.c", "        l->parts += left && !part->left_empty;", "        l->parts += left && !part->left_empty && false;"), kind="moves")
plant("half-kept-forever", "what was given to others of a partition that was split meanwhile is removed",
      (RWM + "rwm_apply.c", "        parts[i].inherited = inherits(m, id, i);", "        parts[i].inherited = inherits(m, id, i) && false;"), kind="moves")
plant("grow-in-the-same-batch", "a pool is doubled when all have heard of all that was decided",
      (MDC + "ops_pool.c", "    if (mdc_tx_publishes(d->tx))", "    if (false)"), kind="moves",
      missed="not in 2000 seeds: a doubling asked for in the batch of a departure; seed 1836 with one copy found it, before a later change of the code. unit.mdc_moves")
plant("dropped-for-a-lost-session", "a module that goes on as it was stays in sync",
      (MDC + "ops_module.c", "        if (!is_member(p, m) || (pool->rec.copies > 1 && !(s->settling[index] & MDC_SETTLED_LATE)))", "        if (!is_member(p, m))"),
      (MDC + "ops_module.c", "        if (fresh)\n            (void)mdc_member_drop", "        if (true)\n            (void)mdc_member_drop"),
      copies=SEVERAL, kind="moves")
plant("grow-without-new-epochs", "partitions that are split get a new epoch",
      (MDC + "ops_pool.c", "        s->partitions[first + i] = (struct record_partition){.epoch = epoch};",
       "        s->partitions[first + i] = (struct record_partition){.epoch = i < old && first == old_first ? s->partitions[first + i].epoch : epoch};"),
      kind="moves",
      missed="masked: all modules begin anew, and to a new start the controller gives new epochs anyway; none serves under one of before (epoch-of-before)")
plant("grow-while-serving", "a module begins anew when its pool gets more partitions",
      (RWM + "rwm_apply.c", "    const bool grown = m->pool_id == pool->id && m->part_count != 0 && m->part_count != pool->partitions;", "    const bool grown = false;"),
      kind="moves",
      missed="masked: a module that has, or had, other members of any of its partitions ends all the same when the number changes (pool_take); one without is told by the epochs: grow-beside-everything")
plant("grow-beside-everything", "both of these",
      (RWM + "rwm_apply.c", "    const bool grown = m->pool_id == pool->id && m->part_count != 0 && m->part_count != pool->partitions;", "    const bool grown = false;"),
      (RWM + "rwm_apply.c", "    if (!list_empty(&m->copies)) {", "    if (false) {"),
      copies=SEVERAL, kind="moves")

# ---- what changed in a block meanwhile
plant("changed-over-any-base", "changed units are sent over exactly the version that they were changed from",
      (RWM + "rwm_changed.c", "version_cmp(e->from, from) == 0 && version_cmp(e->last, last) == 0", "version_cmp(e->last, last) == 0"),
      (RWM + "rwm_block.c", "    return !b->unreadable && version_cmp(p->base, b->version) == 0 ? STATUS_OK : STATUS_STALE_BASE;",
       "    return !b->unreadable && (version_cmp(p->base, b->version) == 0 || p->op.unit_count < UNITS_PER_BLOCK) ? STATUS_OK : STATUS_STALE_BASE;"),
      copies=SEVERAL)
plant("changed-units-forgotten", "all units that were changed since",
      (RWM + "rwm_changed.c", "    e->mask |= mask;", "    e->mask = mask;"), copies=SEVERAL)
plant("changed-chain-broken", "each version made here out of the one before",
      (RWM + "rwm_changed.c", "    if (version_cmp(e->last, p->base) != 0 || e->mask == 0) {", "    if (e->mask == 0) {"), copies=SEVERAL,
      missed="masked: within one primary's time a chain breaks at an absence only (each of 5,188 breaks in 150 seeds), left by a clear whose units are in the mask, or by a shrink, for which all modules are waited for; and where there are holes now whole blocks are sent. unit.rwm_copies")

# ---- rot
plant("rot-is-an-error", "a unit that cannot be read is read from another copy",
      (RWM + "rwm_rot.c", "    return c && c->state == COPIES_SERVING && c->in_sync > 0 && !m->broken &&", "    return false && c && c->state == COPIES_SERVING && c->in_sync > 0 && !m->broken &&"),
      copies=SEVERAL, kind="rot")
plant("rot-stays-at-members", "a member that could not read units of its own is sent the block",
      (RWM + "rwm_scrub.c", "        (!other && rotten > 0))\n", "        (!other && rotten > 0 && false))\n"), copies=SEVERAL, kind="rot")
plant("rot-not-written-again", "what was read elsewhere is written again",
      (RWM + "rwm_rot.c", "    int rc = p->op.written != 0 ? store_write(r->m->store, &p->op) : store_remove(r->m->store, &p->op);", "    int rc = -ENOSPC;"),
      copies=SEVERAL, kind="rot")
plant("rot-from-another-version", "the same version means the same bytes, and only that",
      (RWM + "rwm_rot.c", "    bool same = version_cmp(reply->version, r->version) == 0;", "    bool same = true;"),
      (RWM + "rwm_rot.c", "        if (!r->suspect && crc != known && known != ~crc32c_zero_unit()) {", "        if (false && known) {"),
      copies=SEVERAL, missed="masked: a member answers behind all forwards that it was sent before it was asked, on one connection and in the order of the block: rot-asked-past-forwards has that guard removed, too. unit.rwm_heal")
plant("rot-asked-past-forwards", "... and no other version is asked for",
      (RWM + "rwm_rot.c", "    bool same = version_cmp(reply->version, r->version) == 0;", "    bool same = true;"),
      (RWM + "rwm_rot.c", "        if (!r->suspect && crc != known && known != ~crc32c_zero_unit()) {", "        if (false && known) {"),
      (RWM + "rwm_block.c", "    bool first = list_empty(&b->waiting);\n    list_push_back(&b->waiting, &p->block_link);",
       "    bool asked = p->kind == RWM_PIECE_COPY && p->req, first = asked || list_empty(&b->waiting);\n"
       "    (asked ? list_push_front : list_push_back)(&b->waiting, &p->block_link);"),
      copies=SEVERAL)
plant("rotten-unit-passes", "a unit of another copy that could not be read there is not taken",
      (RWM + "rwm_rot.c", "        if (!((r->lack & ~reply->rotten) >> u & 1u))", "        if (!(r->lack >> u & 1u))"),
      (RWM + "rwm_rot.c", "        if (!r->suspect && crc != known && known != ~crc32c_zero_unit()) {", "        if (false && known) {"),
      copies=SEVERAL)

# ---- space
plant("room-is-not-asked-for", "a member whose grants are used up is asked for more before a write ends in no space",
      (RWM + "rwm_forward.c", "        k->peer->room_wanted = true; /* what was granted is used up: there may be more */\n"
       "        rwm_tick_within(c->m, RWM_TICK_NS);\n        status = STATUS_AGAIN;", "        return STATUS_NO_SPACE;"),
      copies=SEVERAL)
plant("room-is-not-counted", "a write to a new block needs room at every member before it gets its version",
      (RWM + "rwm_block.c", "        status = rwm_forward_room(copies_of(m, p));", "        status = STATUS_OK;"), copies=SEVERAL)

# ---- pairs: each alone is masked by the other
plant("full-one-is-waited-for", "who has no room for what it lacks leaves those in sync",
      (RWM + "rwm_reconcile.c", "                rwm_forward_refused(w->who[i], status);", "                (void)0;"), copies=SEVERAL, kind="moves",
      missed="not in 2000 seeds: a full member that lacks what a new primary has; seed 1901 with three copies found it, before a later change of the code. unit.rwm_room")
plant("serve-whoever-asks", "who is not the primary serves nothing, by whatever epoch it is asked",
      (RWM + "rwm_check.c", "    return r->epoch < part->epoch ? STATUS_STALE_EPOCH : STATUS_OK;", "    return STATUS_OK;"),
      (RWM + "rwm_check.c", "    if (r->incarnation != m->config.incarnation)", "    if (false)"),
      (RWM + "rwm_check.c", "    if (!part->primary)", "    if (false)"),
      missed="masked: who has left a partition goes on knowing it as a member does, whose requests wait; its next start knows it by no epoch, so that everybody's is above: serve-by-any-epoch has that guard removed, too")
plant("serve-by-any-epoch", "... nor by one that it has not heard of",
      (RWM + "rwm_check.c", "    return r->epoch < part->epoch ? STATUS_STALE_EPOCH : STATUS_OK;", "    return STATUS_OK;"),
      (RWM + "rwm_check.c", "    if (r->incarnation != m->config.incarnation)", "    if (false)"),
      (RWM + "rwm_check.c", "    if (!part->primary)", "    if (false)"),
      (RWM + "rwm_check.c", "    if (r->epoch > part->epoch) {", "    if (false) {"))
