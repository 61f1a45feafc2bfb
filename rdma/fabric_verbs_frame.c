/* fabric_verbs_frame.c: see the header. */
#include "rdma/fabric_verbs_frame.h"

#include <string.h>

static bool segs_good(const struct verbs_seg *s, unsigned count, uint32_t *total)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++) {
        if (s[i].len == 0 || s[i].key == 0 || s[i].addr + s[i].len < s[i].addr)
            return false;
        sum += s[i].len;
    }
    *total = (uint32_t)min_u64(sum, UINT32_MAX);
    return sum <= FABRIC_PAYLOAD_MAX;
}

static bool reason_good(uint16_t reason)
{
    return reason >= FABRIC_DOWN_PEER_CLOSED && reason <= FABRIC_DOWN_UNREACHABLE;
}

static bool type_good(const struct verbs_frame *f, bool up)
{
    switch ((enum verbs_frame_type)f->type) {
    case VERBS_FRAME_AUTH:
        return !up && f->len == sizeof(struct fabric_auth);
    case VERBS_FRAME_REFUSE:
        return f->len == 0 && reason_good(f->slot);
    case VERBS_FRAME_CLOSE:
        return f->len == 0;
    case VERBS_FRAME_BEAT:
    case VERBS_FRAME_RETURN:
        return up && f->len == 0;
    case VERBS_FRAME_CREDIT:
        return up && f->len == 0 && f->credits > 0;
    case VERBS_FRAME_RECALL:
        return up && f->len == 0 && f->slot > 0;
    case VERBS_FRAME_MESSAGE:
        return up && f->len > 0 && f->len <= FABRIC_MESSAGE_MAX;
    }
    return false;
}

bool verbs_frame_decode(const uint8_t *data, uint32_t bytes, bool up, struct verbs_decoded *out)
{
    struct verbs_frame *f = &out->frame;
    if (bytes < sizeof(*f) || bytes > VERBS_BUF_BYTES)
        return false;
    memcpy(f, data, sizeof(*f));
    if (f->magic != VERBS_FRAME_MAGIC || !type_good(f, up) || (f->credits && !up))
        return false;
    if (f->source_count > FABRIC_SGE_MAX || f->sink_count > FABRIC_SGE_MAX)
        return false;
    unsigned count = (unsigned)f->source_count + f->sink_count;
    if (count && f->type != VERBS_FRAME_MESSAGE)
        return false;
    if ((f->source_count > 1 || f->sink_count > 1) && f->slot >= VERBS_SLOTS)
        return false;
    if (f->flags & ~(VERBS_FRAME_ENDS_SOURCE | VERBS_FRAME_ENDS_SINK) ||
        ((f->flags & VERBS_FRAME_ENDS_SOURCE) && f->source_count != 1) ||
        ((f->flags & VERBS_FRAME_ENDS_SINK) && f->sink_count != 1))
        return false;
    if (sizeof(*f) + (uint64_t)count * sizeof(struct verbs_seg) + f->len != bytes)
        return false;
    memcpy(out->seg, data + sizeof(*f), count * sizeof(struct verbs_seg));
    out->body = data + sizeof(*f) + count * sizeof(struct verbs_seg);
    return segs_good(out->seg, f->source_count, &out->source_len) &&
           segs_good(out->seg + f->source_count, f->sink_count, &out->sink_len);
}
