/* table_private.h: between the files of common/table. */
#ifndef CISTERN_COMMON_TABLE_TABLE_PRIVATE_H
#define CISTERN_COMMON_TABLE_TABLE_PRIVATE_H

#include "common/table/table.h"

/* Adds the volume record at index to an index that is there; the record is in use and not in the index yet.
 */
void table_index_insert(struct table *t, uint32_t index);

#endif
