/* fabric_params.c: what a connection has negotiated: tcp(7) and the queue pair tell (ibv_query_qp(3)). */
#include "rdma/fabric_info.h"
#include "rdma/fabric_tcp.h"
#include "rdma/fabric_verbs.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* 4.096 us * 2^exponent (IBTA 11.2.4.2); 0: never. */
static uint32_t ack_timeout_us(uint8_t exponent)
{
    return exponent == 0 || exponent > 31 ? 0 : (uint32_t)(4.096 * (double)(1ull << exponent));
}

static int verbs_params(const struct fabric_conn *conn, struct fabric_params *out)
{
    const struct verbs_conn *vc = container_of(conn, const struct verbs_conn, core);
    struct ibv_qp_attr a;
    struct ibv_qp_init_attr init;
    if (vc->id == NULL || vc->id->qp == NULL)
        return -ENOTCONN;
    memset(&a, 0, sizeof(a));
    const int rc = ibv_query_qp(vc->id->qp, &a,
                                IBV_QP_CAP | IBV_QP_PATH_MTU | IBV_QP_MAX_QP_RD_ATOMIC |
                                    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT,
                                &init);
    if (rc != 0)
        return rc > 0 ? -rc : -EIO;
    snprintf(out->device, sizeof(out->device), "%s", ibv_get_device_name(vc->id->verbs->device));
    out->port = vc->id->port_num;
    out->mtu = a.path_mtu >= IBV_MTU_256 && a.path_mtu <= IBV_MTU_4096 ? 128u << a.path_mtu : 0;
    out->send_queue = init.cap.max_send_wr;
    out->recv_queue = init.srq != NULL ? 0 : init.cap.max_recv_wr;
    out->send_sge = init.cap.max_send_sge;
    out->inline_bytes = init.cap.max_inline_data;
    out->reads_out = a.max_rd_atomic;
    out->reads_in = a.max_dest_rd_atomic;
    out->ack_timeout_us = ack_timeout_us(a.timeout);
    out->retries = a.retry_cnt;
    out->credits = conn->tx_credits;
    return 0;
}

static int tcp_params(const struct fabric_conn *conn, struct fabric_params *out)
{
    const struct tcp_conn *tc = container_of(conn, const struct tcp_conn, core);
    struct tcp_info info;
    socklen_t len = sizeof(info);
    int send_bytes = 0, recv_bytes = 0;
    memset(&info, 0, sizeof(info));
    if (!tc->open)
        return -ENOTCONN;
    if (getsockopt(tc->lfd.fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return -errno;
    len = sizeof(int);
    if (getsockopt(tc->lfd.fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, &len) != 0)
        return -errno;
    len = sizeof(int);
    if (getsockopt(tc->lfd.fd, SOL_SOCKET, SO_RCVBUF, &recv_bytes, &len) != 0)
        return -errno;
    out->mtu = info.tcpi_snd_mss;
    out->round_trip_us = info.tcpi_rtt;
    out->send_buffer_bytes = send_bytes > 0 ? (uint32_t)send_bytes : 0;
    out->recv_buffer_bytes = recv_bytes > 0 ? (uint32_t)recv_bytes : 0;
    return 0;
}

int fabric_conn_params(const struct fabric_conn *conn, struct fabric_params *out)
{
    struct fabric_params p = {.provider = conn->fabric->ops->kind, .lent = conn->rx_lent};
    int rc = -ENOTSUP;
    if (!fabric_conn_is_up(conn))
        return -ENOTCONN;
    if (p.provider == FABRIC_PROVIDER_VERBS)
        rc = verbs_params(conn, &p);
    else if (p.provider == FABRIC_PROVIDER_TCP)
        rc = tcp_params(conn, &p);
    if (rc == 0)
        *out = p;
    return rc;
}
