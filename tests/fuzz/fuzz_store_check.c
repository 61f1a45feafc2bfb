/*
 * Any bytes on the media: a check must come to an end and write nothing; a repair of what it found must leave
 * nothing to be repaired. And a store that the check calls clean must open without damage, with as many
 * blocks as the check has counted.
 */
#include "tests/fuzz/store_image.h"

#include "services/rwm/store_check.h"
#include "tests/fuzz/fuzz.h"

static struct store_open_report opened_report;

static int pump(void *arg)
{
    device_ram_pump(arg, 64);
    return 0;
}

static void found(void *arg, const struct store_finding *f)
{
    (void)arg;
    MUST(f->kind < STORE_FINDINGS && f->text[0]);
}

static struct store_check *check(struct device *dev, struct store_check_report *report)
{
    const struct store_check_options o = {.data = true, .found = found, .wait = pump, .arg = dev};
    struct store_check *c;
    uint64_t before = medium_sequence(device_ram_medium(dev));
    MUST(store_check_run(&env, dev, NULL, &o, &c) == 0);
    MUST(medium_sequence(device_ram_medium(dev)) == before);
    *report = *store_check_report(c);
    return c;
}

static void on_opened(void *arg, struct store *s, const struct store_open_report *r)
{
    (void)arg;
    opened = s;
    opened_report = *r;
    done = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct device *dev = image_device(data, size);
    struct store_check_report first, again;
    uint64_t written;
    if (!dev)
        return 0;
    struct store_check *c = check(dev, &first);
    if (first.complete && first.repairable) {
        MUST(store_repair(c, false, NULL, NULL, &written) == 0 && written == first.repairable);
        struct store_check *after = check(dev, &again);
        MUST(again.repairable == 0 && again.worst <= first.worst && again.blocks == first.blocks);
        store_check_free(after);
    }
    store_check_free(c);
    if (first.complete && first.worst <= STORE_LEVEL_NOTE) {
        done = false;
        store_open(&env, dev, NULL, NULL, on_opened, NULL);
        run(dev);
        MUST(opened && !opened_report.damaged);
        MUST(opened_report.blocks == first.blocks && opened_report.replayed_records == first.records);
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
