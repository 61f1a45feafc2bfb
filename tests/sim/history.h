/*
 * history.h: what clients asked and what they were told, per sector; and the check that it is linearizable.
 *
 * Every write of a sector has a value of its own (never used twice); zero stands for "never written, or
 * cleared". For values that are written once the check is exact (Gibbons and Korach, "Testing Shared
 * Memories", 1997: the zones of a register's values). Zero can be written many times: a read of it is checked
 * against what must have hidden it. A write whose outcome is unknown may take effect at any time after its
 * call, or never.
 */
#ifndef CISTERN_TESTS_SIM_HISTORY_H
#define CISTERN_TESTS_SIM_HISTORY_H

#include "common/base.h"

#define HISTORY_OPEN UINT64_MAX /* end of a call that was never answered */

/* MAYBE: a write that took effect before its end, or never will. */
enum history_kind { HISTORY_READ, HISTORY_WRITE, HISTORY_MAYBE };
struct history;
int history_create(uint32_t sectors, struct history **out);
void history_destroy(struct history *h);
/* begin < end; for one sector. A read that failed is not recorded; a write that failed or was never answered
 * has end HISTORY_OPEN. */
void history_add(struct history *h, uint32_t sector, enum history_kind kind, uint64_t value, uint64_t begin,
                 uint64_t end, uint32_t client);
/* Unanswered writes of client to sectors [first, first + count) that began before `begun` can do nothing from
 * `fenced` on. */
void history_fence(struct history *h, uint32_t first, uint32_t count, uint32_t client, uint64_t begun,
                   uint64_t fenced);
/* Number of operations recorded. */
uint64_t history_count(const struct history *h);
/* 0, or -EILSEQ: why (cap bytes) tells the sector and the operations that contradict each other. */
int history_check(struct history *h, char *why, size_t cap);
/* The sector that the last failed check named, all its operations in order of their begins, on stdout. */
void history_print(struct history *h);

#endif
