/* test_fabric_info.c: what is read of a host's RDMA from a made-up /sys, /proc and /dev, and what is advised.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "rdma/fabric_info.h"

static char root[] = "/tmp/cistern-info-XXXXXX";

/* Writes a file below root, with the folders above it. */
static void put(const char *path, const char *text)
{
    char full[640];
    snprintf(full, sizeof(full), "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        (void)mkdir(full, 0755);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    fclose(f);
}

static void wipe(void)
{
    char command[600];
    snprintf(command, sizeof(command), "rm -rf '%s' && mkdir '%s'", root, root);
    assert_int_equal(system(command), 0);
}

static void put_port(const char *device, const char *file, const char *text)
{
    char path[420];
    snprintf(path, sizeof(path), "sys/class/infiniband/%s/ports/1/%s", device, file);
    put(path, text);
}

/* A RoCE card as mlx5 shows it: two GIDs of the MAC, an IPv4 address as versions 1 and 2, empty slots. */
static void put_roce(const char *device, const char *netdev)
{
    static const char *const gids[] = {
        "fe80:0000:0000:0000:0202:c9ff:fe00:0001", "fe80:0000:0000:0000:0202:c9ff:fe00:0001",
        "0000:0000:0000:0000:0000:ffff:0a01:0203", "0000:0000:0000:0000:0000:ffff:0a01:0203",
        "0000:0000:0000:0000:0000:0000:0000:0000", "fe80:0000:0000:0000:0000:0000:0000:0000",
    };
    char path[300];
    snprintf(path, sizeof(path), "sys/class/infiniband/%s/fw_ver", device);
    put(path, "16.35.2000\n");
    snprintf(path, sizeof(path), "sys/class/infiniband/%s/node_type", device);
    put(path, "1: CA\n");
    put_port(device, "state", "4: ACTIVE\n");
    put_port(device, "phys_state", "5: LinkUp\n");
    put_port(device, "rate", "100 Gb/sec (4X EDR)\n");
    put_port(device, "link_layer", "Ethernet\n");
    put_port(device, "counters/port_xmit_data", "123456789\n");
    put_port(device, "counters/port_rcv_errors", "0\n");
    put_port(device, "hw_counters/out_of_sequence", "0\n");
    put_port(device, "hw_counters/lifespan", "10\n");
    for (unsigned i = 0; i < ARRAY_LEN(gids); i++) {
        snprintf(path, sizeof(path), "gids/%u", i);
        put_port(device, path, gids[i]);
        if (i >= 4)
            continue;
        snprintf(path, sizeof(path), "gid_attrs/types/%u", i);
        put_port(device, path, i % 2 == 0 ? "IB/RoCE v1\n" : "RoCE v2\n");
        snprintf(path, sizeof(path), "gid_attrs/ndevs/%u", i);
        put_port(device, path, netdev);
    }
}

static void put_netdev(const char *name, const char *mtu)
{
    char path[300];
    snprintf(path, sizeof(path), "sys/class/net/%s/mtu", name);
    put(path, mtu);
    snprintf(path, sizeof(path), "sys/class/net/%s/operstate", name);
    put(path, "up\n");
}

static void put_host(const char *memlock)
{
    char text[400];
    put("dev/infiniband/uverbs0", "");
    put("dev/infiniband/rdma_cm", "");
    put("proc/meminfo", "MemTotal:       65536000 kB\nMlocked:             128 kB\nHugePages_Total:      64\n"
                        "HugePages_Free:        3\nHugepagesize:       2048 kB\n");
    snprintf(text, sizeof(text),
             "Limit                     Soft Limit           Hard Limit           Units     \n"
             "Max locked memory         %-20s %-20s bytes     \nMax open files            1024 1024 files\n",
             memlock, "unlimited");
    put("proc/self/limits", text);
}

static struct fabric_info *read_all(const char *device)
{
    struct fabric_info *info = NULL;
    assert_int_equal(fabric_info_read(root, device, &info), 0);
    return info;
}

/* The advice that contains text, or NULL. */
static const struct fabric_advice *advised(const struct fabric_info *info, const char *text)
{
    static struct fabric_advice all[FABRIC_ADVICE_MAX];
    const unsigned count = fabric_info_advise(info, all, FABRIC_ADVICE_MAX);
    for (unsigned i = 0; i < count; i++) {
        assert_true(all[i].about[0] != '\0' && all[i].what[0] != '\0' && all[i].fix[0] != '\0');
        if (i > 0)
            assert_true(all[i - 1].level <= all[i].level);
        if (strstr(all[i].what, text) != NULL)
            return &all[i];
    }
    return NULL;
}

static unsigned advice_count(const struct fabric_info *info)
{
    static struct fabric_advice all[FABRIC_ADVICE_MAX];
    return fabric_info_advise(info, all, FABRIC_ADVICE_MAX);
}

static struct fabric_info_limits good_limits(void)
{
    return (struct fabric_info_limits){.known = true,
                                       .max_qp = 1000,
                                       .max_srq = 1000,
                                       .max_mw = 1000,
                                       .max_rd_atom = 16,
                                       .max_init_rd_atom = 16,
                                       .max_inline = 512};
}

static void put_good_host(void)
{
    wipe();
    put_host("unlimited");
    put_roce("mlx5_0", "eth2\n");
    put_netdev("eth2", "9000\n");
}

/* ---- tests ---- */

static void a_device_is_read(void **state)
{
    (void)state;
    put_good_host();
    struct fabric_info *info = read_all(NULL);
    assert_true(info->subsystem && info->verbs_node && info->rdmacm_node);
    assert_int_equal(info->device_count, 1);
    assert_string_equal(info->devices[0].name, "mlx5_0");
    assert_string_equal(info->devices[0].firmware, "16.35.2000");
    assert_int_equal(info->port_count, 1);
    const struct fabric_info_port *p = &info->ports[0];
    assert_int_equal(p->number, 1);
    assert_int_equal(p->link, FABRIC_LINK_ROCE);
    assert_true(p->active);
    assert_string_equal(p->state, "ACTIVE");
    assert_string_equal(p->physical, "LinkUp");
    assert_int_equal(p->megabits, 100000);
    assert_string_equal(p->netdev, "eth2");
    assert_int_equal(info->gid_count, 4); /* the empty ones are none */
    assert_string_equal(info->gids[0].ip, "");
    assert_int_equal(info->gids[2].type, FABRIC_GID_ROCE1);
    assert_int_equal(info->gids[3].type, FABRIC_GID_ROCE2);
    assert_int_equal(info->gids[3].index, 3);
    assert_string_equal(info->gids[3].ip, "10.1.2.3");
    assert_int_equal(info->counter_count, 3);
    assert_string_equal(info->counters[1].name, "port_xmit_data");
    assert_int_equal(info->counters[1].value, 123456789);
    assert_int_equal(info->net_count, 1);
    assert_int_equal(info->nets[0].mtu, 9000);
    assert_int_equal(info->memory_bytes, 65536000ull * KIB);
    assert_int_equal(info->locked_bytes, 128 * KIB);
    assert_int_equal(info->huge_total, 64);
    assert_int_equal(info->huge_free, 3);
    assert_int_equal(info->huge_bytes, 2 * MIB);
    assert_true(info->memlock_bytes == UINT64_MAX && info->memlock_hard_bytes == UINT64_MAX);
    free(info);
}

static void one_device_is_picked(void **state)
{
    (void)state;
    put_good_host();
    put_roce("mlx5_1", "eth3\n");
    struct fabric_info *info = read_all(NULL);
    assert_int_equal(info->device_count, 2);
    assert_int_equal(info->ports[1].device, 1);
    free(info);
    info = read_all("mlx5_1");
    assert_int_equal(info->device_count, 1);
    assert_string_equal(info->devices[0].name, "mlx5_1");
    free(info);
    info = read_all("mlx5_7");
    assert_int_equal(info->device_count, 0);
    free(info);
}

static void a_good_host_needs_nothing(void **state)
{
    (void)state;
    put_good_host();
    struct fabric_info *info = read_all(NULL);
    info->devices[0].limits = good_limits();
    info->ports[0].active_mtu = 4096;
    assert_int_equal(advice_count(info), 0);
    free(info);
}

static void no_device_is_no_problem(void **state)
{
    (void)state;
    wipe();
    struct fabric_info *info = read_all(NULL);
    assert_false(info->subsystem);
    const struct fabric_advice *a = advised(info, "tcp: is used");
    assert_non_null(a);
    assert_int_equal(a->level, FABRIC_ADVICE_NOTE);
    assert_non_null(strstr(a->fix, "modprobe"));
    assert_int_equal(advice_count(info), 1); /* what RDMA needs is not asked of a host without */
    free(info);
}

static void missing_nodes_and_memory(void **state)
{
    (void)state;
    wipe();
    put_roce("mlx5_0", "eth2\n");
    put_netdev("eth2", "9000\n");
    struct fabric_info *info = read_all(NULL);
    assert_non_null(strstr(advised(info, "uverbs")->fix, "modprobe ib_uverbs"));
    assert_non_null(strstr(advised(info, "rdma_cm")->fix, "modprobe rdma_ucm"));
    free(info);
    put_host("8388608");
    info = read_all(NULL);
    assert_int_equal(info->memlock_bytes, 8 * MIB);
    assert_null(advised(info, "uverbs"));
    const struct fabric_advice *a = advised(info, "may be locked");
    assert_non_null(a);
    assert_int_equal(a->level, FABRIC_ADVICE_PROBLEM);
    assert_non_null(strstr(a->what, "8 MiB"));
    assert_non_null(strstr(a->fix, "LimitMEMLOCK=infinity"));
    put("proc/meminfo",
        "MemTotal:       65536000 kB\nHugePages_Total:      0\nHugepagesize:       2048 kB\n");
    free(info);
    info = read_all(NULL);
    assert_non_null(strstr(advised(info, "huge pages")->fix, "vm.nr_hugepages"));
    free(info);
}

static void ports_and_addresses(void **state)
{
    (void)state;
    put_good_host();
    put_netdev("eth2", "1500\n");
    struct fabric_info *info = read_all(NULL);
    info->ports[0].active_mtu = 1024;
    const struct fabric_advice *a = advised(info, "MTU 1500 of eth2");
    assert_non_null(a);
    assert_non_null(strstr(a->what, "now 1024"));
    assert_non_null(strstr(a->fix, "ip link set eth2 mtu 4200"));
    assert_string_equal(a->about, "mlx5_0/1");
    free(info);
    put_port("mlx5_0", "state", "1: DOWN\n");
    put_port("mlx5_0", "phys_state", "3: Disabled\n");
    info = read_all(NULL);
    a = advised(info, "the port is DOWN (Disabled)");
    assert_non_null(a);
    assert_int_equal(a->level, FABRIC_ADVICE_PROBLEM);
    assert_non_null(strstr(a->fix, "ip link set eth2 up"));
    assert_null(advised(info, "MTU"));
    free(info);
    put_port("mlx5_0", "link_layer", "InfiniBand\n");
    put_port("mlx5_0", "state", "2: INIT\n");
    put_port("mlx5_0", "phys_state", "5: LinkUp\n");
    info = read_all(NULL);
    assert_non_null(strstr(advised(info, "INIT")->fix, "opensm"));
    free(info);
}

static void only_version_one_and_no_address(void **state)
{
    (void)state;
    put_good_host();
    put_port("mlx5_0", "gid_attrs/types/1", "IB/RoCE v1\n");
    put_port("mlx5_0", "gid_attrs/types/3", "IB/RoCE v1\n");
    put_port("mlx5_0", "gids/2", "fe80:0000:0000:0000:0202:c9ff:fe00:0002");
    put_port("mlx5_0", "gids/3", "fe80:0000:0000:0000:0202:c9ff:fe00:0002");
    struct fabric_info *info = read_all(NULL);
    assert_non_null(advised(info, "RoCE version 1 only"));
    const struct fabric_advice *a = advised(info, "no IP address");
    assert_non_null(a);
    assert_non_null(strstr(a->fix, "ip addr add ADDRESS/BITS dev eth2"));
    free(info);
}

static void limits_of_devices(void **state)
{
    (void)state;
    put_good_host();
    struct fabric_info *info = read_all(NULL);
    struct fabric_info_limits *l = &info->devices[0].limits;
    *l = good_limits();
    l->max_mw = 0;
    assert_non_null(advised(info, "no memory windows"));
    *l = good_limits();
    l->max_srq = 0;
    assert_non_null(advised(info, "no shared receive queues"));
    *l = good_limits();
    l->max_init_rd_atom = 1;
    assert_non_null(advised(info, "only 1 RDMA reads"));
    *l = good_limits();
    l->max_inline = 60;
    assert_non_null(advised(info, "above 60 bytes"));
    *l = (struct fabric_info_limits){.known = false};
    info->devices[0].open_errno = EACCES;
    assert_non_null(advised(info, "permission denied"));
    info->devices[0].open_errno = ENODEV;
    assert_non_null(strstr(advised(info, "libibverbs")->fix, "ibverbs-providers"));
    free(info);
}

static void counters_tell_of_trouble(void **state)
{
    (void)state;
    put_good_host();
    put_port("mlx5_0", "hw_counters/out_of_sequence", "7\n");
    put_port("mlx5_0", "hw_counters/packet_seq_err", "9\n");
    put_port("mlx5_0", "hw_counters/rnr_nak_retry_err", "5\n");
    put_port("mlx5_0", "hw_counters/np_cnp_sent", "3\n");
    put_port("mlx5_0", "counters/symbol_error", "2\n");
    put_port("mlx5_0", "counters/link_downed", "1\n");
    struct fabric_info *info = read_all(NULL);
    const struct fabric_advice *a = advised(info, "packets were lost");
    assert_non_null(a);
    assert_non_null(strstr(a->what, "out_of_sequence=7, packet_seq_err=9"));
    assert_non_null(strstr(a->fix, "PFC"));
    assert_non_null(strstr(advised(info, "no buffer ready")->what, "rnr_nak_retry_err=5"));
    assert_non_null(strstr(advised(info, "asked to wait")->what, "np_cnp_sent=3"));
    assert_non_null(strstr(advised(info, "bits went wrong")->what, "symbol_error=2"));
    assert_non_null(strstr(advised(info, "given up")->what, "link_downed=1"));
    free(info);
}

static void names_of_counters(void **state)
{
    (void)state;
    assert_int_equal(fabric_counter_kind_of("port_xmit_data"), FABRIC_COUNTER_OTHER);
    assert_int_equal(fabric_counter_kind_of("rcvd_pkts"), FABRIC_COUNTER_OTHER);
    assert_int_equal(fabric_counter_kind_of("port_xmit_wait"), FABRIC_COUNTER_CONGESTION);
    assert_int_equal(fabric_counter_kind_of("rx_prio3_pause"), FABRIC_COUNTER_CONGESTION);
    assert_int_equal(fabric_counter_kind_of("local_ack_timeout_err"), FABRIC_COUNTER_LOSS);
    assert_int_equal(fabric_counter_kind_of("completer_retry_err"), FABRIC_COUNTER_LOSS);
    assert_int_equal(fabric_counter_kind_of("send_rnr_err"), FABRIC_COUNTER_RECEIVER);
    assert_int_equal(fabric_counter_kind_of("retry_rnr_exceeded_err"), FABRIC_COUNTER_BROKEN);
    assert_int_equal(fabric_counter_kind_of("retry_exceeded_err"), FABRIC_COUNTER_BROKEN);
}

static void addresses_of_gids(void **state)
{
    static const struct {
        const char *gid, *ip;
    } cases[] = {
        {"0000:0000:0000:0000:0000:ffff:c000:0201", "192.0.2.1"},
        {"2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"},
        {"fe80:0000:0000:0000:0202:c9ff:fe00:0001", ""},
        {"0000:0000:0000:0000:0000:0000:0000:0000", ""},
        {"nonsense", ""},
        {"", ""},
    };
    char ip[FABRIC_INFO_ADDRESS];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        fabric_info_gid_ip(cases[i].gid, ip);
        assert_string_equal(ip, cases[i].ip);
    }
}

/* What is there may be anything: nothing of it is believed blindly. */
static void nonsense_in_the_files(void **state)
{
    char text[5000];
    (void)state;
    put_good_host();
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    put_port("mlx5_0", "state", text);
    put_port("mlx5_0", "rate", "1e99 Gb/sec");
    put_port("mlx5_0", "gids/2", text);
    put_port("mlx5_0", "gids/notanumber", "0000:0000:0000:0000:0000:ffff:0a01:0203");
    put_port("mlx5_0", "hw_counters/big", "99999999999999999999999\n");
    put_port("mlx5_0", "hw_counters/words", "many\n");
    put("sys/class/infiniband/mlx5_0/ports/999/state", "4: ACTIVE\n");
    put("sys/class/infiniband/mlx5_0/ports/two/state", "4: ACTIVE\n");
    put("proc/meminfo", "MemTotal: 99999999999999999999 kB\nHugePages_Total:\n");
    put("proc/self/limits", "Max locked memory\n");
    put_netdev("eth2", "-1\n");
    struct fabric_info *info = read_all(NULL);
    assert_int_equal(info->port_count, 1);
    assert_false(info->ports[0].active);
    assert_int_equal(info->ports[0].megabits, 0);
    assert_int_equal(info->gid_count, 3);
    assert_int_equal(info->counter_count, 3);
    assert_int_equal(info->memory_bytes, 0);
    assert_int_equal(info->memlock_bytes, 0);
    assert_int_equal(info->net_count, 0);
    assert_true(advice_count(info) > 0);
    free(info);
}

static void too_many_of_everything(void **state)
{
    char name[32];
    (void)state;
    wipe();
    put_host("unlimited");
    for (unsigned i = 0; i < FABRIC_INFO_DEVICES + 3; i++) {
        snprintf(name, sizeof(name), "rxe%u", i);
        put_roce(name, "eth2\n");
        put_port(name, "state", "1: DOWN\n");
    }
    struct fabric_info *info = read_all(NULL);
    assert_int_equal(info->device_count, FABRIC_INFO_DEVICES);
    assert_int_equal(info->port_count, FABRIC_INFO_DEVICES);
    assert_string_equal(info->devices[2].name, "rxe2"); /* by number, not by letter */
    struct fabric_advice few[2];
    assert_int_equal(fabric_info_advise(info, few, 2), 2);
    free(info);
}

static int begin(void **state)
{
    (void)state;
    return mkdtemp(root) == NULL;
}

static int end(void **state)
{
    char command[600];
    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_is_read),
        cmocka_unit_test(one_device_is_picked),
        cmocka_unit_test(a_good_host_needs_nothing),
        cmocka_unit_test(no_device_is_no_problem),
        cmocka_unit_test(missing_nodes_and_memory),
        cmocka_unit_test(ports_and_addresses),
        cmocka_unit_test(only_version_one_and_no_address),
        cmocka_unit_test(limits_of_devices),
        cmocka_unit_test(counters_tell_of_trouble),
        cmocka_unit_test(names_of_counters),
        cmocka_unit_test(addresses_of_gids),
        cmocka_unit_test(nonsense_in_the_files),
        cmocka_unit_test(too_many_of_everything),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
