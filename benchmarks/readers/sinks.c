/* A sink cache in C, held to the golden vectors. It reads llama.safetensors and writes what it answers, as a dump:

     minisink conformance vectors golden
     cc -O2 -o sinks benchmarks/readers/sinks.c -lm
     mkdir answers && ./sinks golden/llama.safetensors answers/llama.safetensors
     minisink conformance check answers/llama.safetensors

   A safetensors file is 8 bytes n, n bytes of JSON, and the numbers. Names are searched for in the JSON, which is not
   parsed: that does for the files that minisink writes, on a machine that has the small end first, as nearly all have.
   Whatever does not fit ends the program with one line and status 2. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *header, *numbers; /* the JSON, with a 0 at its end, and what comes behind it */
static uint64_t n_bytes;       /* of the numbers */

static void fail(const char *why) { fprintf(stderr, "sinks: %s\n", why), exit(2); }

static void *memory(uint64_t n) {
    void *made = n < SIZE_MAX ? calloc(n + 1, 1) : NULL;
    if (!made) fail("not enough memory");
    return made;
}

/* The reader ------------------------------------------------------------------------------------- */

static void read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    uint64_t n, size;
    if (!file || fread(&n, 8, 1, file) != 1 || fseek(file, 0, SEEK_END)) fail("the file cannot be read, or is empty");
    size = (uint64_t)ftell(file);
    if (n > size - 8) fail("the header is longer than the file");
    header = memory(n), numbers = memory(n_bytes = size - 8 - n);
    if (fseek(file, 8, SEEK_SET) || fread(header, 1, n, file) != n || fread(numbers, 1, n_bytes, file) != n_bytes)
        fail("the file cannot be read to its end");
    fclose(file);
}

/* A copy of an array of four axes in double precision; NULL if there is no such name. */
static double *array(long long n_sinks, long long window, char what, long long shape[4]) {
    char key[64], entry[256];
    long long begin, end;
    snprintf(key, sizeof key, "\"%lld+%lld.%c\"", n_sinks, window, what);
    char *at = strstr(header, key);
    if (!at) return NULL;
    snprintf(entry, sizeof entry, "%s", at + strlen(key)); /* as much of it as an entry may take */
    char *stop = strchr(entry, '}');
    if (stop) *stop = 0;
    char *axes = strstr(entry, "\"shape\""), *range = strstr(entry, "\"data_offsets\"");
    if (!stop || !axes || !range || !strstr(entry, "\"F64\"")) fail("an array is not in double precision");
    if (sscanf(axes, "\"shape\" : [%lld ,%lld ,%lld ,%lld ]", shape, shape + 1, shape + 2, shape + 3) != 4 ||
        sscanf(range, "\"data_offsets\" : [%lld ,%lld ]", &begin, &end) != 2)
        fail("an array does not have four axes");
    if (begin < 0 || begin > end || (uint64_t)end > n_bytes) fail("an array lies outside of the file");
    long long n = (end - begin) / 8;
    for (int i = 0; i < 4; n /= shape[i++]) /* divided, for a product might overflow */
        if (shape[i] < 1 || n % shape[i]) fail("an array is larger or smaller than its shape");
    if (n != 1) fail("an array is larger than its shape");
    return memcpy(memory((uint64_t)(end - begin)), numbers + begin, (uint64_t)(end - begin));
}

/* The cache: the tokens that are held, in slots; a slot is a position ----------------------------- */

/* What a query in the newest slot takes home. A score depends only on how far apart query and key stand. */
static void attend(const double *q, const double *k, const double *v, const int32_t *held, long long n, long long stride,
                   long long D, double theta, double *out) {
    double sum = 0, *weight = memory((uint64_t)n * sizeof *weight), largest = -INFINITY;
    for (long long slot = 0; slot < n; slot++) {
        const double *key = k + held[slot] * stride;
        for (long long j = 0, half = D / 2; j < half; j++) { /* channels in pairs, j and j + D/2 */
            double angle = theta ? (double)(n - 1 - slot) * pow(theta, -2.0 * (double)j / (double)D) : 0;
            weight[slot] += cos(angle) * (q[j] * key[j] + q[j + half] * key[j + half]);
            weight[slot] += sin(angle) * (q[j] * key[j + half] - q[j + half] * key[j]);
        }
        weight[slot] /= sqrt((double)D);
        largest = fmax(largest, weight[slot]);
    }
    for (long long slot = 0; slot < n; slot++) sum += weight[slot] = exp(weight[slot] - largest);
    for (long long slot = 0; slot < n; slot++)
        for (long long j = 0; j < D; j++) out[j] += weight[slot] / sum * v[held[slot] * stride + j];
    free(weight);
}

/* The tokens of a text, one by one; writes what comes out, and returns how many bytes: 0 if there is no such size. */
static long long stream(long long n_sinks, long long window, double theta, long long shape[4], FILE *dump) {
    long long of_k[4], of_v[4], S = n_sinks + window, n = 0;
    double *q = array(n_sinks, window, 'q', shape), *k = array(n_sinks, window, 'k', of_k);
    double *v = array(n_sinks, window, 'v', of_v);
    if (!q) return 0;
    if (!k || !v || memcmp(of_k, of_v, sizeof of_k)) fail("q, k and v do not go together");
    long long T = shape[0], L = shape[1], H = shape[2], D = shape[3], K = of_k[2];
    if (of_k[0] != T || of_k[1] != L || of_k[3] != D || H % K || D % 2) fail("q, k and v do not go together");
    int32_t *held = memory((uint64_t)S * sizeof *held);
    double *out = memory((uint64_t)(T * L * H * D) * sizeof *out);
    for (int32_t t = 0; t < T; t++) {
        if (n == S) memmove(held + n_sinks, held + n_sinks + 1, (uint64_t)(--n - n_sinks) * sizeof *held); /* evict */
        held[n++] = t;
        for (long long i = 0; i < L; i++)
            for (long long h = 0; h < H; h++) { /* neighbouring heads of queries share a head of keys */
                long long of_query = ((t * L + i) * H + h) * D, of_keys = (i * K + h / (H / K)) * D;
                attend(q + of_query, k + of_keys, v + of_keys, held, n, L * K * D, D, theta, out + of_query);
            }
    }
    fwrite(out, sizeof *out, (uint64_t)(T * L * H * D), dump);
    free(q), free(k), free(v), free(held), free(out);
    return T * L * H * D * (long long)sizeof *out;
}

int main(int argc, char **argv) {
    char text[16384] = "{", *stop = text + 1; /* the header of the dump; what it does not fill becomes spaces */
    long long shape[4], at = 0, n;
    double theta = 0; /* where the header says null nothing rotates */
    if (argc != 3) fail("usage: sinks VECTORS.safetensors DUMP.safetensors");
    read_file(argv[1]);
    char *about = strstr(header, "\"theta\"");
    if (about) sscanf(about, "\"theta\" : \"%lf", &theta);
    FILE *dump = fopen(argv[2], "wb");
    if (!dump || fseek(dump, 8 + sizeof text, SEEK_SET)) fail("the dump cannot be written");
    for (long long n_sinks = 0; n_sinks < 8; n_sinks++)
        for (long long window = 1; window < 8; window++, at += n) /* each of 56 entries takes fewer than 200 bytes */
            if ((n = stream(n_sinks, window, theta, shape, dump)))
                stop += sprintf(stop, "%s\"%lld+%lld.out\":{\"dtype\":\"F64\",\"shape\":[%lld,%lld,%lld,%lld],"
                                "\"data_offsets\":[%lld,%lld]}", at ? "," : "", n_sinks, window,
                                shape[0], shape[1], shape[2], shape[3], at, at + n);
    *stop++ = '}';
    memset(stop, ' ', (uint64_t)(text + sizeof text - stop));
    n = sizeof text;
    if (!at) fail("the file has no size of cache that is known here");
    if (fseek(dump, 0, SEEK_SET) || fwrite(&n, 8, 1, dump) != 1 || fwrite(text, sizeof text, 1, dump) != 1 || fclose(dump))
        fail("the dump cannot be written");
}
