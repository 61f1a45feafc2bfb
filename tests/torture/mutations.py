#!/usr/bin/env python3
"""Plants one bug at a time in the block store, and looks whether the torture finds it.

    mutations.py BUILD [--only NAME,...]            replays the seed that is known to find each (mutations.txt)
    mutations.py BUILD --hunt [--only NAME,...]     looks for such seeds, and prints the file anew

BUILD is a build directory with bin-tests/cistern-torture in it. Only the file that is changed is compiled, outside of the
tree. Ends with 1 when a bug is not found any more, or cannot be planted: then this list has to follow the code."""
import argparse
import concurrent.futures
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
RWM = os.path.join(TOP, "services/rwm/")
KNOWN = os.path.join(HERE, "mutations.txt")
HUNTS = [("seeds", "1-60"), ("rot", "1-200"), ("media", "1-12"), ("persist", "1-34"), ("faults", "1-34"), ("seeds", "61-600"),
         ("rot", "201-1500")]

# name, file, what is there (exactly once), what is put there
MUTATIONS = [
    ("ack-before-flush", "store_journal.c", "if (b->state == BATCH_WRITING && !b->s->broken) {", "if (false) {"),
    ("checkpoint-without-flush", "store_checkpoint.c", "flush_request(s, &s->flush_data, &s->ck.wait);",
     "flushed(&s->ck.wait, 0);"),
    ("journal-freed-early", "store_checkpoint.c", "    super_write(s, super_written);",
     "    s->journal.tail = s->ck.pos;\n    super_write(s, super_written);"),
    ("slot-reused-before-readers-left", "store_block.c", "        if (b->flipped) {\n            if (b->readers[b->generation ^ 1])",
     "        if (b->flipped) {\n            if (false)"),
    ("slot-reused-before-durable", "store_write.c", "    b->pend_entry = r->entry;\n    b->pending++;\n    b->touched |= r->mask;",
     "    b->pend_entry = r->entry;\n    b->pending++;\n    b->touched |= r->mask;\n    if (r->freed != STORE_NONE)\n"
     "        alloc_mark(b->wait.s ? b->wait.s : r->s, r->freed, true);"),
    ("replay-past-torn-data", "store_apply.c", "        if (c->bad[n] && (", "        if (false && ("),
    ("replay-past-torn-payload", "store_apply.c", "    if (!c->payload_ok)\n        return false;", ""),
    ("replay-ends-at-rot", "store_replay.c", "    bool missing = max_u64(r->scan_mark, r->mark) >= r->seq;",
     "    bool missing = false;"),
    ("witness-ignored", "store_replay.c", "    r->mark = open_durable_seq(s);", ""),
    ("witness-ahead", "store_witness.c", ".seq = s->journal.durable_seq,", ".seq = s->journal.next_seq - 1,"),
    ("mark-ahead", "store_journal.c", ".mark = j->durable_seq,", ".mark = b->seq - 1,"),
    ("read-unchecked", "store_read.c", "crc32c(op_unit(op, i), UNIT_BYTES) != op->found_crcs[u]", "false"),
    ("payload-unchecked", "store_apply.c", "        if (crc32c(unit, UNIT_BYTES) != rec->image.crc[u]) {", "        if (false) {"),
    ("lost-page-reads-as-empty", "store_load.c", "    if (grow(&o->lost, page))", "    if (false)"),
    ("page-unchecked", "store_meta.c", " || h->crc != page_crc(data))", ")"),
    ("page-of-another-store", "store_meta.c", "        h->store_low != store_low(s) ||", "       "),
    ("older-copy-of-a-page", "store_load.c", "page_lsn(b) > page_lsn(a)", "0"),
    ("torn-batch-accepted", "store_replay.c",
     "    if (crc32c_extend(crc32c(&zero, sizeof zero), p + sizeof h, h.record_bytes) != h.crc)\n        return 0;", ""),
    ("superblock-sequence-ignored", "store_super.c", "        return sequence[1] > sequence[0];", "        return 0;"),
    ("superblock-good-copy-first", "store_super.c", "(on_journal(u->step) ? u->jfirst : u->first)", "0"),
    ("superblock-copies-at-once", "store_super.c",
     "    flush_request(s, on_journal(u->step) ? &s->flush_journal : &s->flush_data, &u->wait);",
     "    if (u->step & 1)\n        flush_request(s, on_journal(u->step) ? &s->flush_journal : &s->flush_data, &u->wait);\n"
     "    else\n        step_flushed(&u->wait, 0);"),
    ("journal-of-another-store", "store_open.c", " || !uuid_eq(&j.store, &sb->store)", ""),
    ("pair-unchecked", "store_open.c", "    if (!pair) {", "    if (false) {"),
    ("start-counter-stands-still", "store_open.c", "    next->start_counter++;", ""),
    ("no-flush-at-open", "store_open.c", "        if (s->options.read_only)\n            open_next_step(s);",
     "        if (true)\n            open_next_step(s);"),
    ("clear-keeps-the-old-version", "store_write.c",
     "    p.epoch = r->op->version.epoch;\n    p.counter = r->op->version.counter;", ""),
    ("read-misses-the-overlay", "store_read.c", "        if (r->b->overlay_mask & bit)", "        if (false)"),
    ("accepted-start-forgotten", "store.c", "    s->super_update.next.accepted_incarnation = s->identity_next.accepted_incarnation;\n",
     ""),
    ("record-not-written-back", "store_write.c",
     "(size_t)(index % per_page) * bytes, image, bytes);\n    frame_dirty(s, f, lsn);",
     "(size_t)(index % per_page) * bytes, image, bytes);\n    (void)lsn;"),
    ("new-pages-forgotten", "store_checkpoint.c",
     "    next->entry_pages_used = (uint32_t)max_u64(next->entry_pages_used, s->ck.pages_used);\n", ""),
    ("trim-of-a-slot-in-use", "store_trim.c", "    alloc_hide(s, page, mask);\n", "")
]


def commands(build):
    with open(os.path.join(build, "compile_commands.json")) as f:
        return [e for e in json.load(f) if "cistern-torture.dir" in e["command"]]


def output(entry):
    args = shlex.split(entry["command"])
    return os.path.join(entry["directory"], args[args.index("-o") + 1])


def plant(build, work, name, file, old, new):
    """Builds a torture with the bug in it. Returns (program, None) or (None, what is wrong)."""
    with open(RWM + file) as f:
        text = f.read()
    if text.count(old) != 1:
        return None, f"does not apply: {text.count(old)} places"
    source = os.path.join(work, name + ".c")
    with open(source, "w") as f:
        f.write(text.replace(old, new))
    entries = commands(build)
    entry = next(e for e in entries if e["file"] == RWM + file)
    args = shlex.split(entry["command"])
    args[args.index(entry["file"])] = source
    target = os.path.join(work, name + ".o")
    args[args.index("-o") + 1] = target
    compiled = subprocess.run(args + ["-Wno-error", "-w"], cwd=entry["directory"], capture_output=True, text=True)
    if compiled.returncode:
        return None, "does not build: " + compiled.stderr[-300:]
    others = [output(e) for e in entries if e is not entry]
    program = os.path.join(work, name)
    linked = subprocess.run([args[0], "-o", program, target, *others, "-lisal", "-lm"], capture_output=True, text=True)
    if linked.returncode:
        return None, "does not link: " + linked.stderr[-300:]
    return program, None


def torture(program, kind, seeds):
    """(kind, seed, what it said) of a failure, or None."""
    run = subprocess.run([program, "--only", kind, "--seeds", seeds, "--first", "--jobs", "2"], capture_output=True, text=True)
    if run.returncode == 0:
        return None
    ended = re.search(r"--only (\w+) --seed (\d+) ended with", run.stderr)
    said = re.search(r"FAILED --only \w+ --seed \d+ (.*)", run.stderr)
    return ended.group(1), int(ended.group(2)), said.group(1) if said else "it died"


def known():
    table = {}
    if os.path.exists(KNOWN):
        with open(KNOWN) as f:
            for line in f:
                words = line.split("#")[0].split()
                if len(words) == 3:
                    table[words[0]] = (words[1], words[2])
    return table


def one(build, work, mutation, hunt, table):
    name, file, old, new = mutation
    program, error = plant(build, work, name, file, old, new)
    if error:
        return name, None, error
    if not hunt:
        if name not in table:
            return name, None, "no seed is known"
        kind, seed = table[name]
        bad = torture(program, kind, f"{seed}-{seed}")
        return name, bad, None if bad else f"{kind} {seed} does not find it any more"
    for kind, seeds in HUNTS:
        bad = torture(program, kind, seeds)
        if bad:
            return name, bad, None
    return name, None, "not found"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build")
    p.add_argument("--hunt", action="store_true")
    p.add_argument("--only", default="")
    a = p.parse_args()
    only = [n for n in a.only.split(",") if n]
    chosen = [m for m in MUTATIONS if not only or m[0] in only]
    table, missed = known(), 0
    with tempfile.TemporaryDirectory() as work, concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, bad, error in pool.map(lambda m: one(os.path.abspath(a.build), work, m, a.hunt, table), chosen):
            missed += bad is None
            if bad is None:
                print(f"# {name}: {error}", flush=True)
            else:
                print(f"{name} {bad[0]} {bad[1]} # {bad[2][:110]}", flush=True)
    print(f"# {len(chosen) - missed} of {len(chosen)} found", flush=True)
    return 1 if missed else 0


sys.exit(main())
