/*
 * sheet.h: what a command has to say, printed for people (an aligned table, or lines of "name value") or as
 * JSON with raw numbers and stable keys.
 *
 * A sheet has described columns. Cells are appended in order of the columns, row after row; text is copied.
 * When memory runs out the sheet remembers it, and sheet_print says so.
 */
#ifndef CISTERN_SERVICES_CTL_SHEET_H
#define CISTERN_SERVICES_CTL_SHEET_H

#include <stdio.h>

#include "common/base.h"

enum sheet_kind {
    SHEET_TEXT,
    SHEET_NUMBER,
    SHEET_BYTES,    /* a number; for people "1.5 GiB" */
    SHEET_DURATION, /* a number of nanoseconds; for people "1.2ms" */
    SHEET_BOOL,     /* for people yes or no */
    SHEET_NUMBERS,  /* an array of numbers */
    SHEET_LINES,    /* text; its lines are an array of strings in JSON, "one; two" in a table */
};
struct sheet_column {
    const char *key;   /* of JSON; never changes once it was released */
    const char *title; /* for people; NULL: in JSON only */
    enum sheet_kind kind;
};
struct sheet_cell {
    uint64_t number; /* SHEET_NUMBERS: how many */
    char *text;
    uint32_t *numbers;
};
struct sheet {
    const struct sheet_column *columns; /* the caller's */
    size_t column_count;
    struct sheet_cell *cells;
    size_t cell_count, cell_room;
    bool out_of_memory;
};
enum sheet_form {
    SHEET_TABLE,  /* a line of titles, then a line a row */
    SHEET_RECORD, /* "title  value" lines, of the first row */
    SHEET_ARRAY,  /* JSON: an array of objects */
    SHEET_OBJECT, /* JSON: the first row as one object */
};

void sheet_init(struct sheet *s, const struct sheet_column *columns, size_t column_count);
void sheet_free(struct sheet *s);
/* Each appends one cell; the column must be of that kind (asserted: our own code gives it). */
void sheet_add_text(struct sheet *s, const char *text); /* SHEET_TEXT and SHEET_LINES */
void sheet_add_number(struct sheet *s, uint64_t value); /* SHEET_NUMBER, SHEET_BYTES and SHEET_DURATION */
void sheet_add_bool(struct sheet *s, bool value);
void sheet_add_numbers(struct sheet *s, const uint32_t *values, size_t count);
/* Whole rows only (asserted). 0; -ENOMEM when a cell was lost: nothing is printed; -EIO when out failed. */
int sheet_print(const struct sheet *s, enum sheet_form form, FILE *out);

#endif
