/* rwm_plan.c: a request's range, cut into pieces of one block each. */
#include "services/rwm/rwm_internal.h"

unsigned rwm_range_units(uint32_t start, uint32_t bytes)
{
    return (unsigned)((round_up(start + bytes, UNIT_BYTES) - round_down(start, UNIT_BYTES)) / UNIT_BYTES);
}

bool rwm_range_ragged(uint32_t start, uint32_t bytes)
{
    return start % UNIT_BYTES != 0 || (start + bytes) % UNIT_BYTES != 0;
}

/* DISCARD and ZERO: whole units are cleared; the rest of a unit is skipped, or written as zeroes. */
static bool plan_clear(uint16_t method, uint64_t *pos, uint64_t end, struct rwm_spec *out)
{
    while (*pos < end) {
        uint64_t at = *pos;
        uint64_t stop = min_u64(end, round_down(at, BLOCK_BYTES) + BLOCK_BYTES);
        bool edge = at % UNIT_BYTES != 0 || stop - at < UNIT_BYTES;
        if (edge)
            stop = min_u64(stop, round_down(at, UNIT_BYTES) + UNIT_BYTES);
        else
            stop = round_down(stop, UNIT_BYTES);
        *pos = stop;
        if (edge && method == BLOCK_METHOD_DISCARD)
            continue;
        out->kind = edge ? RWM_PIECE_ZERO_EDGE : RWM_PIECE_CLEAR;
        out->block = at / BLOCK_BYTES;
        out->start = (uint32_t)(at % BLOCK_BYTES);
        out->bytes = (uint32_t)(stop - at);
        return true;
    }
    return false;
}

bool rwm_plan_next(uint16_t method, uint64_t *pos, uint64_t end, struct rwm_spec *out)
{
    if (*pos >= end)
        return false;
    if (method == BLOCK_METHOD_DISCARD || method == BLOCK_METHOD_ZERO)
        return plan_clear(method, pos, end, out);
    uint64_t at = *pos;
    uint64_t stop = min_u64(end, round_down(at, BLOCK_BYTES) + BLOCK_BYTES);
    out->kind = method == BLOCK_METHOD_READ    ? RWM_PIECE_READ
                : method == BLOCK_METHOD_WRITE ? RWM_PIECE_WRITE
                                               : RWM_PIECE_STAT;
    out->block = at / BLOCK_BYTES;
    out->start = (uint32_t)(at % BLOCK_BYTES);
    out->bytes = (uint32_t)(stop - at);
    *pos = stop;
    return true;
}
