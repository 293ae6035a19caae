/* The delta rule, forward and backward, against its golden vectors: a port to C that calls no Python.

       delta_rule FOLDER CASE

   reads FOLDER/memory.delta_rule.safetensors and the tolerances of FOLDER/manifest.json, prints a line for each result
   and each gradient, and exits with 1 if one is further off than its tolerance. REAL is the type it computes in,
   PRECISION the name of its tolerance; FAULT plants one of four mistakes. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef REAL
#define REAL double
#define PRECISION "float64"
#endif
#ifndef FAULT
#define FAULT 0
#endif

static char *header, *manifest;
static double *data;
static const char *case_name;

static void fail(const char *what, const char *name) {
    fprintf(stderr, "delta_rule: %s: %s\n", what, name);
    exit(2);
}

static char *load(const char *folder, const char *name, size_t *length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) fail("cannot be read", path);
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    char *bytes = calloc(*length + 1, 1);
    if (fread(bytes, 1, *length, file) != *length) fail("cannot be read", path);
    fclose(file);
    return bytes;
}

/* Return the place after "CASE/NAME": in a text of JSON, NULL where it is not there. */
static const char *entry(const char *text, const char *name) {
    char key[256];
    snprintf(key, sizeof key, "\"%s/%s\":", case_name, name);
    const char *found = strstr(text, key);
    return found ? found + strlen(key) : NULL;
}

/* Return an array of the file, and the sizes of its axes; NULL where the case has none of this name. */
static const double *array(const char *name, long shape[8], int *rank) {
    const char *at = entry(header, name);
    long start, end;
    if (!at) return NULL;
    if (sscanf(at, "{\"data_offsets\":[%ld,%ld],\"dtype\":\"F64\",\"shape\":[", &start, &end) != 2) fail("header", name);
    const char *sizes = strstr(at, "\"shape\":[") + 9;
    for (*rank = 0; *sizes && *sizes != ']'; sizes += *sizes == ',') shape[(*rank)++] = strtol(sizes, (char **)&sizes, 10);
    return data + start / (long)sizeof(double);
}

static const double *required(const char *name, long shape[8], int *rank) {
    const double *x = array(name, shape, rank);
    if (!x) fail("no array", name);
    return x;
}

static double tolerance(const char *name) {
    const char *at = entry(manifest, name), *found = at ? strstr(at, "\"tolerance\"") : NULL;
    found = found ? strstr(found, "\"" PRECISION "\": ") : NULL;
    if (!found) fail("no tolerance", name);
    return strtod(found + strlen(PRECISION) + 4, NULL);
}

static int wrong;

static void compare(const char *name, const REAL *x, long n) {
    long shape[8];
    int rank;
    const double *expected = required(name, shape, &rank), allowed = tolerance(name);
    double worst = 0;
    for (long i = 0; i < n; i++) {
        double off = fabs((double)x[i] - expected[i]);
        if (worst == worst && !(off <= worst)) worst = off; /* NaN too, which stays */
    }
    int right = worst <= allowed;
    wrong += !right;
    printf("%s %s: off by %.2g, tolerance %.2g\n", right ? "right" : "WRONG", name, worst, allowed);
}

static REAL *zeros(long n) { return calloc((size_t)n, sizeof(REAL)); }

int main(int count, char **arguments) {
    if (count != 3) fail("usage", "delta_rule FOLDER CASE");
    size_t length;
    char *bytes = load(arguments[1], "memory.delta_rule.safetensors", &length);
    unsigned long long header_length = 0;
    for (int i = 7; i >= 0; i--) header_length = header_length << 8 | (unsigned char)bytes[i];
    header = calloc(header_length + 1, 1);
    memcpy(header, bytes + 8, header_length);
    data = malloc(length - 8 - header_length);
    memcpy(data, bytes + 8 + header_length, length - 8 - header_length);
    manifest = load(arguments[1], "manifest.json", &length);
    case_name = arguments[2];

    long shape[8], N = 1;
    int rank;
    const double *v = required("v", shape, &rank);
    long V = shape[rank - 1];
    const double *q = required("q", shape, &rank), *k = required("k", shape, &rank);
    long T = shape[rank - 2], K = shape[rank - 1];
    for (int i = 0; i < rank - 2; i++) N *= shape[i];
    const double *beta = required("beta", shape, &rank), *initial = array("state", shape, &rank);
    const double *dy = required("cotangent/y", shape, &rank), *dfinal = required("cotangent/final_state", shape, &rank);

    REAL *y = zeros(N * T * V), *final = zeros(N * K * V), *u = zeros(T * V), *S = zeros((T + 1) * K * V);
    REAL *dq = zeros(N * T * K), *dk = zeros(N * T * K), *dv = zeros(N * T * V), *dbeta = zeros(N * T);
    REAL *dstate = zeros(N * K * V), *error = zeros(T * V), *w = zeros(V);

    for (long n = 0; n < N; n++) {
        for (long i = 0; i < K * V; i++) S[i] = initial ? (REAL)initial[n * K * V + i] : 0;
        for (long t = 0; t < T; t++) {
            const double *q_t = q + (n * T + t) * K, *k_t = k + (n * T + t) * K, *v_t = v + (n * T + t) * V;
            REAL *before = S + t * K * V, *after = before + K * V, b = (REAL)beta[n * T + t];
            for (long j = 0; j < V; j++) {
                REAL predicted = 0;
                for (long i = 0; i < K; i++) predicted += (REAL)k_t[i] * before[i * V + j];
                error[t * V + j] = (REAL)v_t[j] - predicted;
                u[t * V + j] = FAULT == 1 ? b * (REAL)v_t[j] - predicted : b * error[t * V + j];
            }
            for (long i = 0; i < K; i++)
                for (long j = 0; j < V; j++) after[i * V + j] = before[i * V + j] + (REAL)k_t[i] * u[t * V + j];
            for (long j = 0; j < V; j++) {
                REAL sum = 0;
                for (long i = 0; i < K; i++) sum += (REAL)q_t[i] * (FAULT == 2 ? before : after)[i * V + j];
                y[(n * T + t) * V + j] = sum;
            }
        }
        memcpy(final + n * K * V, S + T * K * V, sizeof(REAL) * (size_t)(K * V));

        REAL *dS = dstate + n * K * V;
        for (long i = 0; i < K * V; i++) dS[i] = FAULT == 3 ? 0 : (REAL)dfinal[n * K * V + i];
        for (long t = T - 1; t >= 0; t--) {
            const double *q_t = q + (n * T + t) * K, *k_t = k + (n * T + t) * K, *dy_t = dy + (n * T + t) * V;
            REAL *before = S + t * K * V, *after = before + K * V, b = (REAL)beta[n * T + t];
            for (long i = 0; i < K; i++)
                for (long j = 0; j < V; j++) {
                    dq[(n * T + t) * K + i] += (REAL)dy_t[j] * after[i * V + j];
                    dS[i * V + j] += (REAL)q_t[i] * (REAL)dy_t[j];
                }
            for (long j = 0; j < V; j++) {
                REAL du = 0;
                for (long i = 0; i < K; i++) du += (REAL)k_t[i] * dS[i * V + j];
                dv[(n * T + t) * V + j] = b * du;
                dbeta[n * T + t] += du * error[t * V + j];
                w[j] = -b * du;
            }
            for (long i = 0; i < K; i++)
                for (long j = 0; j < V; j++) {
                    dk[(n * T + t) * K + i] += u[t * V + j] * dS[i * V + j] + (FAULT == 4 ? 0 : w[j] * before[i * V + j]);
                    dS[i * V + j] += (REAL)k_t[i] * w[j];
                }
        }
    }

    compare("y", y, N * T * V);
    compare("final_state", final, N * K * V);
    compare("gradient/q", dq, N * T * K);
    compare("gradient/k", dk, N * T * K);
    compare("gradient/v", dv, N * T * V);
    compare("gradient/beta", dbeta, N * T);
    if (initial) compare("gradient/state", dstate, N * K * V);
    return wrong ? 1 : 0;
}
