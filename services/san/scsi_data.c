#include "services/san/scsi_data.h"

static uint64_t be(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

int scsi_parse_capacity16(const uint8_t *data, size_t len, struct scsi_capacity *out)
{
    if (len < 15)
        return -EINVAL;
    uint64_t last = be(data, 8), block = be(data + 8, 4);
    if (block != SECTOR_BYTES && block != UNIT_BYTES)
        return -ENOTSUP;
    if (last >= (uint64_t)INT64_MAX / block)
        return -ERANGE;
    *out = (struct scsi_capacity){
        .size = (last + 1) * block, .block_bytes = (uint32_t)block, .provisioned = (data[14] & 0x80) != 0};
    return 0;
}

/* A VPD page's header, and that it has at least min bytes. */
static bool vpd_ok(const uint8_t *data, size_t len, uint8_t page, size_t min)
{
    return len >= min && len >= 4 && data[1] == page && be(data + 2, 2) + 4 >= min;
}

int scsi_parse_block_limits(const uint8_t *data, size_t len, struct scsi_limits *out)
{
    if (!vpd_ok(data, len, 0xb0, 12))
        return -EINVAL;
    out->max_transfer = (uint32_t)be(data + 8, 4);
    out->max_unmap = vpd_ok(data, len, 0xb0, 24) ? (uint32_t)be(data + 20, 4) : 0;
    return 0;
}

int scsi_parse_provisioning(const uint8_t *data, size_t len, bool *unmap)
{
    if (!vpd_ok(data, len, 0xb2, 6))
        return -EINVAL;
    *unmap = (data[5] & 0x80) != 0;
    return 0;
}

int scsi_parse_characteristics(const uint8_t *data, size_t len, bool *rotational)
{
    if (!vpd_ok(data, len, 0xb1, 6))
        return -EINVAL;
    *rotational = be(data + 4, 2) != 1;
    return 0;
}

int scsi_parse_keys(const uint8_t *data, size_t len, struct scsi_keys *out)
{
    if (len < 8)
        return -EINVAL;
    uint64_t bytes = be(data + 4, 4);
    if (bytes % 8 != 0)
        return -EINVAL;
    if (bytes / 8 > SCSI_KEYS_MAX)
        return -E2BIG;
    if (bytes > len - 8)
        return -EINVAL;
    out->generation = (uint32_t)be(data, 4);
    out->count = (unsigned)(bytes / 8);
    for (unsigned i = 0; i < out->count; i++)
        out->keys[i] = be(data + 8 + 8 * (size_t)i, 8);
    return 0;
}

int scsi_parse_reservation(const uint8_t *data, size_t len, struct scsi_reservation *out)
{
    if (len < 8)
        return -EINVAL;
    struct scsi_reservation r = {.generation = (uint32_t)be(data, 4)};
    uint64_t bytes = be(data + 4, 4);
    if (bytes != 0) {
        if (bytes < 14 || len < 22)
            return -EINVAL;
        r.held = true;
        r.key = be(data + 8, 8);
        r.type = data[21] & 0x0f;
    }
    *out = r;
    return 0;
}
