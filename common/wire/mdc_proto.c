/*
 * mdc_proto.c: the field tables of the control messages. A key never changes its meaning or kind; a new field
 * gets a new key and is not required, so that the version before and the version after understand one
 * another.
 */
#include "common/wire/mdc_proto.h"

#include <string.h>
#include <openssl/sha.h>

/* F: may be absent (zero). R: required, because a zero there would mean something that the sender did not
 * say. */
#define F(st, key, kind, member) WIRE_F(struct mdc_##st, key, WIRE_##kind, member, false)
#define R(st, key, kind, member) WIRE_F(struct mdc_##st, key, WIRE_##kind, member, true)
#define TYPE(st, ...)                                                                                        \
    static const struct wire_field mdc_##st##_fields[] = {__VA_ARGS__};                                      \
    const struct wire_type mdc_##st##_type = {                                                               \
        .name = "mdc_" #st, .size = sizeof(struct mdc_##st), .fields = mdc_##st##_fields};                   \
    _Static_assert(sizeof(struct mdc_##st) <= MDC_STRUCT_MAX, "mdc_" #st " fits a decode buffer")
/* A page of items of one info type. */
#define LIST(st)                                                                                             \
    TYPE(st, WIRE_A(struct mdc_##st, "items", items, count, &mdc_##st##_item), F(st, "next", U64, next),     \
         WIRE_END)
#define INFO(list, st, ...)                                                                                  \
    static const struct wire_field mdc_##st##_fields[] = {__VA_ARGS__};                                      \
    static const struct wire_type mdc_##list##_item = {                                                      \
        .name = "mdc_" #st, .size = sizeof(struct mdc_##st), .fields = mdc_##st##_fields}

#define CARE(st)                                                                                             \
    F(st, "crep", U64, care.repaired), F(st, "clost", U64, care.lost), F(st, "cdiff", U64, care.differing),  \
        F(st, "cmiss", U32, care.copies_missing), F(st, "cgo", U64, care.recover_blocks),                    \
        F(st, "crate", U64, care.recover_rate), F(st, "crec", U64, care.recovered_bytes),                    \
        F(st, "srun", BOOL, care.scrub_running), F(st, "sparts", U32, care.scrub_parts),                     \
        F(st, "sleft", U32, care.scrub_left), F(st, "sblk", U64, care.scrub_blocks),                         \
        F(st, "srot", U64, care.scrub_rotten), F(st, "srep", U64, care.scrub_repaired),                      \
        F(st, "slost", U64, care.scrub_lost), F(st, "sdiff", U64, care.scrub_differing),                     \
        F(st, "send", U64, care.scrub_ended_ns), F(st, "full", U8, care.full),                               \
        F(st, "cdone", U64, care.recover_done)

TYPE(empty, WIRE_END);
TYPE(error, R(error, "text", STR, text), WIRE_END);
TYPE(table_hint, R(table_hint, "term", U64, term), R(table_hint, "ver", U64, version), WIRE_END);
TYPE(session_request, R(session_request, "role", U8, role), R(session_request, "host", STR, host),
     F(session_request, "name", STR, name), R(session_request, "inst", U64, instance),
     F(session_request, "term", U64, term), WIRE_END);
TYPE(session_reply, R(session_reply, "cluster", BIN, cluster), R(session_reply, "term", U64, term),
     R(session_reply, "ver", U64, version), R(session_reply, "taddr", U64, table_addr),
     R(session_reply, "tkey", U32, table_key), R(session_reply, "tlen", U64, table_len),
     F(session_reply, "beat", U32, heartbeat_ms), R(session_reply, "start", U64, start), WIRE_END);

TYPE(module_register_request, R(module_register_request, "store", BIN, store),
     R(module_register_request, "starts", U64, start_counter),
     R(module_register_request, "inc", U64, incarnation),
     F(module_register_request, "astart", U64, accepted_start),
     F(module_register_request, "ainc", U64, accepted_incarnation),
     R(module_register_request, "mod", U32, module), R(module_register_request, "kind", U8, kind),
     R(module_register_request, "media", U8, media), R(module_register_request, "host", STR, host),
     F(module_register_request, "rack", STR, rack), F(module_register_request, "name", STR, name),
     R(module_register_request, "addr", BIN, addr), R(module_register_request, "cap", U64, capacity_bytes),
     F(module_register_request, "used", U64, used_bytes),
     R(module_register_request, "epoch", U64, highest_epoch),
     R(module_register_request, "layer", U64, highest_layer),
     R(module_register_request, "gen", U64, highest_generation),
     R(module_register_request, "turn", U64, highest_turn), F(module_register_request, "dmg", BOOL, damaged),
     WIRE_END);
TYPE(module_register_reply, R(module_register_reply, "mod", U32, module),
     F(module_register_reply, "pool", U32, pool), R(module_register_reply, "term", U64, term),
     R(module_register_reply, "ver", U64, version), F(module_register_reply, "tell", BOOL, tell), WIRE_END);
static const struct wire_field mdc_ahead_fields[] = {R(ahead, "vol", BIN, volume),
                                                     R(ahead, "gen", U64, generation), WIRE_END};
static const struct wire_type mdc_ahead_item = {
    .name = "mdc_ahead", .size = sizeof(struct mdc_ahead), .fields = mdc_ahead_fields};
static const struct wire_field mdc_recovery_fields[] = {
    R(recovery, "part", U32, partition), R(recovery, "mem", U32, member), F(recovery, "left", U64, left),
    F(recovery, "done", U64, done), WIRE_END};
static const struct wire_type mdc_recovery_item = {
    .name = "mdc_recovery", .size = sizeof(struct mdc_recovery), .fields = mdc_recovery_fields};
TYPE(module_heartbeat_request, R(module_heartbeat_request, "mod", U32, module),
     R(module_heartbeat_request, "inc", U64, incarnation),
     R(module_heartbeat_request, "aterm", U64, applied_term),
     R(module_heartbeat_request, "aver", U64, applied_version),
     F(module_heartbeat_request, "cap", U64, capacity_bytes),
     F(module_heartbeat_request, "used", U64, used_bytes),
     F(module_heartbeat_request, "rm", U64, removing_blocks),
     F(module_heartbeat_request, "leav", U64, leaving_blocks),
     F(module_heartbeat_request, "dmg", BOOL, damaged), F(module_heartbeat_request, "r", U64, reads),
     F(module_heartbeat_request, "w", U64, writes), F(module_heartbeat_request, "rb", U64, read_bytes),
     F(module_heartbeat_request, "wb", U64, write_bytes), F(module_heartbeat_request, "err", U64, errors),
     F(module_heartbeat_request, "epoch", U64, highest_epoch),
     F(module_heartbeat_request, "layer", U64, highest_layer),
     F(module_heartbeat_request, "gen", U64, highest_generation),
     F(module_heartbeat_request, "turn", U64, highest_turn),
     WIRE_A(struct mdc_module_heartbeat_request, "ahead", ahead, ahead_count, &mdc_ahead_item),
     WIRE_A(struct mdc_module_heartbeat_request, "recov", recoveries, recovery_count, &mdc_recovery_item),
     CARE(module_heartbeat_request), WIRE_END);
TYPE(module_heartbeat_reply, R(module_heartbeat_reply, "term", U64, term),
     R(module_heartbeat_reply, "ver", U64, version), F(module_heartbeat_reply, "again", BOOL, register_again),
     F(module_heartbeat_reply, "tell", BOOL, tell), F(module_heartbeat_reply, "scrub", U64, scrub), WIRE_END);
INFO(module_report, module_report_item, R(module_report_item, "pool", U32, pool),
     R(module_report_item, "part", U32, partition), R(module_report_item, "epoch", U64, epoch),
     R(module_report_item, "mem", U32, member), R(module_report_item, "minc", U64, member_incarnation),
     R(module_report_item, "what", U8, what), WIRE_END);
TYPE(module_report_request, R(module_report_request, "mod", U32, module),
     R(module_report_request, "inc", U64, incarnation),
     WIRE_A(struct mdc_module_report_request, "items", items, count, &mdc_module_report_item), WIRE_END);
TYPE(module_report_reply, R(module_report_reply, "term", U64, term),
     R(module_report_reply, "ver", U64, version), WIRE_END);
INFO(module_records, module_records_item, R(module_records_item, "pool", U32, pool),
     R(module_records_item, "part", U32, partition), R(module_records_item, "epoch", U64, epoch),
     WIRE_N(struct mdc_module_records_item, "mem", members, member_count),
     F(module_records_item, "force", BOOL, in_force), WIRE_END);
TYPE(module_records_request, R(module_records_request, "mod", U32, module),
     R(module_records_request, "inc", U64, incarnation), R(module_records_request, "term", U64, term),
     F(module_records_request, "first", BOOL, first), F(module_records_request, "last", BOOL, last),
     F(module_records_request, "part", BOOL, incomplete),
     WIRE_A(struct mdc_module_records_request, "items", items, count, &mdc_module_records_item), WIRE_END);
TYPE(gateway_heartbeat_request, F(gateway_heartbeat_request, "addr", BIN, addr),
     F(gateway_heartbeat_request, "cli", U32, clients), F(gateway_heartbeat_request, "vols", U32, volumes),
     F(gateway_heartbeat_request, "r", U64, reads), F(gateway_heartbeat_request, "w", U64, writes),
     F(gateway_heartbeat_request, "rb", U64, read_bytes),
     F(gateway_heartbeat_request, "wb", U64, write_bytes),
     F(gateway_heartbeat_request, "tver", U64, table_version), WIRE_END);

TYPE(list_request, F(list_request, "after", U64, after), F(list_request, "name", STR, name), WIRE_END);
TYPE(name_request, R(name_request, "name", STR, name), WIRE_END);

TYPE(pool_create_request, R(pool_create_request, "name", STR, name),
     WIRE_N(struct mdc_pool_create_request, "mods", modules, module_count),
     F(pool_create_request, "parts", U32, partitions), F(pool_create_request, "stripe", U32, stripe_bytes),
     F(pool_create_request, "copies", U8, copies), F(pool_create_request, "minc", U8, min_copies), WIRE_END);
INFO(pool_list_reply, pool_info, R(pool_info, "id", U32, id), R(pool_info, "name", STR, name),
     F(pool_info, "parts", U32, partitions), F(pool_info, "stripe", U32, stripe_bytes),
     F(pool_info, "mods", U32, modules), F(pool_info, "vols", U32, volumes),
     F(pool_info, "copies", U8, copies), F(pool_info, "minc", U8, min_copies),
     F(pool_info, "cap", U64, capacity_bytes), F(pool_info, "used", U64, used_bytes),
     F(pool_info, "prov", U64, provisioned_bytes), F(pool_info, "serv", U32, partitions_served),
     F(pool_info, "mjoin", U32, moves_joining), F(pool_info, "mwait", U32, moves_waiting),
     F(pool_info, "mleav", U32, moves_leaving), F(pool_info, "mstuck", U32, moves_stuck),
     F(pool_info, "mmiss", U32, moves_missing), F(pool_info, "away", U32, modules_away),
     F(pool_info, "cmiss", U32, copies_missing), F(pool_info, "cgo", U64, recover_blocks),
     F(pool_info, "cdone", U64, recover_done), F(pool_info, "crate", U64, recover_rate), WIRE_END);
TYPE(pool_reply, WIRE_M(struct mdc_pool_reply, "pool", pool, &mdc_pool_list_reply_item, true), WIRE_END);
LIST(pool_list_reply);

TYPE(pool_grow_request, R(pool_grow_request, "name", STR, name),
     F(pool_grow_request, "parts", U32, partitions), WIRE_END);
TYPE(volume_create_request, R(volume_create_request, "name", STR, name),
     F(volume_create_request, "pool", STR, pool), R(volume_create_request, "size", U64, size_bytes),
     WIRE_END);
TYPE(volume_resize_request, R(volume_resize_request, "name", STR, name),
     R(volume_resize_request, "size", U64, size_bytes),
     F(volume_resize_request, "shrink", BOOL, allow_shrink), WIRE_END);
TYPE(volume_delete_request, R(volume_delete_request, "name", STR, name),
     F(volume_delete_request, "force", BOOL, force), WIRE_END);
INFO(volume_list_reply, volume_info, R(volume_info, "id", BIN, id), R(volume_info, "name", STR, name),
     F(volume_info, "pool", STR, pool), R(volume_info, "size", U64, size_bytes),
     R(volume_info, "gen", U64, generation), R(volume_info, "layer", U64, layer),
     R(volume_info, "fam", U64, family), R(volume_info, "state", U8, state),
     F(volume_info, "att", U32, attachments), F(volume_info, "opens", U32, opens), WIRE_END);
TYPE(volume_reply, WIRE_M(struct mdc_volume_reply, "vol", volume, &mdc_volume_list_reply_item, true),
     WIRE_END);
LIST(volume_list_reply);
TYPE(volume_open_request, R(volume_open_request, "vol", STR, volume), F(volume_open_request, "id", BIN, id),
     R(volume_open_request, "host", STR, host), R(volume_open_request, "inst", U64, instance),
     F(volume_open_request, "ro", BOOL, read_only), F(volume_open_request, "shared", BOOL, shared),
     F(volume_open_request, "take", BOOL, take_over), F(volume_open_request, "again", BOOL, again),
     F(volume_open_request, "held", U64, held), F(volume_open_request, "ser", U64, serial), WIRE_END);
TYPE(volume_open_reply,
     WIRE_M(struct mdc_volume_open_reply, "vol", volume, &mdc_volume_list_reply_item, true),
     R(volume_open_reply, "pool", U32, pool), R(volume_open_reply, "turn", U64, turn),
     R(volume_open_reply, "term", U64, term), R(volume_open_reply, "ver", U64, version), WIRE_END);
TYPE(volume_close_request, R(volume_close_request, "id", BIN, id), R(volume_close_request, "host", STR, host),
     R(volume_close_request, "inst", U64, instance), F(volume_close_request, "ser", U64, serial), WIRE_END);
TYPE(turn_draw_request, R(turn_draw_request, "id", BIN, id), R(turn_draw_request, "host", STR, host),
     R(turn_draw_request, "inst", U64, instance), WIRE_END);
TYPE(turn_draw_reply, R(turn_draw_reply, "turn", U64, turn), WIRE_END);

TYPE(attach_request, R(attach_request, "vol", STR, volume), R(attach_request, "host", STR, host),
     F(attach_request, "ro", BOOL, read_only), F(attach_request, "shared", BOOL, shared), WIRE_END);
INFO(attachment_list_reply, attachment_info, R(attachment_info, "vol", STR, volume),
     R(attachment_info, "host", STR, host), F(attachment_info, "ro", BOOL, read_only),
     F(attachment_info, "shared", BOOL, shared), F(attachment_info, "opens", U32, opens), WIRE_END);
LIST(attachment_list_reply);

TYPE(cluster_status_reply, R(cluster_status_reply, "cluster", BIN, cluster),
     R(cluster_status_reply, "term", U64, term), R(cluster_status_reply, "ver", U64, version),
     F(cluster_status_reply, "up", U64, uptime_ms), F(cluster_status_reply, "mods", U32, modules),
     F(cluster_status_reply, "modsup", U32, modules_up), F(cluster_status_reply, "nodes", U32, nodes),
     F(cluster_status_reply, "pools", U32, pools), F(cluster_status_reply, "parts", U32, partitions),
     F(cluster_status_reply, "serv", U32, partitions_served), F(cluster_status_reply, "vols", U32, volumes),
     F(cluster_status_reply, "att", U32, attachments), F(cluster_status_reply, "gws", U32, gateways),
     F(cluster_status_reply, "sess", U32, sessions), F(cluster_status_reply, "cap", U64, capacity_bytes),
     F(cluster_status_reply, "used", U64, used_bytes), F(cluster_status_reply, "store", STR, meta_store),
     F(cluster_status_reply, "moves", U32, moves),
     F(cluster_status_reply, "unset", U32, partitions_unsettled),
     F(cluster_status_reply, "waits", STR, waits), F(cluster_status_reply, "near", U32, modules_near_full),
     F(cluster_status_reply, "full", U32, modules_full), F(cluster_status_reply, "miss", U32, copies_missing),
     F(cluster_status_reply, "go", U64, recover_blocks), F(cluster_status_reply, "rate", U64, recover_rate),
     F(cluster_status_reply, "lost", U64, lost), F(cluster_status_reply, "diff", U64, differing),
     F(cluster_status_reply, "scrubs", U32, scrubs), F(cluster_status_reply, "idles", U32, modules_idle),
     F(cluster_status_reply, "idle", U32, idle), F(cluster_status_reply, "dmgs", U32, modules_damaged),
     F(cluster_status_reply, "dmg", U32, damaged), F(cluster_status_reply, "single", U32, partitions_single),
     F(cluster_status_reply, "repl", U64, replace_ms), WIRE_END);
INFO(module_list_reply, module_info, R(module_info, "id", U32, id), F(module_info, "pool", U32, pool),
     F(module_info, "name", STR, name), F(module_info, "host", STR, host), F(module_info, "rack", STR, rack),
     F(module_info, "pname", STR, pool_name), F(module_info, "kind", U8, kind),
     F(module_info, "media", U8, media), R(module_info, "state", U8, state),
     F(module_info, "addr", BIN, addr), F(module_info, "inc", U64, incarnation),
     F(module_info, "starts", U64, start_counter), F(module_info, "cap", U64, capacity_bytes),
     F(module_info, "used", U64, used_bytes), F(module_info, "parts", U32, partitions),
     F(module_info, "silent", U64, silent_ms), F(module_info, "dmg", BOOL, damaged),
     F(module_info, "r", U64, reads), F(module_info, "w", U64, writes), F(module_info, "rb", U64, read_bytes),
     F(module_info, "wb", U64, write_bytes), F(module_info, "err", U64, errors),
     F(module_info, "wgt", U64, weight_bytes), F(module_info, "wset", BOOL, weight_set),
     F(module_info, "drain", BOOL, draining), F(module_info, "rmv", BOOL, removing),
     F(module_info, "away", BOOL, away), F(module_info, "join", U32, joining),
     F(module_info, "leav", U64, leaving_blocks), F(module_info, "down", BOOL, down),
     F(module_info, "dmgms", U64, damaged_ms), F(module_info, "cps", U8, copies), CARE(module_info),
     WIRE_END);
TYPE(scrub_request, F(scrub_request, "pool", STR, pool), F(scrub_request, "mod", U32, module),
     R(scrub_request, "order", U64, order), WIRE_END);
TYPE(scrub_reply, F(scrub_reply, "mods", U32, modules), WIRE_END);
LIST(module_list_reply);
TYPE(module_request, R(module_request, "mod", U32, module), WIRE_END);
TYPE(module_add_request, R(module_add_request, "mod", U32, module), F(module_add_request, "pool", STR, pool),
     WIRE_END);
TYPE(module_drain_request, R(module_drain_request, "mod", U32, module),
     F(module_drain_request, "undo", BOOL, undo), WIRE_END);
TYPE(module_reweight_request, R(module_reweight_request, "mod", U32, module),
     R(module_reweight_request, "wgt", U64, weight_bytes), WIRE_END);
TYPE(module_reply, WIRE_M(struct mdc_module_reply, "mod", module, &mdc_module_list_reply_item, true),
     F(module_reply, "moved", U32, moved), F(module_reply, "tomove", U32, to_move), WIRE_END);
INFO(partition_list_reply, partition_info, R(partition_info, "pool", U32, pool),
     R(partition_info, "idx", U32, index), F(partition_info, "prim", U32, primary),
     R(partition_info, "epoch", U64, epoch), WIRE_N(struct mdc_partition_info, "mem", members, member_count),
     F(partition_info, "serv", BOOL, served), F(partition_info, "sy", U8, in_sync),
     F(partition_info, "lf", U32, recover_left), F(partition_info, "dn", U32, recover_done),
     F(partition_info, "se", U32, recover_s), WIRE_END);
LIST(partition_list_reply);
TYPE(partition_show_request, F(partition_show_request, "pool", STR, pool),
     F(partition_show_request, "vol", STR, volume), F(partition_show_request, "idx", U32, index),
     F(partition_show_request, "off", U64, offset), WIRE_END);
INFO(partition_show_reply, partition_member, R(partition_member, "mod", U32, module),
     F(partition_member, "name", STR, name), F(partition_member, "host", STR, host),
     F(partition_member, "rack", STR, rack), F(partition_member, "state", U8, state),
     F(partition_member, "sync", BOOL, in_sync), F(partition_member, "leav", BOOL, leaving),
     F(partition_member, "prim", BOOL, primary), F(partition_member, "why", STR, why),
     F(partition_member, "left", U64, recover_left), F(partition_member, "done", U64, recover_done),
     F(partition_member, "secs", U64, recover_s), WIRE_END);
TYPE(partition_show_reply, R(partition_show_reply, "pool", STR, pool),
     R(partition_show_reply, "idx", U32, index), R(partition_show_reply, "epoch", U64, epoch),
     F(partition_show_reply, "serv", BOOL, served), F(partition_show_reply, "rule", STR, rule),
     WIRE_A(struct mdc_partition_show_reply, "mem", members, member_count, &mdc_partition_show_reply_item),
     F(partition_show_reply, "moves", STR, moves), F(partition_show_reply, "waits", STR, waits), WIRE_END);
INFO(node_list_reply, node_info, R(node_info, "host", STR, host), F(node_info, "rack", STR, rack),
     F(node_info, "osds", U32, osds), F(node_info, "sans", U32, san_modules),
     F(node_info, "modsup", U32, modules_up), F(node_info, "gws", U32, gateways),
     F(node_info, "cli", U32, clients), F(node_info, "cap", U64, capacity_bytes),
     F(node_info, "used", U64, used_bytes), WIRE_END);
LIST(node_list_reply);
INFO(gateway_list_reply, gateway_info, R(gateway_info, "name", STR, name), F(gateway_info, "host", STR, host),
     F(gateway_info, "addr", BIN, addr), F(gateway_info, "cli", U32, clients),
     F(gateway_info, "vols", U32, volumes), F(gateway_info, "r", U64, reads),
     F(gateway_info, "w", U64, writes), F(gateway_info, "rb", U64, read_bytes),
     F(gateway_info, "wb", U64, write_bytes), F(gateway_info, "tver", U64, table_version),
     F(gateway_info, "silent", U64, silent_ms), WIRE_END);
LIST(gateway_list_reply);

bool mdc_name_valid(const char *text)
{
    const size_t len = strnlen(text, MDC_NAME_MAX);
    if (len == 0 || len == MDC_NAME_MAX || text[0] == '-' || text[0] == '.')
        return false;
    for (size_t i = 0; i < len; i++) {
        const char c = text[i];
        const bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && c != '.' && c != '_' && c != '-')
            return false;
    }
    return true;
}

uint64_t host_id_from_name(const char *host)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];
    uint64_t id = 0;
    SHA256((const uint8_t *)host, strlen(host), digest);
    for (unsigned i = 0; i < sizeof(id); i++)
        id |= (uint64_t)digest[i] << (8 * i);
    return id != 0 ? id : 1;
}
