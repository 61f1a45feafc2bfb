/* sheet.c: tables for people and JSON for programs, from the same cells. */
#include "services/ctl/sheet.h"

#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/wire/wire_utf8.h"

enum { NUMBER_BYTES = 24 }; /* of format_size, and of 2^64 in decimal */

void sheet_init(struct sheet *s, const struct sheet_column *columns, size_t column_count)
{
    MUST(column_count > 0);
    *s = (struct sheet){.columns = columns, .column_count = column_count};
}

void sheet_free(struct sheet *s)
{
    for (size_t i = 0; i < s->cell_count; i++) {
        free(s->cells[i].text);
        free(s->cells[i].numbers);
    }
    free(s->cells);
    s->cells = NULL;
    s->cell_count = s->cell_room = 0;
}

/* ---- cells ---- */

static struct sheet_cell *add(struct sheet *s, unsigned kinds)
{
    MUST((1u << s->columns[s->cell_count % s->column_count].kind & kinds) != 0);
    if (s->cell_count == s->cell_room) {
        const size_t room = s->cell_room == 0 ? 64 : s->cell_room * 2;
        struct sheet_cell *cells = realloc(s->cells, room * sizeof(*cells));
        if (cells == NULL) {
            s->out_of_memory = true;
            return NULL;
        }
        s->cells = cells;
        s->cell_room = room;
    }
    struct sheet_cell *c = &s->cells[s->cell_count++];
    *c = (struct sheet_cell){0};
    return c;
}

void sheet_add_text(struct sheet *s, const char *text)
{
    struct sheet_cell *c = add(s, 1u << SHEET_TEXT | 1u << SHEET_LINES);
    if (c != NULL && (c->text = strdup(text)) == NULL)
        s->out_of_memory = true;
}

void sheet_add_number(struct sheet *s, uint64_t value)
{
    struct sheet_cell *c = add(s, 1u << SHEET_NUMBER | 1u << SHEET_BYTES | 1u << SHEET_DURATION);
    if (c != NULL)
        c->number = value;
}

void sheet_add_bool(struct sheet *s, bool value)
{
    struct sheet_cell *c = add(s, 1u << SHEET_BOOL);
    if (c != NULL)
        c->number = value;
}

void sheet_add_numbers(struct sheet *s, const uint32_t *values, size_t count)
{
    struct sheet_cell *c = add(s, 1u << SHEET_NUMBERS);
    if (c == NULL)
        return;
    c->numbers = calloc(count + 1, sizeof(*values));
    if (c->numbers == NULL) {
        s->out_of_memory = true;
        return;
    }
    memcpy(c->numbers, values, count * sizeof(*values));
    c->number = count;
}

/* ---- for people ---- */

/* What came from elsewhere must not steer the terminal: no control characters. Line ends become "; ". Returns
 * the number of characters. */
static size_t put_plain(const char *text, FILE *out)
{
    size_t width = 0;
    const size_t bytes = strlen(text);
    for (size_t i = 0; i < bytes;) {
        const size_t n = wire_utf8_char((const uint8_t *)text + i, bytes - i);
        const unsigned char ch = (unsigned char)text[i];
        const bool c1 = n == 2 && ch == 0xc2 && (unsigned char)text[i + 1] < 0xa0;
        width++;
        if (ch == '\n') {
            width++;
            if (out != NULL)
                fputs("; ", out);
        } else if (out != NULL && (n == 0 || ch < ' ' || ch == 0x7f || c1)) {
            fputc('?', out);
        } else if (out != NULL) {
            fwrite(text + i, 1, n, out);
        }
        i += n == 0 ? 1 : n;
    }
    return width;
}

/* The number of characters; prints them when out is not NULL. */
static size_t put_cell(enum sheet_kind kind, const struct sheet_cell *c, FILE *out)
{
    char text[NUMBER_BYTES];
    size_t width = 0;
    switch (kind) {
    case SHEET_TEXT:
    case SHEET_LINES:
        return put_plain(c->text[0] == '\0' ? "-" : c->text, out);
    case SHEET_BOOL:
        return put_plain(c->number != 0 ? "yes" : "no", out);
    case SHEET_BYTES:
        return put_plain(format_size(c->number, text), out);
    case SHEET_DURATION:
        return put_plain(format_duration(c->number, text), out);
    case SHEET_NUMBER:
        snprintf(text, sizeof(text), "%llu", (unsigned long long)c->number);
        return put_plain(text, out);
    case SHEET_NUMBERS:
        for (uint64_t i = 0; i < c->number; i++) {
            snprintf(text, sizeof(text), "%s%u", i > 0 ? "," : "", c->numbers[i]);
            width += put_plain(text, out);
        }
        return c->number == 0 ? put_plain("-", out) : width;
    }
    return 0;
}

static bool is_number(enum sheet_kind kind)
{
    return kind == SHEET_NUMBER || kind == SHEET_BYTES || kind == SHEET_DURATION;
}

static void put_spaces(size_t count, FILE *out)
{
    for (size_t i = 0; i < count; i++)
        fputc(' ', out);
}

static size_t column_width(const struct sheet *s, size_t column)
{
    size_t width = put_plain(s->columns[column].title, NULL);
    for (size_t i = column; i < s->cell_count; i += s->column_count)
        width = max_u64(width, put_cell(s->columns[column].kind, &s->cells[i], NULL));
    return width;
}

/* One line: of the titles when cells is NULL. The last column is not filled up behind its text. */
static void put_row(const struct sheet *s, const struct sheet_cell *cells, const size_t *widths, size_t last,
                    FILE *out)
{
    for (size_t i = 0; i <= last; i++) {
        const struct sheet_column *c = &s->columns[i];
        if (c->title == NULL)
            continue;
        const size_t used = cells != NULL ? put_cell(c->kind, &cells[i], NULL) : put_plain(c->title, NULL);
        if (is_number(c->kind))
            put_spaces(widths[i] - used, out);
        if (cells != NULL)
            put_cell(c->kind, &cells[i], out);
        else
            put_plain(c->title, out);
        if (i != last)
            put_spaces((is_number(c->kind) ? 0 : widths[i] - used) + 2, out);
    }
    fputc('\n', out);
}

static int print_table(const struct sheet *s, FILE *out)
{
    size_t *widths = calloc(s->column_count, sizeof(*widths));
    size_t last = 0;
    if (widths == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < s->column_count; i++)
        if (s->columns[i].title != NULL) {
            widths[i] = column_width(s, i);
            last = i;
        }
    put_row(s, NULL, widths, last, out);
    for (size_t i = 0; i < s->cell_count; i += s->column_count)
        put_row(s, &s->cells[i], widths, last, out);
    free(widths);
    return 0;
}

/* Each line behind the first begins below it. */
static void put_lines(const char *text, size_t indent, FILE *out)
{
    char line[1024];
    for (bool first = true; first || *text != '\0'; first = false) {
        const size_t n = strcspn(text, "\n");
        snprintf(line, sizeof(line), "%.*s", (int)min_u64(n, sizeof(line) - 1), text);
        if (!first) {
            fputc('\n', out);
            put_spaces(indent, out);
        }
        put_plain(line[0] == '\0' ? "-" : line, out);
        text += n + (text[n] == '\n');
    }
}

static void print_record(const struct sheet *s, FILE *out)
{
    size_t width = 0;
    for (size_t i = 0; i < s->column_count; i++)
        if (s->columns[i].title != NULL)
            width = max_u64(width, put_plain(s->columns[i].title, NULL));
    for (size_t i = 0; i < s->column_count && i < s->cell_count; i++) {
        const struct sheet_column *c = &s->columns[i];
        if (c->title == NULL)
            continue;
        put_spaces(width + 2 - put_plain(c->title, out), out);
        if (c->kind == SHEET_LINES)
            put_lines(s->cells[i].text, width + 2, out);
        else
            put_cell(c->kind, &s->cells[i], out);
        fputc('\n', out);
    }
}

/* ---- JSON (RFC 8259) ---- */

static void put_json_text(const char *text, size_t bytes, FILE *out)
{
    fputc('"', out);
    for (size_t i = 0; i < bytes;) {
        const size_t n = wire_utf8_char((const uint8_t *)text + i, bytes - i);
        const unsigned char ch = (unsigned char)text[i];
        if (n == 0)
            fputs("\\ufffd", out);
        else if (ch == '"' || ch == '\\')
            fprintf(out, "\\%c", ch);
        else if (ch < ' ' || ch == 0x7f)
            fprintf(out, "\\u%04x", ch);
        else
            fwrite(text + i, 1, n, out);
        i += n == 0 ? 1 : n;
    }
    fputc('"', out);
}

static void put_json_lines(const char *text, FILE *out)
{
    fputc('[', out);
    while (*text != '\0') {
        const size_t n = strcspn(text, "\n");
        put_json_text(text, n, out);
        text += n + (text[n] == '\n');
        if (*text != '\0')
            fputs(", ", out);
    }
    fputc(']', out);
}

static void put_json_cell(enum sheet_kind kind, const struct sheet_cell *c, FILE *out)
{
    switch (kind) {
    case SHEET_TEXT:
        put_json_text(c->text, strlen(c->text), out);
        break;
    case SHEET_LINES:
        put_json_lines(c->text, out);
        break;
    case SHEET_BOOL:
        fputs(c->number != 0 ? "true" : "false", out);
        break;
    case SHEET_NUMBER:
    case SHEET_BYTES:
    case SHEET_DURATION:
        fprintf(out, "%llu", (unsigned long long)c->number);
        break;
    case SHEET_NUMBERS:
        fputc('[', out);
        for (uint64_t i = 0; i < c->number; i++)
            fprintf(out, "%s%u", i > 0 ? ", " : "", c->numbers[i]);
        fputc(']', out);
        break;
    }
}

static void put_json_row(const struct sheet *s, const struct sheet_cell *cells, FILE *out)
{
    fputc('{', out);
    for (size_t i = 0; i < s->column_count; i++) {
        fprintf(out, "%s\"%s\": ", i > 0 ? ", " : "", s->columns[i].key);
        put_json_cell(s->columns[i].kind, &cells[i], out);
    }
    fputc('}', out);
}

static void print_array(const struct sheet *s, FILE *out)
{
    fputc('[', out);
    for (size_t i = 0; i < s->cell_count; i += s->column_count) {
        fputs(i > 0 ? ",\n " : "", out);
        put_json_row(s, &s->cells[i], out);
    }
    fputs("]\n", out);
}

int sheet_print(const struct sheet *s, enum sheet_form form, FILE *out)
{
    int rc = 0;
    if (s->out_of_memory)
        return -ENOMEM;
    MUST(s->cell_count % s->column_count == 0);
    switch (form) {
    case SHEET_TABLE:
        rc = print_table(s, out);
        break;
    case SHEET_RECORD:
        print_record(s, out);
        break;
    case SHEET_ARRAY:
        print_array(s, out);
        break;
    case SHEET_OBJECT:
        MUST(s->cell_count >= s->column_count);
        put_json_row(s, s->cells, out);
        fputc('\n', out);
        break;
    }
    if (rc == 0 && (fflush(out) != 0 || ferror(out)))
        rc = -EIO;
    return rc;
}
