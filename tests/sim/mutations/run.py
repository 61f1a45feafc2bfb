#!/usr/bin/env python3
"""Plants one bug at a time in a copy of the tree and looks whether the simulator finds it.

Each mutation is the smallest change that breaks one contract. A mutation that no seed finds is a contract that the
simulator does not watch: the table says so, and why. Usage: run.py [--seeds N] [--jobs N] [--only NAME,...]"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
RWM, VBS, MDC = "services/rwm/", "services/vbs/", "services/mdc/"

# name, file, what is there (exactly once), what is put there, the contract
MUTATIONS = [
    ("ack-before-flush", RWM + "store_journal.c", "    if (b->state == BATCH_WRITING && !b->s->broken) {",
     "    if (false) {", "a write is acknowledged when it is durable"),
    ("checkpoint-without-flush", RWM + "store_checkpoint.c", "    flush_request(s, &s->flush_data, &s->ck.wait);",
     "    flushed(&s->ck.wait, 0);", "the journal's space is reused when what it protected is durable in its place"),
    ("skip-epoch", RWM + "rwm_check.c",
     "    return r->epoch < part->epoch ? STATUS_STALE_EPOCH : STATUS_OK;", "    return STATUS_OK;",
     "a request with an older epoch is refused"),
    ("skip-incarnation", RWM + "rwm_check.c", "    if (r->incarnation != m->config.incarnation)", "    if (false)",
     "a request for another start of the module is refused"),
    ("skip-generation", RWM + "rwm_check.c", "    if (r->generation < v->generation)", "    if (false)",
     "a request with an older generation is refused"),
    ("skip-turn", RWM + "rwm_check.c", "    if (status == STATUS_OK && write && r->turn <",
     "    if (false && status == STATUS_OK && write && r->turn <", "a write with a lower turn is refused"),
    ("forget-turns", RWM + "rwm_turn.c", "        if (uuid_is_zero(&rec->volume))\n            continue;\n        uint32_t *head",
     "        if (true)\n            continue;\n        uint32_t *head", "turns survive a restart"),
    ("no-second-look", RWM + "rwm_block.c", "    return rwm_check(m, &p->req->r, true, &newer);",
     "    (void)newer;\n    return STATUS_OK;", "turn and generation are looked at again before a version is given"),
    ("no-turn-floor", RWM + "rwm_turn.c",
     "    int rc = v ? rwm_volume_set_turn_floor(m, v, turn_at(m, lowest)->turn) : 0;", "    int rc = v ? 0 : 0;",
     "a turn whose record went leaves a floor"),
    ("confirm-while-ahead", RWM + "rwm_volume.c",
     "    volume_complain(m, v, what);\n    m->apply.incomplete = true;", "    volume_complain(m, v, what);",
     "nothing is confirmed that is refused for being old"),
    ("attached-as-it-was", MDC + "ops_restore.c", "        record_set_since(&a->rec, ahead->generation);\n",
     "", "a detach holds although the store that knew of it is lost"),
    ("turns-of-the-copy", MDC + "mdc.c", "    mdc_numbers_lift(s);\n    mdc_tx_counters(&m->tx);\n",
     "    s->counters.turn_limit += TURN_BATCH;\n    mdc_tx_counters(&m->tx);\n",
     "numbers are not given out twice by a restored store"),
    ("keep-older-connection", RWM + "rwm_host.c", "    struct rwm_conn *older = i->conn;",
     "    struct rwm_conn *older = NULL;", "the older connection of a client ends before its newer one is served"),
    ("serve-dropped", RWM + "rwm_block.c",
     "    if (p->req->dropped || !p->req->rpc || !rpc_request_alive(p->req->rpc))", "    if (!p->req->rpc)",
     "what a dead connection left without a version gets none"),
    ("reuse-slot-early", RWM + "store_write.c", "        r->freed = old;\n    }\n    if (inlined) {",
     "        r->freed = old;\n        if (old != STORE_NONE)\n            alloc_mark(s, old, true);\n    }\n    if (inlined) {",
     "a slot is reused when the record that freed it is durable and its readers have left"),
    ("drop-overlay-early", RWM + "store_checkpoint.c", "    io->sio.priv_generation = blk_reader_enter(b);",
     "    io->sio.priv_generation = blk_reader_enter(b);\n    b->overlay_mask &= ~b->wb_mask;",
     "a unit is read from memory until its write-back has landed"),
    ("replay-past-torn", RWM + "store_apply.c",
     "    if (!c->payload_ok)\n        return false;\n", "    if (c)\n        return true;\n",
     "replay ends before the first batch that is not whole"),
    ("no-wait-for-merge", RWM + "rwm_block.c", "            if (b->in_store > 0)\n                return;\n", "",
     "a merge reads what the writes before it left"),
    ("confirm-early", RWM + "rwm_apply.c",
     "    if (a->phase == RWM_APPLY_DRAIN && m->era_writes[m->era ^ 1u] == 0) {",
     "    if (a->phase == RWM_APPLY_DRAIN) {", "a generation is confirmed when the last write of before it has ended"),
    ("detach-at-once", MDC + "ops_attach.c", "    d->await = v;\n", "",
     "a detach is answered when all modules have confirmed it"),
    ("reopen-as-new", VBS + "gateway_client.c", "        r.held = v->info.generation;\n", "        r.id = (struct uuid){{0}};\n",
     "an open that was ended by a detach does not go on"),
    ("generation-from-table", VBS + "volume_open.c", "        volume_open_again(v);\n    if (record != NULL)",
     "        if (record) {\n            v->generation = record->generation;\n            parts_kick_volume(v);\n        }\n"
     "    if (record != NULL)", "a generation is taken from the controller's answer alone"),
    ("association-never-ends", VBS + "volume_open.c", "    if (v->options.one_turn) {", "    if (false) {",
     "an association at a gateway has one turn"),
    ("answer-from-memory", RWM + "store_read.c", "    if (memory && !may_be_taken(s)) {", "    if (memory) {",
     "what a LUN's index says is told only while the LUN is ours"),
    ("epoch-of-before", RWM + "rwm_apply.c", "    if (known && p->epoch == old->epoch) {",
     "    if (false) {", "a start serves in a new epoch only"),
    ("lower-generation", RWM + "rwm_volume.c", "    if (v->generation < rec->generation) {", "    if (false) {",
     "a module never goes back to a lower generation"),
    ("skip-payload-crc", "rdma/rpc_serve.c", "    if (rc == 0 && sge_crc(req->fetch_sge, op->sge_count) != req->payload_crc)",
     "    if (false)", "a payload is checked before it is used"),
]


def sh(args, cwd=None, **kw):
    return subprocess.run(args, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)


def copy_tree(to):
    files = sh(["git", "ls-files", "-z"], TOP).stdout.split("\0")
    for f in files:
        if f and os.path.exists(os.path.join(TOP, f)):
            os.makedirs(os.path.dirname(os.path.join(to, f)), exist_ok=True)
            shutil.copy2(os.path.join(TOP, f), os.path.join(to, f))


def build(tree):
    r = sh(["ninja", "-C", os.path.join(tree, "build"), "cistern-sim"])
    return None if r.returncode == 0 else r.stdout


def hunt(tree, seeds, jobs, chunk=20):
    """The first failing seed and how it failed, or None."""
    sim = os.path.join(tree, "build/bin/cistern-sim")
    for first in range(1, seeds + 1, chunk):
        r = sh([sim, "--first", str(first), "--seeds", str(min(chunk, seeds + 1 - first)), "--jobs", str(jobs),
                "--limit", "300"])
        bad = sorted((int(m.group(1)), m.group(2)) for m in re.finditer(r"^seed (\d+) FAILED: (.*)$", r.stdout, re.M))
        if bad:
            return bad[0]
    return None


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--seeds", type=int, default=300, help="hunt at most so many seeds for each")
    ap.add_argument("--jobs", type=int, default=2)
    ap.add_argument("--only", default="", help="names, with commas")
    ap.add_argument("--tree", help="keep the copy and its build in this directory")
    a = ap.parse_args()
    only = [n for n in a.only.split(",") if n]
    with tempfile.TemporaryDirectory(prefix="cistern-mutations-") as temp:
        tree = os.path.abspath(a.tree) if a.tree else temp
        copy_tree(tree)
        for m in MUTATIONS:
            if a.tree:  # a run that was stopped left one of them changed
                os.utime(os.path.join(tree, m[1]))
        r = sh(["cmake", "-G", "Ninja", "-S", tree, "-B", os.path.join(tree, "build"), "-DCISTERN_SANITIZE=OFF",
                "-DCMAKE_C_FLAGS=-Wno-error -w"])
        if r.returncode or build(tree):
            sys.exit(r.stdout + (build(tree) or ""))
        print("| mutation | contract | found by seed | how |\n| --- | --- | --- | --- |", flush=True)
        found = 0
        for name, path, old, new, contract in MUTATIONS:
            if only and name not in only:
                continue
            full = os.path.join(tree, path)
            with open(full) as f:
                text = f.read()
            if text.count(old) != 1:
                print(f"| {name} | {contract} | DOES NOT APPLY | {text.count(old)} places |", flush=True)
                continue
            with open(full, "w") as f:
                f.write(text.replace(old, new))
            error = build(tree)
            if error:
                print(f"| {name} | {contract} | DOES NOT BUILD | {error[-300:]!r} |", flush=True)
            else:
                bad = hunt(tree, a.seeds, a.jobs)
                found += bad is not None
                how = re.sub(r"\d[0-9a-f]*", "N", bad[1])[:60] if bad else ""
                print(f"| {name} | {contract} | {bad[0] if bad else f'not in {a.seeds}'} | {how} |", flush=True)
            with open(full, "w") as f:
                f.write(text)
        print(f"\n{found} found", flush=True)


main()
