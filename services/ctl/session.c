/* session.c: a command's side of the cluster: a loop of its own, calls that block, messages, results. */
#include "services/ctl/ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "rdma/fabric.h"
#include "services/vbs/addr_list.h"

/* ---- messages ---- */

/* Some of the text comes from elsewhere: it must not steer the terminal. */
static void put_line(const char *fmt, va_list args)
{
    char text[1024];
    vsnprintf(text, sizeof(text), fmt, args);
    for (char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
    fputs(text, stderr);
}

void ctl_progress(struct ctl *ctl, const char *fmt, ...)
{
    va_list args;
    if (!isatty(STDERR_FILENO) || (fmt[0] == '\0' && !ctl->progress_shown))
        return;
    fputs("\r\033[K", stderr);
    ctl->progress_shown = fmt[0] != '\0';
    va_start(args, fmt);
    put_line(fmt, args);
    va_end(args);
}

void ctl_say(struct ctl *ctl, const char *fmt, ...)
{
    va_list args;
    ctl_progress(ctl, "%s", "");
    fputs("cistern: ", stderr);
    va_start(args, fmt);
    put_line(fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

bool ctl_name(struct ctl *ctl, char out[MDC_NAME_MAX], const char *text)
{
    const size_t len = strlen(text);
    if (len >= MDC_NAME_MAX) {
        ctl_say(ctl, "the name \"%.80s\" is too long: names have at most %d characters", text,
                MDC_NAME_MAX - 1);
        return false;
    }
    memset(out, 0, MDC_NAME_MAX);
    memcpy(out, text, len);
    return true;
}

/* ---- opening ---- */

static enum ctl_exit read_addrs(struct ctl *ctl, struct cluster_config *config)
{
    if (addr_list_parse(ctl->options->mdc, config->mdc, config->mdc_host, CLUSTER_MDCS_MAX,
                        &config->mdc_count) == 0)
        return CTL_DONE;
    ctl_say(ctl, "mdc: \"%s\" is not a list of addresses such as tcp:192.0.2.1:7100", ctl->options->mdc);
    return CTL_USAGE;
}

static enum ctl_exit read_settings(struct ctl *ctl, struct cluster_config *config,
                                   struct fabric_config *fabric)
{
    const struct ctl_options *o = ctl->options;
    if (o->mdc == NULL || o->mdc[0] == '\0') {
        ctl_say(
            ctl,
            "where is the metadata controller? Give --mdc, or \"mdc = ...\" in the configuration file (--config)");
        return CTL_USAGE;
    }
    if (o->secret_file == NULL) {
        ctl_say(
            ctl,
            "the cluster's secret is needed: give --secret-file, or \"secret-file = ...\" in the configuration file");
        return CTL_USAGE;
    }
    const int rc = config_read_cluster_secret(o->secret_file, fabric->secret, sizeof(fabric->secret),
                                              &fabric->secret_len);
    if (rc != 0) {
        ctl_say(ctl, "the secret in %s cannot be used: %s", o->secret_file, config_secret_error(rc));
        return CTL_USAGE;
    }
    return read_addrs(ctl, config);
}

enum ctl_exit ctl_open(struct ctl *ctl, bool with_table)
{
    struct cluster_config config = {.role = FABRIC_ROLE_ADMIN, .name = "cistern", .no_table = !with_table};
    struct fabric_config fabric = {.role = FABRIC_ROLE_ADMIN, .recv_messages = 8};
    MUST(ctl->loop == NULL);
    if (!ctl->options->verbose)
        log_set_level(LOG_ERROR_);
    const enum ctl_exit exit_status = read_settings(ctl, &config, &fabric);
    if (exit_status != CTL_DONE)
        return exit_status;
    rng_init_system(&ctl->rng);
    fabric.incarnation = config.instance = rng_u64(&ctl->rng) | 1;
    memcpy(config.host, ctl->host, sizeof(config.host));
    int rc = loop_create_real(NULL, &ctl->loop);
    ctl->env =
        (struct env){.loop = ctl->loop, .rng = &ctl->rng, .resolver = &resolve_system, .name = "cistern"};
    if (rc == 0)
        rc = addr_fabric_create(&ctl->env, config.mdc[0].provider, &fabric, &ctl->env.fabric);
    explicit_bzero(fabric.secret, sizeof(fabric.secret));
    if (rc == 0)
        rc = cluster_create(&ctl->env, &config, NULL, NULL, &ctl->cluster);
    if (rc == 0)
        return CTL_DONE;
    ctl_say(ctl, "cannot set up the connection to the cluster: %s", strerror(-rc));
    return CTL_FAILED;
}

void ctl_close(struct ctl *ctl)
{
    ctl_progress(ctl, "%s", "");
    if (ctl->cluster != NULL)
        cluster_destroy(ctl->cluster);
    if (ctl->env.fabric != NULL)
        fabric_destroy(ctl->env.fabric);
    if (ctl->loop != NULL)
        loop_destroy(ctl->loop);
    ctl->cluster = NULL;
    ctl->env.fabric = NULL;
    ctl->loop = NULL;
}

/* ---- calls ---- */

/* Between two tries of what was refused with AGAIN. */
#define AGAIN_PAUSE_NS (200 * NS_PER_MS)

struct blocking_call {
    struct cluster_call call;
    bool ended;
    int rc;
};

static void call_done(struct cluster_call *call, int rc)
{
    struct blocking_call *b = container_of(call, struct blocking_call, call);
    b->ended = true;
    b->rc = rc;
}

static void describe(struct cluster_call *call)
{
    switch (call->method) {
#define MDC_METHOD(num, name, handler, req, rep)                                                             \
    case num:                                                                                                \
        call->request_type = &req##_type;                                                                    \
        call->reply_type = &rep##_type;                                                                      \
        break;
#define MDC_NOTIFY(num, name, msg)
#include "common/wire/mdc.def"
#undef MDC_METHOD
#undef MDC_NOTIFY
    default:
        MUST(!"a method of the metadata controller");
    }
}

/* What would be refused, or do harm, when it is done twice is not repeated after a lost connection. */
static bool may_repeat(uint16_t method)
{
    return method != MDC_METHOD_POOL_CREATE && method != MDC_METHOD_POOL_DELETE &&
           method != MDC_METHOD_VOLUME_CREATE && method != MDC_METHOD_VOLUME_DELETE;
}

/* A detach is answered when the modules have confirmed it, for which the metadata controller has a limit of
 * its own. */
static uint64_t timeout_of(const struct ctl *ctl, uint16_t method)
{
    return ctl->options->timeout_ns + (method == MDC_METHOD_DETACH ? 15 * NS_PER_S : 0);
}

static int run_call(struct ctl *ctl, struct blocking_call *b, const char *what)
{
    const uint64_t start_ns = loop_now_ns(ctl->loop);
    const int rc = cluster_call_start(ctl->cluster, &b->call);
    if (rc != 0) {
        snprintf(b->call.error_text, sizeof(b->call.error_text), "%s", strerror(-rc));
        return rc;
    }
    while (!b->ended) {
        loop_run_once(ctl->loop, 200 * NS_PER_MS);
        const uint64_t waited_ns = loop_now_ns(ctl->loop) - start_ns;
        if (waited_ns > NS_PER_S)
            ctl_progress(ctl, "%s: waiting for an answer, %llu s", what,
                         (unsigned long long)waited_ns / NS_PER_S);
    }
    ctl_progress(ctl, "%s", "");
    return b->rc;
}

/* Texts made on this side begin with the method's name. */
static const char *without_method(const char *text)
{
    const size_t word = strspn(text, "abcdefghijklmnopqrstuvwxyz_");
    return strncmp(text + word, ": ", 2) == 0 ? text + word + 2 : text;
}

static enum ctl_exit explain(struct ctl *ctl, const struct blocking_call *b, const char *what)
{
    const char *text = b->call.error_text;
    if (b->call.status == STATUS_OK)
        ctl_say(ctl, "cannot %s: %s", what, without_method(text));
    else if (strncmp(text, "cannot ", 7) == 0)
        ctl_say(ctl, "%s", text); /* the controller has said what was attempted */
    else
        ctl_say(ctl, "cannot %s: %s", what, text);
    return b->call.status == STATUS_OK && (b->rc == -ETIMEDOUT || b->rc == -ENOTCONN) ? CTL_UNREACHABLE
                                                                                      : CTL_FAILED;
}

/* The refusal while it is tried again. */
static void wait_a_moment(struct ctl *ctl, const struct blocking_call *b, const char *what)
{
    ctl_progress(ctl, "%s, trying on: %s", what, b->call.error_text);
    ctl_pause(ctl, AGAIN_PAUSE_NS);
}

enum ctl_exit ctl_call_expecting(struct ctl *ctl, enum mdc_method method, const void *request, void *reply,
                                 uint32_t expected, uint32_t *status, const char *what)
{
    static struct mdc_empty nothing;
    if (ctl->loop == NULL) {
        const enum ctl_exit opened = ctl_open(ctl, false);
        if (opened != CTL_DONE)
            return opened;
    }
    const uint64_t until_ns = loop_now_ns(ctl->loop) + ctl->options->timeout_ns;
    struct blocking_call b;
    int rc;
    for (;;) {
        b = (struct blocking_call){.call = {.method = (uint16_t)method,
                                            .request = request,
                                            .reply = reply != NULL ? reply : &nothing,
                                            .timeout_ns = timeout_of(ctl, (uint16_t)method),
                                            .retry = may_repeat((uint16_t)method),
                                            .done = call_done}};
        describe(&b.call);
        rc = run_call(ctl, &b, what);
        *status = b.call.status;
        if (*status != STATUS_AGAIN || loop_now_ns(ctl->loop) >= until_ns)
            break;
        wait_a_moment(ctl, &b, what);
    }
    ctl_progress(ctl, "%s", "");
    if (rc == 0 || (expected != STATUS_OK && b.call.status == expected))
        return CTL_DONE;
    return explain(ctl, &b, what);
}

enum ctl_exit ctl_call(struct ctl *ctl, enum mdc_method method, const void *request, void *reply,
                       const char *fmt, ...)
{
    char what[200];
    uint32_t status;
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    return ctl_call_expecting(ctl, method, request, reply, STATUS_OK, &status, what);
}

enum ctl_exit ctl_pages_read(struct ctl *ctl, const struct ctl_pages *pages)
{
    struct mdc_list_request request = {.after = 0};
    if (pages->filter != NULL && !ctl_name(ctl, request.name, pages->filter))
        return CTL_USAGE;
    for (;;) {
        uint64_t next;
        const enum ctl_exit rc = ctl_call(ctl, pages->method, &request, pages->reply, "%s", pages->what);
        if (rc != CTL_DONE)
            return rc;
        pages->add(pages->arg, pages->reply);
        memcpy(&next, (const char *)pages->reply + pages->next_offset, sizeof(next));
        if (next == 0)
            return CTL_DONE;
        if (next <= request.after) {
            ctl_say(ctl, "cannot %s: the metadata controller's answers make no sense", pages->what);
            return CTL_FAILED;
        }
        request.after = next;
    }
}

void ctl_pause(struct ctl *ctl, uint64_t ns)
{
    const uint64_t end_ns = loop_now_ns(ctl->loop) + ns;
    for (uint64_t now = loop_now_ns(ctl->loop); now < end_ns; now = loop_now_ns(ctl->loop))
        loop_run_once(ctl->loop, end_ns - now);
}

struct table_wait {
    struct cluster_wait wait;
    bool ended;
};

static void table_came(struct cluster_wait *w)
{
    container_of(w, struct table_wait, wait)->ended = true;
}

const struct table *ctl_table(struct ctl *ctl)
{
    struct table_wait w = {.wait = {.fn = table_came}};
    const uint64_t end_ns = loop_now_ns(ctl->loop) + ctl->options->timeout_ns;
    list_init(&w.wait.link);
    cluster_wait_table(ctl->cluster, &w.wait);
    while (!(w.ended && cluster_table(ctl->cluster) != NULL) && loop_now_ns(ctl->loop) < end_ns)
        loop_run_once(ctl->loop, 100 * NS_PER_MS);
    if (!w.ended)
        cluster_wait_cancel(ctl->cluster, &w.wait);
    const struct table *table = cluster_table(ctl->cluster);
    if (table == NULL)
        ctl_say(ctl, "cannot read the partition table from the metadata controller in time");
    return table;
}

/* ---- results ---- */

static enum ctl_exit print(struct ctl *ctl, struct sheet *sheet, enum sheet_form form)
{
    ctl_progress(ctl, "%s", "");
    const int rc = sheet_print(sheet, form, stdout);
    sheet_free(sheet);
    if (rc == 0)
        return CTL_DONE;
    ctl_say(ctl, "cannot print the result: %s", strerror(-rc));
    return CTL_FAILED;
}

enum ctl_exit ctl_print_list(struct ctl *ctl, struct sheet *sheet)
{
    return print(ctl, sheet, ctl->options->json ? SHEET_ARRAY : SHEET_TABLE);
}

enum ctl_exit ctl_print_record(struct ctl *ctl, struct sheet *sheet)
{
    return print(ctl, sheet, ctl->options->json ? SHEET_OBJECT : SHEET_RECORD);
}

enum ctl_exit ctl_done(struct ctl *ctl, const char *fmt, ...)
{
    static const struct sheet_column column = {"done", NULL, SHEET_TEXT};
    char text[512];
    struct sheet s;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (ctl->options->json) {
        sheet_init(&s, &column, 1);
        sheet_add_text(&s, text);
        return ctl_print_record(ctl, &s);
    }
    ctl_progress(ctl, "%s", "");
    return puts(text) >= 0 && fflush(stdout) == 0 ? CTL_DONE : CTL_FAILED;
}

enum ctl_exit ctl_list(struct ctl *ctl, struct sheet *sheet, const struct ctl_pages *pages)
{
    const enum ctl_exit rc = ctl_pages_read(ctl, pages);
    if (rc == CTL_DONE)
        return ctl_print_list(ctl, sheet);
    sheet_free(sheet);
    return rc;
}
