/* metrics_process.c: see metrics_process.h; proc(5) says what is in the files. */
#include "common/metrics_process.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define METRICS_STRUCT process_figures
static const struct metric process_table[] = {
#define METRIC METRICS_ENTRY
#include "common/process_metrics.def"
#undef METRIC
};
const struct metrics_group process_metrics_group = METRICS_GROUP("the process", process_table);
#undef METRICS_STRUCT

struct build_figures {
    uint64_t info;
};
#define METRICS_STRUCT build_figures
static const struct metric build_table[] = {METRICS_ENTRY(
    GAUGE, info, "cistern_build_info", NULL, "Always 1: the labels say which service and version it is.")};
const struct metrics_group build_metrics_group = METRICS_GROUP("the program", build_table);
#undef METRICS_STRUCT

/* Seconds since 1970 at which the system was started; 0: not known. */
static uint64_t boot_time_s(void)
{
    char line[256];
    uint64_t seconds = 0;
    FILE *f = fopen("/proc/stat", "re");
    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "btime %" SCNu64, &seconds) == 1)
            break;
    fclose(f);
    return seconds;
}

/* /proc/self/stat: behind the name, which may hold anything, fields 3 to 24. */
static void read_stat(struct process_figures *f)
{
    char text[1024];
    uint64_t user, system, threads, start, size, resident;
    const uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK), page = (uint64_t)sysconf(_SC_PAGESIZE);
    FILE *file = fopen("/proc/self/stat", "re");
    if (file == NULL)
        return;
    const size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    const char *p = strrchr(text, ')');
    if (p == NULL || sscanf(p + 1,
                            " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
                            " %*d %*d %*d %*d %" SCNu64 " %*d %" SCNu64 " %" SCNu64 " %" SCNu64,
                            &user, &system, &threads, &start, &size, &resident) != 6)
        return;
    f->cpu_ns = (user + system) * (NS_PER_S / hz);
    f->threads = threads;
    f->virtual_bytes = size;
    f->resident_bytes = resident * page;
    const uint64_t boot_s = boot_time_s();
    if (boot_s != 0)
        f->start_time_ns = boot_s * NS_PER_S + start * (NS_PER_S / hz);
}

static uint64_t count_fds(void)
{
    uint64_t count = 0;
    DIR *d = opendir("/proc/self/fd");
    if (d == NULL)
        return 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        count += e->d_name[0] != '.';
    closedir(d);
    return count > 0 ? count - 1 : 0; /* not the directory itself */
}

void metrics_process(struct metrics_snapshot *out, const char *build_labels)
{
    struct build_figures *build = metrics_snapshot_add(out, &build_metrics_group, build_labels);
    struct process_figures *f = metrics_snapshot_add(out, &process_metrics_group, NULL);
    struct rlimit limit;
    if (build != NULL)
        build->info = 1;
    if (f == NULL)
        return;
    read_stat(f);
    f->open_fds = count_fds();
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        f->max_fds = limit.rlim_cur;
}
