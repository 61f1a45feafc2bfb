/* fabric_auth.c: the proof that both ends know the cluster's secret. */
#include "rdma/fabric_provider.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

static void auth_mac(const struct fabric_config *config, uint8_t direction,
                     const struct fabric_hello *connector, const struct fabric_hello *listener,
                     const struct fabric_auth *a, uint8_t out[32])
{
    uint8_t text[1 + 2 * sizeof(struct fabric_hello) + 8];
    text[0] = direction;
    memcpy(text + 1, connector, sizeof(*connector));
    memcpy(text + 1 + sizeof(*connector), listener, sizeof(*listener));
    memcpy(text + 1 + 2 * sizeof(*connector), &a->recv_messages, 4);
    memcpy(text + 1 + 2 * sizeof(*connector) + 4, &a->beat_ms, 4);
    unsigned len = 0;
    /* A key of no bytes is legal for HMAC, but not a NULL one. */
    MUST(HMAC(EVP_sha256(), config->secret, (int)config->secret_len, text, sizeof(text), out, &len) != NULL);
    MUST(len == 32);
}

void fabric_auth_sign(const struct fabric_config *config, uint8_t direction,
                      const struct fabric_hello *connector, const struct fabric_hello *listener,
                      struct fabric_auth *a)
{
    auth_mac(config, direction, connector, listener, a, a->mac);
}

bool fabric_auth_verify(const struct fabric_config *config, uint8_t direction,
                        const struct fabric_hello *connector, const struct fabric_hello *listener,
                        const struct fabric_auth *a)
{
    uint8_t want[32];
    auth_mac(config, direction, connector, listener, a, want);
    return CRYPTO_memcmp(want, a->mac, sizeof(want)) == 0;
}
