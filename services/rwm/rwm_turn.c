/* rwm_turn.c: the highest write turn accepted of each (volume, host). The store's record is set before the
 * first write of a turn is given to the store, and the store keeps that order: no write of a turn is durable
 * without its turn. When all records are in use the lowest turn goes: first its volume's floor rises to it,
 * below which nothing is accepted of a host that has no record. Turns are drawn from one growing number, so
 * the hosts whose records go are those that were silent for longest. */
#include "services/rwm/rwm_internal.h"

#include <stdlib.h>
#include <string.h>

static uint32_t turn_bucket(const struct uuid *volume, uint64_t host)
{
    uint64_t v;
    memcpy(&v, volume->b, sizeof(v));
    v = (v ^ host) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(v >> 40) & (RWM_TURN_BUCKETS - 1);
}

static const struct store_turn_record *turn_at(const struct rwm *m, uint32_t index)
{
    return rwm_record(m, STORE_TURN, index);
}

int rwm_turns_load(struct rwm *m)
{
    m->turn_serial = 1;
    m->turn_capacity = store_record_capacity(m->store, STORE_TURN);
    m->turn_buckets = calloc(RWM_TURN_BUCKETS, sizeof(uint32_t));
    m->turn_next = calloc((size_t)m->turn_capacity + 1, sizeof(uint32_t));
    if (!m->turn_buckets || !m->turn_next)
        return -ENOMEM;
    for (uint32_t i = 0; i < m->turn_capacity; i++) {
        const struct store_turn_record *rec = turn_at(m, i);
        if (uuid_is_zero(&rec->volume))
            continue;
        uint32_t *head = &m->turn_buckets[turn_bucket(&rec->volume, rec->host)];
        m->turn_next[i] = *head;
        *head = i + 1;
        m->highest_turn = max_u64(m->highest_turn, rec->turn);
    }
    return 0;
}

/* Index + 1, 0 = none. */
static uint32_t turn_find(const struct rwm *m, const struct uuid *volume, uint64_t host)
{
    uint32_t i = m->turn_buckets[turn_bucket(volume, host)];
    while (i != 0) {
        const struct store_turn_record *rec = turn_at(m, i - 1);
        if (rec->host == host && uuid_eq(&rec->volume, volume))
            break;
        i = m->turn_next[i - 1];
    }
    return i;
}

static uint64_t turn_floor(const struct rwm *m, const struct uuid *volume)
{
    const struct rwm_volume *v = rwm_volume_find(m, volume);
    return v ? v->turn_floor : 0;
}

uint64_t rwm_turn_get(const struct rwm *m, const struct uuid *volume, uint64_t host)
{
    uint32_t i = turn_find(m, volume, host);
    return i ? turn_at(m, i - 1)->turn : turn_floor(m, volume);
}

/* A free record, capacity when there is none. */
static uint32_t turn_free(struct rwm *m)
{
    for (uint32_t n = 0; n < m->turn_capacity; n++) {
        uint32_t i = (m->turn_free_hint + n) % m->turn_capacity;
        if (uuid_is_zero(&turn_at(m, i)->volume)) {
            m->turn_free_hint = i;
            return i;
        }
    }
    return m->turn_capacity;
}

static void turn_unlink(struct rwm *m, uint32_t index, uint32_t bucket)
{
    uint32_t *at = &m->turn_buckets[bucket];
    while (*at != index + 1) {
        MUST(*at != 0);
        at = &m->turn_next[*at - 1];
    }
    *at = m->turn_next[index];
}

/* Where the record of the lowest turn is, once its volume's floor is as high: it may go. */
static int turn_evict(struct rwm *m, uint32_t *index)
{
    uint32_t lowest = 0;
    for (uint32_t i = 1; i < m->turn_capacity; i++)
        if (turn_at(m, i)->turn < turn_at(m, lowest)->turn)
            lowest = i;
    struct rwm_volume *v = rwm_volume_find(m, &turn_at(m, lowest)->volume);
    int rc = v ? rwm_volume_set_turn_floor(m, v, turn_at(m, lowest)->turn) : 0;
    if (rc == 0)
        *index = lowest;
    return rc;
}

int rwm_turn_accept(struct rwm *m, const struct uuid *volume, uint64_t host, uint64_t turn)
{
    uint32_t found = turn_find(m, volume, host);
    if (found ? turn_at(m, found - 1)->turn >= turn : turn <= turn_floor(m, volume))
        return 0;
    uint32_t index = found ? found - 1 : turn_free(m);
    int rc = index == m->turn_capacity ? turn_evict(m, &index) : 0;
    if (rc)
        return rc;
    const struct store_turn_record old = *turn_at(m, index);
    struct store_turn_record rec;
    memset(&rec, 0, sizeof(rec));
    rec.volume = *volume;
    rec.host = host;
    rec.turn = turn;
    rc = store_record_set(m->store, NULL, STORE_TURN, index, &rec);
    if (rc)
        return rc;
    if (!found) {
        if (!uuid_is_zero(&old.volume))
            turn_unlink(m, index, turn_bucket(&old.volume, old.host));
        uint32_t *head = &m->turn_buckets[turn_bucket(volume, host)];
        m->turn_next[index] = *head;
        *head = index + 1;
    }
    m->highest_turn = max_u64(m->highest_turn, turn);
    m->turn_serial++;
    return 0;
}

int rwm_turns_forget(struct rwm *m, const struct uuid *volume)
{
    static const struct store_turn_record none;
    for (uint32_t b = 0; b < RWM_TURN_BUCKETS; b++) {
        uint32_t *at = &m->turn_buckets[b];
        while (*at != 0) {
            uint32_t index = *at - 1;
            if (!uuid_eq(&turn_at(m, index)->volume, volume)) {
                at = &m->turn_next[index];
                continue;
            }
            int rc = store_record_set(m->store, NULL, STORE_TURN, index, &none);
            if (rc)
                return rc;
            *at = m->turn_next[index];
            m->turn_next[index] = 0;
        }
    }
    return 0;
}
