/*
 * Any bytes on the media: opening a store and reading all of it must end in an answer (store_image.h makes
 * the bytes).
 */
#include "tests/fuzz/store_image.h"

#include "tests/fuzz/fuzz.h"

static void read_all(struct device *dev)
{
    for (uint32_t p = 0; p < 2; p++) {
        uint64_t cursor = 0;
        struct store_key keys[16];
        unsigned rounds = 0;
        do {
            unsigned n = store_list(opened, p, &cursor, keys, 16);
            for (unsigned i = 0; i < n; i++)
                request(dev, store_read, keys[i], 0, 32);
        } while (cursor && ++rounds < 100);
    }
    for (uint64_t b = 0; b < 10; b++) {
        struct store_key key = {.layer = 1, .block = b, .hash = b};
        request(dev, store_read, key, 0, 32);
        request(dev, store_write, key, 0, 3);
        request(dev, store_read, key, 0, 32);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct device *dev = image_device(data, size);
    if (!dev)
        return 0;
    done = false;
    store_open(&env, dev, NULL, NULL, on_open, NULL);
    run(dev);
    if (opened) {
        read_all(dev);
        device_ram_kill(dev, 1);
        store_destroy(opened);
        opened = NULL;
    }
    device_destroy(dev);
    return 0;
}

size_t fuzz_seed(uint64_t seed, uint8_t *out, size_t cap)
{
    return image_seed(seed, out, cap);
}
