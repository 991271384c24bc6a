/* Included by loops.c for each type of numbers, REAL; NAME(f) is the function's name for it. */

typedef REAL NAME(vector)
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
#define VECTOR NAME(vector)
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))

/* The lowest position of the largest number. */
static int64_t NAME(argmax)(const REAL *values, int64_t n) {
  REAL lane[32];
  int64_t i = 0;
  for (int l = 0; l < 32; l++) lane[l] = -INFINITY;
  for (; i + 32 <= n; i += 32)
#pragma omp simd
    for (int l = 0; l < 32; l++) lane[l] = values[i + l] > lane[l] ? values[i + l] : lane[l];
  for (; i < n; i++) lane[0] = values[i] > lane[0] ? values[i] : lane[0];
  REAL most = lane[0];
  for (int l = 1; l < 32; l++) most = lane[l] > most ? lane[l] : most;
  for (i = 0; i < n && values[i] != most; i++) continue;
  return i < n ? i : 0;
}

/* row = scale * (source - sum over s of weight[s] * past[s]); variance -= row². past is [t n], the
   others [n]. Sums are taken in runs of RUN, which loses fewer digits than one long sum. Variances
   are float64: many small numbers are taken from a large one. */
static void NAME(condition)(int64_t n, int64_t t, REAL scale, const REAL *weight, const REAL *past,
                            const REAL *source, REAL *row, double *variance) {
  const int64_t width = 4 * LANES;
  for (int64_t start = 0; start < n && n >= width; start += width) {
    /* The last columns are taken together with some that are known: one by one they would be
       rounded otherwise, and equal tokens would differ. */
    const int64_t i = start + width <= n ? start : n - width;
    VECTOR a = {0}, b = {0}, c = {0}, d = {0};
    for (int64_t s = 0; s < t;) {
      const int64_t stop = s + RUN < t ? s + RUN : t;
      VECTOR e = {0}, f = {0}, g = {0}, h = {0};
      for (; s < stop; s++) {
        const VECTOR *known = (const VECTOR *)(past + s * n + i);
        e += weight[s] * known[0];
        f += weight[s] * known[1];
        g += weight[s] * known[2];
        h += weight[s] * known[3];
      }
      a += e;
      b += f;
      c += g;
      d += h;
    }
    const VECTOR *from = (const VECTOR *)(source + i);
    VECTOR *to = (VECTOR *)(row + i);
    to[0] = (from[0] - a) * scale;
    to[1] = (from[1] - b) * scale;
    to[2] = (from[2] - c) * scale;
    to[3] = (from[3] - d) * scale;
  }
  for (int64_t i = 0; i < n && n < width; i++) {
    REAL value = 0;
    for (int64_t s = 0; s < t;) {
      const int64_t stop = s + RUN < t ? s + RUN : t;
      REAL part = 0;
      for (; s < stop; s++) part += weight[s] * past[s * n + i];
      value += part;
    }
    row[i] = (source[i] - value) * scale;
  }
#pragma omp simd
  for (int64_t i = 0; i < n; i++) variance[i] -= (double)row[i] * row[i];
}

/* Greedy log-determinant from pick t on; returns the number of picks made so far, at most k.
   Stops before a token whose variance is not above the floor, and before one whose row is missing.
   Row j of the kernel is rows[j], or rows[slot[j]] if there are slots, slot[j] < 0 for a missing
   one. factor is [k n], variance [n], weight work space [k]; order and best are [k]. */
int64_t NAME(logdet_picks)(int64_t n, int64_t k, int64_t t, double floor, const REAL *rows,
                           const int64_t *slot, REAL *factor, double *variance, REAL *weight,
                           int64_t *order, double *best) {
  for (; t < k; t++) {
    const int64_t j = argmax_float64(variance, n);
    const double most = variance[j];
    if (!(most > floor) || (slot && slot[j] < 0)) break;
    order[t] = j;
    best[t] = most;
    for (int64_t s = 0; s < t; s++) weight[s] = factor[s * n + j];
    NAME(condition)(n, t, (REAL)(1 / sqrt(most)), weight, factor, rows + (slot ? slot[j] : j) * n,
                    factor + t * n, variance);
    variance[j] = -INFINITY;
  }
  return t;
}

/* CDPruner's picks from cosines [n n]: a token's gain is weight * variance, or its number in
   `spent` once its variance is not above `least`. Writes order [k]. variance [n] holds the first
   variances; factor [k n], gain [n], column [k] and picked [n] are work space. */
void NAME(conditional_picks)(int64_t n, int64_t k, const REAL *cosines, const REAL *weight,
                             const REAL *spent, double least, double *variance, int64_t *order,
                             REAL *factor, double *gain, REAL *column, uint8_t *picked) {
  memset(picked, 0, n);
  for (int64_t t = 0; t < k; t++) {
    for (int64_t i = 0; i < n; i++) {
      const double value = variance[i] > least ? weight[i] * variance[i] : spent[i];
      gain[i] = picked[i] ? -INFINITY : value;
    }
    const int64_t j = argmax_float64(gain, n);
    order[t] = j;
    picked[j] = 1;
    /* A pick that the earlier ones span does not change the variances of others. */
    if (!(variance[j] > least)) {
      memset(factor + t * n, 0, n * sizeof(REAL));
      continue;
    }
    for (int64_t s = 0; s < t; s++) column[s] = factor[s * n + j];
    NAME(condition)(n, t, (REAL)(1 / sqrt(variance[j])), column, factor, cosines + j * n,
                    factor + t * n, variance);
  }
}

/* DivPrune's picks under the distance 1 - cosine, from cosines [n n]; writes order [k]. The first
   has the farthest second-nearest token, the nearest being itself. nearest [n] is work space. */
void NAME(max_min_picks)(int64_t n, int64_t k, const REAL *cosines, int64_t *order,
                         REAL *nearest) {
  for (int64_t i = 0; i < n; i++) {
    const REAL *row = cosines + i * n;
    REAL first[32], second[32];
    int64_t j = 0;
    for (int l = 0; l < 32; l++) first[l] = second[l] = -INFINITY;
    for (; j + 32 <= n; j += 32)
#pragma omp simd
      for (int l = 0; l < 32; l++) {
        const REAL value = row[j + l], lower = value < first[l] ? value : first[l];
        second[l] = lower > second[l] ? lower : second[l];
        first[l] = value > first[l] ? value : first[l];
      }
    for (int l = 0; j < n; j++, l++) {
      const REAL value = row[j], lower = value < first[l] ? value : first[l];
      second[l] = lower > second[l] ? lower : second[l];
      first[l] = value > first[l] ? value : first[l];
    }
    REAL most = -INFINITY, next = -INFINITY;
    for (int l = 0; l < 32; l++) {
      const REAL lower = first[l] < most ? first[l] : most;
      next = lower > next ? lower : next;
      next = second[l] > next ? second[l] : next;
      most = first[l] > most ? first[l] : most;
    }
    nearest[i] = n > 1 ? 1 - next : 0;
  }
  order[0] = NAME(argmax)(nearest, n);
  for (int64_t i = 0; i < n; i++) nearest[i] = INFINITY;
  for (int64_t t = 1; t < k; t++) {
    const REAL *row = cosines + order[t - 1] * n;
    for (int64_t i = 0; i < n; i++) {
      const REAL distance = 1 - row[i];
      nearest[i] = distance < nearest[i] ? distance : nearest[i];
    }
    nearest[order[t - 1]] = -INFINITY;
    order[t] = NAME(argmax)(nearest, n);
  }
}

/* nearest[i] = min(nearest[i], |points[i] - centres[c]|²) over all centres, by differences: points
   [n d], centres [m d]. */
void NAME(nearest_squares)(int64_t n, int64_t d, int64_t m, const REAL *points,
                           const REAL *centres, REAL *nearest) {
  for (int64_t i = 0; i < n; i += 2) {
    const REAL *one = points + i * d, *two = points + (i + 1 < n ? i + 1 : i) * d;
    for (int64_t c = 0; c < m; c += 4) {
      const REAL *centre[4];
      VECTOR sum[8] = {{0}};
      REAL total[8];
      for (int64_t e = 0; e < 4; e++) centre[e] = centres + (c + e < m ? c + e : m - 1) * d;
      int64_t l = 0;
      for (; l + LANES <= d; l += LANES) {
        const VECTOR a = *(const VECTOR *)(one + l), b = *(const VECTOR *)(two + l);
        for (int e = 0; e < 4; e++) {
          const VECTOR x = *(const VECTOR *)(centre[e] + l), u = a - x, v = b - x;
          sum[e] += u * u;
          sum[e + 4] += v * v;
        }
      }
      for (int e = 0; e < 8; e++) {
        total[e] = 0;
        for (int64_t lane = 0; lane < LANES; lane++) total[e] += sum[e][lane];
      }
      for (; l < d; l++)
        for (int e = 0; e < 4; e++) {
          const REAL u = one[l] - centre[e][l], v = two[l] - centre[e][l];
          total[e] += u * u;
          total[e + 4] += v * v;
        }
      for (int e = 0; e < 4; e++) {
        nearest[i] = total[e] < nearest[i] ? total[e] : nearest[i];
        if (i + 1 < n) nearest[i + 1] = total[e + 4] < nearest[i + 1] ? total[e + 4] : nearest[i + 1];
      }
    }
  }
}

#undef VECTOR
#undef LANES
