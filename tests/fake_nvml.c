/* A libnvidia-ml.so.1 that says what a script tells it to.
 *
 * SCRIPTED_NVML names the script, a text file of lines `TIME_S GPU KEY VALUE` in ascending time: from the monotonic
 * time TIME_S on, that is the GPU's KEY (`*`: every GPU's). Lines may be appended while it is being read. Keys:
 *
 *   name, uuid, driver                          texts
 *   power_w                                     power; the counter is its integral, latched at every tick
 *   tick_s, phase_s                             the counter's tick (0.1) and when in it (0)
 *   jump_j                                      the counter jumps by that much, perhaps down
 *   limit_w, clock_mhz, temperature_c, mig      numbers
 *   reasons                                     clock event reasons, bits
 *   process                                     a process computes here; negative: no longer
 *   fails                                       every call about the GPU returns this NVML error, 0 for none
 *   no_power, no_counter                        1: this is not supported
 *
 * What the script does not say is not supported. A name makes the GPU exist.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9 };
enum { ALL = -1, POWER_INSTANT = 186, UNSIGNED_INT = 1, TEXT = 64, MOST_PROCESSES = 16 };

typedef struct { double time_s; int gpu; char key[24]; char value[TEXT]; } Line;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } Process;
typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    unsigned type;
    int status;
    union { double real; unsigned whole; unsigned long long wide; } value;
} Field;
typedef int *Device;  /* its index */

static FILE *script;
static Line *lines;
static size_t count, room;
static int indices[32];

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

/* Read what was appended since the last call, whole lines only. */
static void catch_up(void) {
    char text[256], gpu[8];
    long place = ftell(script);
    clearerr(script);
    while (fgets(text, sizeof text, script) && strchr(text, '\n')) {
        if (count == room) lines = realloc(lines, (room = 2 * room + 64) * sizeof *lines);
        Line *line = &lines[count];
        if (sscanf(text, "%lf %7s %23s %63[^\n]", &line->time_s, gpu, line->key, line->value) == 4) {
            line->gpu = *gpu == '*' ? ALL : atoi(gpu);
            count++;
        }
        place = ftell(script);
    }
    fseek(script, place, SEEK_SET);
}

static int concerns(const Line *line, int gpu, const char *key) {
    return (line->gpu == gpu || line->gpu == ALL) && strcmp(line->key, key) == 0;
}

/* The GPU's value at a time, NULL if the script has said nothing by then. */
static const char *said(int gpu, const char *key, double time_s) {
    const char *value = NULL;
    for (size_t i = 0; i < count && lines[i].time_s <= time_s; i++)
        if (concerns(&lines[i], gpu, key)) value = lines[i].value;
    return value;
}

static double number(int gpu, const char *key, double time_s, double missing) {
    const char *value = said(gpu, key, time_s);
    return value ? strtod(value, NULL) : missing;
}

static double joules(int gpu, double until_s) {
    double total_j = 0, power_w = 0, since_s = 0;
    for (size_t i = 0; i < count && lines[i].time_s <= until_s; i++) {
        if (concerns(&lines[i], gpu, "jump_j")) total_j += strtod(lines[i].value, NULL);
        if (!concerns(&lines[i], gpu, "power_w")) continue;
        total_j += power_w * (lines[i].time_s - since_s);
        since_s = lines[i].time_s;
        power_w = strtod(lines[i].value, NULL);
    }
    return total_j + power_w * (until_s - since_s);
}

/* Every call about a GPU begins here: the error that the script wants. */
static int status(Device device) {
    if (!script) return UNINITIALIZED;
    catch_up();
    return (int)number(*device, "fails", now_s(), SUCCESS);
}

static int text_of(Device device, const char *key, char *out, unsigned length) {
    int error = status(device);
    const char *value = said(*device, key, now_s());
    if (error || !value) return error ? error : NOT_SUPPORTED;
    snprintf(out, length, "%s", value);
    return SUCCESS;
}

static int whole_of(Device device, const char *key, double scale, unsigned *out) {
    int error = status(device);
    const char *value = said(*device, key, now_s());
    if (error || !value) return error ? error : NOT_SUPPORTED;
    *out = (unsigned)(scale * strtod(value, NULL) + 0.5);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    const char *path = getenv("SCRIPTED_NVML");
    if (!script) script = path ? fopen(path, "r") : NULL;
    for (int i = 0; i < 32; i++) indices[i] = i;
    return script ? SUCCESS : DRIVER_NOT_LOADED;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int error) {
    static char text[32];
    snprintf(text, sizeof text, error == 15 ? "GPU is lost" : "scripted error %d", error);
    return text;
}

int nvmlSystemGetDriverVersion(char *out, unsigned length) { return text_of(&indices[0], "driver", out, length); }

int nvmlDeviceGetCount_v2(unsigned *out) {
    catch_up();
    for (*out = 0; *out < 32 && said((int)*out, "name", now_s()); ++*out) {}
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *out) {
    unsigned gpus;
    nvmlDeviceGetCount_v2(&gpus);
    if (index >= gpus) return INVALID_ARGUMENT;
    *out = &indices[index];
    return status(*out);
}

int nvmlDeviceGetName(Device device, char *out, unsigned length) { return text_of(device, "name", out, length); }

int nvmlDeviceGetUUID(Device device, char *out, unsigned length) { return text_of(device, "uuid", out, length); }

int nvmlDeviceGetTotalEnergyConsumption(Device device, unsigned long long *out) {
    int error = status(device);
    if (error) return error;
    double at_s = now_s();
    if (number(*device, "no_counter", at_s, 0)) return NOT_SUPPORTED;
    double tick_s = number(*device, "tick_s", at_s, 0.1), phase_s = number(*device, "phase_s", at_s, 0);
    double latched_s = floor((at_s - phase_s) / tick_s) * tick_s + phase_s;
    *out = (unsigned long long)(1e3 * joules(*device, latched_s));
    return SUCCESS;
}

int nvmlDeviceGetFieldValues(Device device, int length, Field *fields) {
    int error = status(device);
    for (int i = 0; i < length; i++) {
        int known = fields[i].field == POWER_INSTANT && !number(*device, "no_power", now_s(), 0);
        fields[i].type = UNSIGNED_INT;
        fields[i].status = known ? whole_of(device, "power_w", 1e3, &fields[i].value.whole) : NOT_SUPPORTED;
    }
    return error;
}

int nvmlDeviceGetClockInfo(Device device, unsigned type, unsigned *out) {
    (void)type;
    return whole_of(device, "clock_mhz", 1, out);
}

int nvmlDeviceGetTemperature(Device device, unsigned sensor, unsigned *out) {
    (void)sensor;
    return whole_of(device, "temperature_c", 1, out);
}

int nvmlDeviceGetCurrentClocksEventReasons(Device device, unsigned long long *out) {
    unsigned reasons = 0;
    int error = whole_of(device, "reasons", 1, &reasons);
    *out = reasons;
    return error;
}

int nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned *out) { return whole_of(device, "limit_w", 1e3, out); }

int nvmlDeviceGetMigMode(Device device, unsigned *now, unsigned *pending) {
    int error = whole_of(device, "mig", 1, now);
    if (!error) *pending = *now;
    return error;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *length, Process *out) {
    int error = status(device);
    if (error) return error;
    int pids[MOST_PROCESSES];
    unsigned found = 0;
    for (size_t i = 0; i < count && lines[i].time_s <= now_s(); i++) {
        if (!concerns(&lines[i], *device, "process")) continue;
        int pid = atoi(lines[i].value);
        unsigned place = 0;
        while (place < found && pids[place] != abs(pid)) place++;
        if (pid > 0 && place == found && found < MOST_PROCESSES) pids[found++] = pid;
        if (pid < 0 && place < found) pids[place] = pids[--found];
    }
    unsigned given = *length;
    *length = found;
    if (found > given) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < found; i++) out[i] = (Process){.pid = (unsigned)pids[i]};
    return SUCCESS;
}
