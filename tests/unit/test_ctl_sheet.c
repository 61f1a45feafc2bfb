/* test_ctl_sheet.c: tables that line up, JSON that any reader takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "services/ctl/sheet.h"

static const struct sheet_column columns[] = {
    {"name", "NAME", SHEET_TEXT},     {"size_bytes", "SIZE", SHEET_BYTES},
    {"hidden", NULL, SHEET_NUMBER},   {"members", "MEMBERS", SHEET_NUMBERS},
    {"served", "SERVED", SHEET_BOOL},
};

/* What is printed; the caller frees it. */
static char *print(const struct sheet *s, enum sheet_form form)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    assert_int_equal(sheet_print(s, form, f), 0);
    fclose(f);
    return text;
}

static void assert_prints(const struct sheet *s, enum sheet_form form, const char *expected)
{
    char *text = print(s, form);
    assert_string_equal(text, expected);
    free(text);
}

static void add_row(struct sheet *s, const char *name, uint64_t size, size_t members, bool served)
{
    static const uint32_t numbers[] = {7, 40, 11};
    sheet_add_text(s, name);
    sheet_add_number(s, size);
    sheet_add_number(s, 5);
    sheet_add_numbers(s, numbers, members);
    sheet_add_bool(s, served);
}

static void table_lines_up(void **state)
{
    struct sheet s;
    (void)state;
    sheet_init(&s, columns, ARRAY_LEN(columns));
    assert_prints(&s, SHEET_TABLE, "NAME  SIZE  MEMBERS  SERVED\n");
    add_row(&s, "a", 512, 3, true);
    add_row(&s, "longer", 1536 * MIB, 0, false);
    assert_prints(&s, SHEET_TABLE,
                  "NAME       SIZE  MEMBERS  SERVED\n"
                  "a         512 B  7,40,11  yes\n"
                  "longer  1.5 GiB  -        no\n");
    sheet_free(&s);
}

static void record_shows_the_first_row(void **state)
{
    struct sheet s;
    (void)state;
    sheet_init(&s, columns, ARRAY_LEN(columns));
    add_row(&s, "a", 512, 1, true);
    assert_prints(&s, SHEET_RECORD, "NAME     a\nSIZE     512 B\nMEMBERS  7\nSERVED   yes\n");
    sheet_free(&s);
}

static void json_has_raw_numbers(void **state)
{
    struct sheet s;
    (void)state;
    sheet_init(&s, columns, ARRAY_LEN(columns));
    assert_prints(&s, SHEET_ARRAY, "[]\n");
    add_row(&s, "a", 1536 * MIB, 2, true);
    assert_prints(
        &s, SHEET_OBJECT,
        "{\"name\": \"a\", \"size_bytes\": 1610612736, \"hidden\": 5, \"members\": [7, 40], \"served\": true}\n");
    add_row(&s, "", UINT64_MAX, 0, false);
    assert_prints(
        &s, SHEET_ARRAY,
        "[{\"name\": \"a\", \"size_bytes\": 1610612736, \"hidden\": 5, \"members\": [7, 40], \"served\": true},\n"
        " {\"name\": \"\", \"size_bytes\": 18446744073709551615, \"hidden\": 5, \"members\": [], \"served\": false}]\n");
    sheet_free(&s);
}

static const struct sheet_column texts[] = {{"t", "T", SHEET_TEXT}, {"l", "L", SHEET_LINES}};

static void text_is_escaped_in_json(void **state)
{
    struct sheet s;
    (void)state;
    sheet_init(&s, texts, ARRAY_LEN(texts));
    sheet_add_text(&s, "q\" b\\ n\n e\x1b z\xc3\xa9 cut\xe2\x82 end\xff");
    sheet_add_text(&s, "one\ntwo \"2\"\n");
    assert_prints(
        &s, SHEET_OBJECT,
        "{\"t\": \"q\\\" b\\\\ n\\u000a e\\u001b z\xc3\xa9 cut\\ufffd\\ufffd end\\ufffd\", \"l\": [\"one\", "
        "\"two \\\"2\\\"\"]}\n");
    sheet_free(&s);
    sheet_init(&s, texts, ARRAY_LEN(texts));
    sheet_add_text(&s, "");
    sheet_add_text(&s, "");
    assert_prints(&s, SHEET_OBJECT, "{\"t\": \"\", \"l\": []}\n");
    assert_prints(&s, SHEET_RECORD, "T  -\nL  -\n");
    sheet_free(&s);
}

/* Names and sentences come from elsewhere. */
static void text_cannot_steer_the_terminal(void **state)
{
    struct sheet s;
    (void)state;
    sheet_init(&s, texts, ARRAY_LEN(texts));
    sheet_add_text(&s, "a\x1b[2Jb\r\x7f\xc2\x9b\xff");
    sheet_add_text(&s, "one\ntwo");
    assert_prints(&s, SHEET_TABLE, "T           L\na?[2Jb????  one; two\n");
    assert_prints(&s, SHEET_RECORD, "T  a?[2Jb????\nL  one\n   two\n");
    sheet_free(&s);
}

/* Characters count, not bytes. */
static void accents_keep_the_columns(void **state)
{
    struct sheet s;
    (void)state;
    sheet_init(&s, texts, ARRAY_LEN(texts));
    sheet_add_text(&s, "\xc3\xa9\xc3\xa9");
    sheet_add_text(&s, "x");
    sheet_add_text(&s, "abc");
    sheet_add_text(&s, "y");
    assert_prints(&s, SHEET_TABLE, "T    L\n\xc3\xa9\xc3\xa9   x\nabc  y\n");
    sheet_free(&s);
}

static void many_rows_grow_the_sheet(void **state)
{
    static const struct sheet_column one[] = {{"n", "N", SHEET_NUMBER}};
    struct sheet s;
    (void)state;
    sheet_init(&s, one, 1);
    for (uint64_t i = 0; i < 1000; i++)
        sheet_add_number(&s, i);
    char *text = print(&s, SHEET_TABLE);
    size_t lines = 0;
    for (const char *p = text; *p != '\0'; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 1001);
    assert_non_null(strstr(text, "\n999\n"));
    free(text);
    sheet_free(&s);
}

static void full_disk_is_an_error(void **state)
{
    struct sheet s;
    FILE *f = fopen("/dev/full", "w");
    (void)state;
    if (f == NULL)
        skip();
    sheet_init(&s, columns, ARRAY_LEN(columns));
    assert_int_equal(sheet_print(&s, SHEET_ARRAY, f), -EIO);
    fclose(f);
    sheet_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_lines_up),
        cmocka_unit_test(record_shows_the_first_row),
        cmocka_unit_test(json_has_raw_numbers),
        cmocka_unit_test(text_is_escaped_in_json),
        cmocka_unit_test(text_cannot_steer_the_terminal),
        cmocka_unit_test(accents_keep_the_columns),
        cmocka_unit_test(many_rows_grow_the_sheet),
        cmocka_unit_test(full_disk_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
