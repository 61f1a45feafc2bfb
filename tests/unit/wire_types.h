/* wire_types.h: all control messages there are, for tests and fuzzing; from the protocols' tables. */
#ifndef CISTERN_TESTS_UNIT_WIRE_TYPES_H
#define CISTERN_TESTS_UNIT_WIRE_TYPES_H

#include "common/wire/mdc_proto.h"
#include "common/wire/vbs_proto.h"

static const struct wire_type *const wire_types[] = {
#define MDC_METHOD(num, name, handler, req, rep) &req##_type, &rep##_type,
#define MDC_NOTIFY(num, name, msg)               &msg##_type,
#include "common/wire/mdc.def"
#undef MDC_METHOD
#undef MDC_NOTIFY
    &mdc_error_type,
    &vbs_open_request_type,
    &vbs_open_reply_type,
};

#endif
