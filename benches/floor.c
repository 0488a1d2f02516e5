/* The floor: makes the calls to libvirt that a gather makes, and nothing else.
 *
 *   floor URI WORKERS CHUNK GROUPS [info] [cpu] [canary] [summary] [disks] [calls] [events]
 *
 * A thread and a connection per worker, chunks of CHUNK domains, GROUPS a number of
 * virDomainStatsTypes, 0 for no bulk call. `info`: virDomainGetInfo of each domain beside it; `cpu`:
 * virDomainGetCPUStats; `summary`: virDomainBlockStatsFlags of all disks of a domain together (an empty
 * path); `disks`: the same of each of its disks; `canary`: one virDomainGetInfo before the chunks;
 * `calls`: no bulk call but, of each domain, what stands in for it in a driver that has none (the test
 * driver), for the targets vda, vdb, vdc and the interfaces of the XML. `events`: with libvirt's event
 * loop and keepalive, without which a client does not notice a connection's death.
 * Each newline on stdin is one round, answered by a line on stdout.
 */
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WORKERS 64
#define MAX_NICS 8
#define MAX_DISKS 32

static struct {
    const char *uri;
    int workers, chunk, info, cpu, canary, summary, disks, calls, events;
    unsigned groups;
} want;

typedef unsigned char uuid[VIR_UUID_BUFLEN];

static virConnectPtr connections[MAX_WORKERS];
static virDomainPtr *handles[MAX_WORKERS];
static uuid *uuids;
static char *(*nics)[MAX_NICS];
static char *(*disks)[MAX_DISKS];
static int count;
static atomic_int next_domain;
static pthread_barrier_t begin, end;

static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, virGetLastErrorMessage());
    exit(1);
}

static void quiet(void *data, virErrorPtr error)
{
    (void)data;
    (void)error;
}

/* The <target dev='...'/> of each ELEMENT ("<disk "), at most so many and one NULL. */
static void read_targets(virDomainPtr domain, const char *element, char **found, int most)
{
    char *xml = virDomainGetXMLDesc(domain, 0), *at = xml;
    int n = 0;
    if (!xml)
        die("virDomainGetXMLDesc");
    while (n < most - 1 && (at = strstr(at, element))) {
        char *stop = strstr(++at, element);
        char *target = strstr(at, "<target dev='");
        if (target && (!stop || target < stop)) {
            target += strlen("<target dev='");
            found[n++] = strndup(target, strcspn(target, "'"));
        }
    }
    free(xml);
}

/* An empty path stands for all disks together. The protocol allows 16 figures at most
 * (REMOTE_DOMAIN_BLOCK_STATS_PARAMETERS_MAX). */
static void read_disk(virDomainPtr domain, const char *path)
{
    virTypedParameter figures[16];
    int n = 16;
    if (virDomainBlockStatsFlags(domain, path, figures, &n, 0) < 0)
        die("virDomainBlockStatsFlags");
    virTypedParamsClear(figures, n);
}

static void read_cpu(virDomainPtr domain)
{
    virTypedParameter cpu[3];
    int n = virDomainGetCPUStats(domain, cpu, 3, -1, 1, 0);
    if (n < 0)
        die("virDomainGetCPUStats");
    virTypedParamsClear(cpu, n);
}

static void call_each(virDomainPtr domain, char *const *names)
{
    virDomainMemoryStatStruct memory[VIR_DOMAIN_MEMORY_STAT_NR];
    virDomainInterfaceStatsStruct nic;
    virDomainBlockStatsStruct disk;
    virDomainInfo info;
    read_cpu(domain);
    virDomainMemoryStats(domain, memory, VIR_DOMAIN_MEMORY_STAT_NR, 0);
    for (; *names; names++)
        virDomainInterfaceStats(domain, *names, &nic, sizeof nic);
    virDomainBlockStats(domain, "vda", &disk, sizeof disk);
    virDomainBlockStats(domain, "vdb", &disk, sizeof disk);
    virDomainBlockStats(domain, "vdc", &disk, sizeof disk);
    virDomainGetInfo(domain, &info);
}

static void work(int number)
{
    int from;
    while ((from = atomic_fetch_add(&next_domain, want.chunk)) < count) {
        int size = count - from < want.chunk ? count - from : want.chunk;
        virDomainPtr chunk[size + 1];
        virDomainStatsRecordPtr *records;
        memcpy(chunk, handles[number] + from, size * sizeof *chunk);
        chunk[size] = NULL;
        if (want.groups) {
            if (virDomainListGetStats(chunk, want.groups, &records,
                                      VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT) < 0)
                /* Older test drivers. */
                if (virDomainListGetStats(chunk, want.groups, &records, 0) < 0)
                    die("virDomainListGetStats");
            for (int i = 0; records[i]; i++)
                virDomainGetID(records[i]->dom);
            virDomainStatsRecordListFree(records);
        }
        for (int i = 0; i < size; i++) {
            virDomainInfo info;
            if (want.calls)
                call_each(chunk[i], nics[from + i]);
            if (want.cpu)
                read_cpu(chunk[i]);
            if (want.summary)
                read_disk(chunk[i], "");
            for (char **disk = disks[from + i]; *disk; disk++)
                read_disk(chunk[i], *disk);
            if (want.info && virDomainGetInfo(chunk[i], &info) < 0)
                die("virDomainGetInfo");
        }
    }
}

static void *worker(void *number)
{
    for (;;) {
        pthread_barrier_wait(&begin);
        work((int)(size_t)number);
        pthread_barrier_wait(&end);
    }
    return NULL;
}

static void *run_events(void *unused)
{
    (void)unused;
    for (;;)
        virEventRunDefaultImpl();
    return NULL;
}

int main(int argc, char **argv)
{
    virDomainPtr *list;
    if (argc < 5) {
        fputs("usage: floor URI WORKERS CHUNK GROUPS [info] [cpu] [canary] [summary] [disks]"
              " [calls] [events]\n",
              stderr);
        return 2;
    }
    want.uri = argv[1];
    want.workers = atoi(argv[2]);
    want.chunk = atoi(argv[3]);
    want.groups = strtoul(argv[4], NULL, 0);
    if (want.workers < 1 || want.workers > MAX_WORKERS || want.chunk < 1)
        return 2;
    for (int i = 5; i < argc; i++) {
        want.info |= !strcmp(argv[i], "info");
        want.cpu |= !strcmp(argv[i], "cpu");
        want.canary |= !strcmp(argv[i], "canary");
        want.summary |= !strcmp(argv[i], "summary");
        want.disks |= !strcmp(argv[i], "disks");
        want.events |= !strcmp(argv[i], "events");
        want.calls |= !strcmp(argv[i], "calls");
    }
    virSetErrorFunc(NULL, quiet);
    if (want.events) {
        pthread_t thread;
        if (virEventRegisterDefaultImpl() < 0 || pthread_create(&thread, NULL, run_events, NULL))
            die("the event loop");
    }
    for (int n = 0; n < want.workers; n++) {
        if (!(connections[n] = virConnectOpenReadOnly(want.uri)))
            die(want.uri);
        if (want.events)
            virConnectSetKeepAlive(connections[n], 5, 5);
    }
    count = virConnectListAllDomains(connections[0], &list, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
    if (count < 0)
        die("virConnectListAllDomains");
    uuids = calloc(count, sizeof *uuids);
    nics = calloc(count, sizeof *nics);
    disks = calloc(count, sizeof *disks);
    for (int i = 0; i < count; i++) {
        virDomainGetUUID(list[i], uuids[i]);
        if (want.calls)
            read_targets(list[i], "<interface ", nics[i], MAX_NICS);
        if (want.disks)
            read_targets(list[i], "<disk ", disks[i], MAX_DISKS);
    }
    for (int n = 0; n < want.workers; n++) {
        handles[n] = calloc(count, sizeof **handles);
        for (int i = 0; i < count; i++)
            if (!(handles[n][i] = virDomainLookupByUUID(connections[n], uuids[i])))
                die("virDomainLookupByUUID");
    }
    pthread_barrier_init(&begin, NULL, want.workers + 1);
    pthread_barrier_init(&end, NULL, want.workers + 1);
    for (int n = 0; n < want.workers; n++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, (void *)(size_t)n))
            die("pthread_create");
    }
    while (getchar() != EOF) {
        virDomainPtr *active;
        virDomainInfo info;
        int n = virConnectListAllDomains(connections[0], &active, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
        if (n < 0)
            die("virConnectListAllDomains");
        for (int i = 0; i < n; i++) {
            virDomainGetID(active[i]);
            virDomainFree(active[i]);
        }
        free(active);
        if (want.canary && count)
            virDomainGetInfo(handles[0][0], &info);
        atomic_store(&next_domain, 0);
        pthread_barrier_wait(&begin);
        pthread_barrier_wait(&end);
        puts("done");
        fflush(stdout);
    }
    return 0;
}
