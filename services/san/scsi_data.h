/*
 * scsi_data.h: what arrays answer, taken apart. The bytes come from the network: each length in them is
 * checked against what really arrived. References: SPC-4 (INQUIRY 6.6, PERSISTENT RESERVE IN 6.15), SBC-3
 * (READ CAPACITY(16) 5.16, VPD 6.5).
 */
#ifndef CISTERN_SERVICES_SAN_SCSI_DATA_H
#define CISTERN_SERVICES_SAN_SCSI_DATA_H

#include "common/base.h"

#define SCSI_KEYS_MAX 64u

struct scsi_capacity {
    uint64_t size; /* bytes */
    uint32_t block_bytes;
    bool provisioned; /* LBPME: UNMAP may be there */
};
/* 0; -EINVAL: too short; -ENOTSUP: blocks that are neither 512 nor 4096 bytes; -ERANGE: nonsense size. */
int scsi_parse_capacity16(const uint8_t *data, size_t len, struct scsi_capacity *out);

struct scsi_limits { /* in blocks, 0 = not told */
    uint32_t max_transfer, max_unmap;
};
/* VPD page B0h. 0 or -EINVAL. */
int scsi_parse_block_limits(const uint8_t *data, size_t len, struct scsi_limits *out);
/* VPD page B2h: whether UNMAP is there. 0 or -EINVAL. */
int scsi_parse_provisioning(const uint8_t *data, size_t len, bool *unmap);
/* VPD page B1h: false for media that say that they do not rotate. 0 or -EINVAL. */
int scsi_parse_characteristics(const uint8_t *data, size_t len, bool *rotational);

struct scsi_keys {
    uint32_t generation;
    unsigned count;
    uint64_t keys[SCSI_KEYS_MAX];
};
/* READ KEYS. 0; -EINVAL; -E2BIG: more keys than we can look at. */
int scsi_parse_keys(const uint8_t *data, size_t len, struct scsi_keys *out);
struct scsi_reservation {
    uint32_t generation;
    bool held;
    uint64_t key;
    uint8_t type;
};
/* READ RESERVATION. 0 or -EINVAL. */
int scsi_parse_reservation(const uint8_t *data, size_t len, struct scsi_reservation *out);

#endif
