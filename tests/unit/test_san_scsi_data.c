/* What an array answers, and what an operator writes: taken apart with every length checked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "services/san/device_iscsi.h"
#include "services/san/scsi_data.h"

static void capacity(void **state)
{
    (void)state;
    uint8_t d[32] = {0, 0, 0, 0, 0, 0x01, 0xff, 0xff, 0, 0, 0x02, 0x00, 0, 0, 0x80};
    struct scsi_capacity c = {0};
    assert_int_equal(scsi_parse_capacity16(d, 32, &c), 0);
    assert_int_equal(c.size, 131072ull * 512);
    assert_int_equal(c.block_bytes, 512);
    assert_true(c.provisioned);
    assert_int_equal(scsi_parse_capacity16(d, 14, &c), -EINVAL);
    d[10] = 0x10;
    assert_int_equal(scsi_parse_capacity16(d, 15, &c), 0);
    assert_int_equal(c.size, 131072ull * 4096);
    d[10] = 0x08;
    assert_int_equal(scsi_parse_capacity16(d, 32, &c), -ENOTSUP);
    d[10] = 0x02;
    memset(d, 0xff, 8);
    assert_int_equal(scsi_parse_capacity16(d, 32, &c), -ERANGE);
}

static void pages(void **state)
{
    (void)state;
    uint8_t b0[64] = {0, 0xb0, 0, 60};
    struct scsi_limits l;
    b0[10] = 0x01;
    b0[23] = 0x07;
    assert_int_equal(scsi_parse_block_limits(b0, 64, &l), 0);
    assert_int_equal(l.max_transfer, 256);
    assert_int_equal(l.max_unmap, 7);
    assert_int_equal(scsi_parse_block_limits(b0, 16, &l), 0); /* cut off: what is missing is not told */
    assert_int_equal(l.max_unmap, 0);
    assert_int_equal(scsi_parse_block_limits(b0, 11, &l), -EINVAL);
    b0[3] = 4;
    assert_int_equal(scsi_parse_block_limits(b0, 64, &l), -EINVAL);
    b0[1] = 0xb1;
    assert_int_equal(scsi_parse_block_limits(b0, 64, &l), -EINVAL);
    uint8_t b2[8] = {0, 0xb2, 0, 4, 0, 0x80};
    bool flag = false;
    assert_int_equal(scsi_parse_provisioning(b2, 8, &flag), 0);
    assert_true(flag);
    assert_int_equal(scsi_parse_provisioning(b2, 5, &flag), -EINVAL);
    uint8_t b1[64] = {0, 0xb1, 0, 60, 0, 1};
    assert_int_equal(scsi_parse_characteristics(b1, 64, &flag), 0);
    assert_false(flag);
    b1[4] = 0x1c;
    assert_int_equal(scsi_parse_characteristics(b1, 64, &flag), 0);
    assert_true(flag);
}

static void keys(void **state)
{
    (void)state;
    uint8_t d[8 + 8 * 2] = {0, 0, 0, 9, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 5, 0x80};
    struct scsi_keys k;
    assert_int_equal(scsi_parse_keys(d, sizeof d, &k), 0);
    assert_int_equal(k.generation, 9);
    assert_int_equal(k.count, 2);
    assert_true(k.keys[0] == 5 && k.keys[1] == 1ull << 63);
    assert_int_equal(scsi_parse_keys(d, sizeof d - 1, &k), -EINVAL);
    assert_int_equal(scsi_parse_keys(d, 7, &k), -EINVAL);
    d[7] = 12;
    assert_int_equal(scsi_parse_keys(d, sizeof d, &k), -EINVAL);
    d[4] = 0xff;
    d[7] = 0;
    assert_int_equal(scsi_parse_keys(d, sizeof d, &k), -E2BIG);
    d[4] = 0;
    assert_int_equal(scsi_parse_keys(d, 8, &k), 0);
    assert_int_equal(k.count, 0);
}

static void reservation(void **state)
{
    (void)state;
    uint8_t d[24] = {0, 0, 0, 3, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0x2a};
    struct scsi_reservation r;
    d[21] = 0x06;
    assert_int_equal(scsi_parse_reservation(d, sizeof d, &r), 0);
    assert_true(r.held);
    assert_true(r.key == 0x2a && r.type == 6);
    assert_int_equal(scsi_parse_reservation(d, 21, &r), -EINVAL);
    d[7] = 8;
    assert_int_equal(scsi_parse_reservation(d, sizeof d, &r), -EINVAL);
    d[7] = 0;
    assert_int_equal(scsi_parse_reservation(d, 8, &r), 0);
    assert_false(r.held);
}

static void urls(void **state)
{
    (void)state;
    struct iscsi_lun_url u;
    const char *why = NULL;
    assert_int_equal(iscsi_url_parse("iscsi://10.0.0.1/iqn.2026-01.x:y/3", &u, &why), 0);
    assert_string_equal(u.portal, "10.0.0.1:3260");
    assert_string_equal(u.target, "iqn.2026-01.x:y");
    assert_string_equal(u.user, "");
    assert_int_equal(u.lun, 3);
    assert_int_equal(iscsi_url_parse("iscsi://me@[fe80::1]:99/iqn.z/0", &u, &why), 0);
    assert_string_equal(u.portal, "[fe80::1]:99");
    assert_string_equal(u.user, "me");
    assert_int_equal(iscsi_url_parse("iscsi://[::1]/iqn.z/0", &u, &why), 0);
    assert_string_equal(u.portal, "[::1]:3260");
    static const char *const bad[] = {
        "",
        "iscsi:/",
        "http://a/b/1",
        "iscsi://a",
        "iscsi://a/b",
        "iscsi:///b/1",
        "iscsi://a//1",
        "iscsi://a/b/",
        "iscsi://a/b/x",
        "iscsi://a/b/99999",
        "iscsi://a:0/b/1",
        "iscsi://a:70000/b/1",
        "iscsi://a:x/b/1",
        "iscsi://a:/b/1",
        "iscsi://u%p@a/b/1",
        "iscsi://u:p@a/b/1",
        "iscsi://@a/b/1",
        "iscsi://[::1/b/1",
        "iscsi://[]/b/1",
        "iscsi://[::1]x/b/1",
        "iscsi://a/b/c/1",
    };
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        why = NULL;
        assert_int_equal(iscsi_url_parse(bad[i], &u, &why), -EINVAL);
        assert_non_null(why);
    }
    char longest[1024] = "iscsi://";
    memset(longest + 8, 'a', 900);
    memcpy(longest + 908, "/b/1", 5);
    assert_int_equal(iscsi_url_parse(longest, &u, &why), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capacity),    cmocka_unit_test(pages), cmocka_unit_test(keys),
        cmocka_unit_test(reservation), cmocka_unit_test(urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
