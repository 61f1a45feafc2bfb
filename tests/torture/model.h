/* model.h: what the two halves of the model share: model.c (what was asked for), judge.c (what is there). */
#ifndef CISTERN_TESTS_TORTURE_MODEL_H
#define CISTERN_TESTS_TORTURE_MODEL_H

#include "tests/torture/torture.h"

/* Is the unit that of block and version (0: zeroes)? */
bool model_unit_is(const uint8_t *at, uint64_t block, uint32_t unit, uint64_t version);
struct store_key model_key(uint64_t block);
enum store_record_kind model_record_kind(unsigned record);
uint32_t model_record_index(unsigned record);
void model_record_image(unsigned record, uint64_t value, uint8_t out[128]);
struct image *model_image(struct block *b, uint64_t number);
/* Does what q found agree with the image: version, map, and, of a read, content? */
bool model_matches(const struct request *q, const struct image *im);
void model_fill(struct request *q, uint32_t first, uint32_t count, uint64_t version);
int model_submit(struct store *s, struct request *q);

#endif
