/* Loops of picks in C, one thread, no state, in loops.h for one type of numbers; products of all
   pairs of rows, in products.h. */

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* Changes with the arguments of any function. */
int64_t otprune_loops_version(void) { return 4; }

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE 8
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define TILE 4
#else
#define VECTOR_BYTES 16
#define TILE 4
#endif

/* Channels of a tile before it is written: sums in runs are more exact than one long sum, and the
   panels of a run stay near the processor. */
#define DEPTH 256

/* Numbers that are summed one after another, before sums of them are. */
#define RUN 8

/* Channels whose sums of squares stay near the processor. */
#define ENERGY_COLUMNS 1024

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define UNROLL _Pragma("unroll")
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (NAME(places)){__VA_ARGS__})
#define UNROLL _Pragma("GCC unroll 8")
#endif
typedef int64_t places_float64 __attribute__((vector_size(32)));
typedef int32_t places_float32 __attribute__((vector_size(16)));

#define MOST_THREADS 64

/* Run work(shared) in so many threads, this one among them; in fewer where none can be started. */
static void in_threads(void *(*work)(void *), void *shared, int64_t threads) {
  pthread_t others[MOST_THREADS];
  int64_t started = 0;
  while (started + 1 < threads && started < MOST_THREADS &&
         pthread_create(&others[started], NULL, work, shared) == 0)
    started++;
  work(shared);
  while (started > 0) pthread_join(others[--started], NULL);
}

/* Numbers that all_products needs in `packed` for so many channels, a multiple of DEPTH. */
int64_t room_for_products(int64_t n, int64_t channels) {
  const int64_t panel = 3 * VECTOR_BYTES / 4; /* of float32, a multiple of that of float64 */
  const int64_t parts = channels < DEPTH ? 1 : (channels + DEPTH - 1) / DEPTH;
  return (n + panel - 1) / panel * panel * parts * DEPTH;
}

#define REAL double
#define NAME(name) name##_float64
#include "loops.h"
#include "products.h"
#undef REAL
#undef NAME

#define REAL float
#define NAME(name) name##_float32
#include "loops.h"
#include "products.h"
#undef REAL
#undef NAME

/* TOPS: coverage gains are whole numbers of this unit, so that what is added and taken away again
   leaves exactly nothing. Cosines from 2^-5 up are multiples of it. */
#define UNITS_OF_COVERAGE 536870912.0f /* 2^29: twice this fits 32 bits */

/* The excess of a cosine over what is covered, in units, rounded; at most 2 and a little. */
static inline int32_t excess(float cosine, float covered) {
  float more = cosine - covered;
  more = more > 0 ? more : 0;
  return (int32_t)(more * UNITS_OF_COVERAGE + 0.5f);
}

/* Values over their mean or scaled to 0..1 over free tokens, times weight, added to the score. */
static void add_normalised(int64_t n, const float *value, const uint8_t *is_free, int minmax,
                           float weight, float *score) {
  double sum = 0;
  float low = INFINITY, high = -INFINITY;
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++) {
    if (!is_free[i]) continue;
    count++;
    sum += value[i];
    low = value[i] < low ? value[i] : low;
    high = value[i] > high ? value[i] : high;
  }
  const float from = minmax ? low : 0;
  const float unit = minmax ? high - low : (float)(sum / count);
  if (!(unit > 0)) return;
  for (int64_t i = 0; i < n; i++) score[i] += weight * ((value[i] - from) / unit);
}

/* The greedy selection of TOPS from cosines [n n]; see layer_pruners/tops.py. Writes order [k].
   Work space: best, value, score [n] float; gain [n]; changed [n]; is_free [n]. */
void token_set(int64_t n, int64_t k, const float *cosines, const float *relevance, float alpha,
               float lambda, int minmax, int64_t *order, float *best, float *value, float *score,
               int64_t *gain, int64_t *changed, uint8_t *is_free) {
  memset(is_free, 1, n);
  memset(gain, 0, n * sizeof *gain);
  order[0] = argmax_float32(relevance, n);
  for (int64_t t = 1; t < k; t++) {
    const int64_t last = order[t - 1];
    const float *row = cosines + last * n;
    is_free[last] = 0;
    /* The last pick needs no coverage any more: no cosine is above infinity. */
    int64_t count = 0;
    if (lambda != 0) {
      if (t > 1) changed[count++] = last;
      for (int64_t j = 0; j < n; j++)
        if (is_free[j] && (t == 1 || row[j] > best[j])) changed[count++] = j;
      for (int64_t start = 0; start < n; start += 32) {
        const int64_t width = n - start < 32 ? n - start : 32;
        int64_t sum[32] = {0};
        for (int64_t c = 0; c < count; c++) {
          const int64_t j = changed[c];
          const float *cosine = cosines + j * n + start;
          const float before = t == 1 ? INFINITY : best[j];
          const float after = j == last ? INFINITY : row[j];
          if (width == 32)
#pragma omp simd
            for (int l = 0; l < 32; l++)
              sum[l] += excess(cosine[l], after) - excess(cosine[l], before);
          else
            for (int l = 0; l < width; l++)
              sum[l] += excess(cosine[l], after) - excess(cosine[l], before);
        }
        for (int l = 0; l < width; l++) gain[start + l] += sum[l];
      }
    }
    for (int64_t i = 0; i < n; i++) best[i] = t == 1 || row[i] > best[i] ? row[i] : best[i];
    memset(score, 0, n * sizeof *score);
    add_normalised(n, relevance, is_free, minmax, 1, score);
    if (alpha != 0) {
      for (int64_t i = 0; i < n; i++) value[i] = best[i] < 1 ? 1 - best[i] : 0;
      add_normalised(n, value, is_free, minmax, alpha, score);
    }
    if (lambda != 0) {
      for (int64_t i = 0; i < n; i++) value[i] = (float)(gain[i] / (double)UNITS_OF_COVERAGE);
      add_normalised(n, value, is_free, minmax, lambda, score);
    }
    for (int64_t i = 0; i < n; i++) score[i] = is_free[i] ? score[i] : -INFINITY;
    order[t] = argmax_float32(score, n);
  }
}

/* W2Greedy, in float64; the names are those of selectors/w2greedy.py. */

/* The natural logarithm of a positive normal number, as a series in (m - 1) / (m + 1), m within
   a factor of sqrt(2) of 1; to the last bit or two. The C library's is not vectorised. */
static inline double logarithm(double x) {
  uint64_t bits, middle, shifted;
  const double half_root = 0.70710678118654752440;
  memcpy(&bits, &x, 8);
  memcpy(&middle, &half_root, 8);
  const uint64_t one = 0x3ff0000000000000u;
  shifted = bits - middle + one;
  const uint64_t exponent = shifted & 0xfff0000000000000u;
  const uint64_t reduced = bits - (exponent - one);
  /* The biased exponent as a number: 2^52 plus it, less 2^52. */
  const uint64_t magic = (exponent >> 52) | 0x4330000000000000u;
  double m, power;
  memcpy(&m, &reduced, 8);
  memcpy(&power, &magic, 8);
  power -= 4503599627370496.0 + 1023.0;
  const double f = (m - 1) / (m + 1), s = f * f;
  double series = 1.0 / 21;
  series = series * s + 1.0 / 19;
  series = series * s + 1.0 / 17;
  series = series * s + 1.0 / 15;
  series = series * s + 1.0 / 13;
  series = series * s + 1.0 / 11;
  series = series * s + 1.0 / 9;
  series = series * s + 1.0 / 7;
  series = series * s + 1.0 / 5;
  series = series * s + 1.0 / 3;
  return power * 0.69314718055994530942 + 2 * (f + f * s * series);
}

/* gain [n] = sum over q of weights[q] * log(variance[q]) + offset; variance is [nodes n]. */
void w2_gains(int64_t n, int64_t nodes, const double *weights, const double *variance,
              const double *offset, double *gain) {
  memcpy(gain, offset, n * sizeof *gain);
  for (int64_t q = 0; q < nodes; q++) {
    const double weight = weights[q], *values = variance + q * n;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) gain[i] += weight * logarithm(values[i]);
  }
}

/* What a pick's row and the variances become at one node: row holds the pick's row of the moments
   less what earlier picks explain. Rows are clamped to the exact bound |row|² <= variance - node, so
   that errors cannot grow. */
#define W2_STEP(REAL)                                                                             \
  static void w2_step_##REAL(int64_t n, int64_t t, int64_t j, double node,                        \
                             const double *moments, REAL *factor, REAL *known, double *left) {    \
    const double scale = 1 / sqrt(left[j]);                                                       \
    REAL *row = factor + t * n;                                                                   \
    for (int64_t s = 0; s < t; s++) known[s] = factor[s * n + j];                                 \
    for (int64_t i = 0; i < n; i += W2_WIDTH) {                                                   \
      const int64_t width = n - i < W2_WIDTH ? n - i : W2_WIDTH;                                  \
      REAL sum[W2_WIDTH] = {0};                                                                   \
      if (width == W2_WIDTH)                                                                      \
        for (int64_t s = 0; s < t; s++)                                                           \
          _Pragma("omp simd") for (int l = 0; l < W2_WIDTH; l++) sum[l] +=                        \
              known[s] * factor[s * n + i + l];                                                   \
      else                                                                                        \
        for (int64_t s = 0; s < t; s++)                                                           \
          for (int l = 0; l < width; l++) sum[l] += known[s] * factor[s * n + i + l];             \
      for (int l = 0; l < width; l++) {                                                           \
        const double most = sqrt(left[i + l] - node), own = i + l == j ? node : 0;                \
        double value = (moments[i + l] + own - sum[l]) * scale;                                   \
        value = value < -most ? -most : value;                                                    \
        value = value > most ? most : value;                                                      \
        row[i + l] = (REAL)value;                                                                 \
        value = left[i + l] - value * value;                                                      \
        left[i + l] = value > node ? value : node;                                                \
      }                                                                                           \
    }                                                                                             \
  }
#define W2_WIDTH 32
W2_STEP(double)
#undef W2_WIDTH
#define W2_WIDTH 64
W2_STEP(float)

/* Picks from pick t on, until k or until the next pick's row of the moments is missing; returns the
   number of picks. Rows as in logdet_picks. The first `exact` of the nodes have factors in float64,
   [exact k n], the others in float32, [nodes-exact k n]. variance [nodes n], offset and gain [n],
   order [k]; known [k] twice is work space. */
int64_t w2_picks(int64_t n, int64_t k, int64_t nodes, int64_t exact, int64_t t, const double *rows,
                 const int64_t *slot, const double *node, const double *weights, double *offset,
                 double *variance, double *factor, float *rough_factor, double *gain,
                 double *known, float *rough_known, int64_t *order) {
  for (; t < k; t++) {
    w2_gains(n, nodes, weights, variance, offset, gain);
    const int64_t j = argmax_float64(gain, n);
    if (slot && slot[j] < 0) break;
    const double *moments = rows + (slot ? slot[j] : j) * n;
    order[t] = j;
    for (int64_t q = 0; q < exact; q++)
      w2_step_double(n, t, j, node[q], moments, factor + q * k * n, known, variance + q * n);
    for (int64_t q = exact; q < nodes; q++)
      w2_step_float(n, t, j, node[q], moments, rough_factor + (q - exact) * k * n, rough_known,
                    variance + q * n);
    offset[j] = -INFINITY;
  }
  return t;
}
