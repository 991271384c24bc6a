/* Included by loops.c for each type of numbers, REAL; NAME(f) is the function's name for it.

   Products of all pairs of rows, half of them computed. Rows are copied ("packed") in panels of
   PANEL rows, the channels of a panel one after another, so that a tile of TILE rows by one panel
   of others stays in registers while it runs through the channels. Last, sums of squares of the
   channels. */

typedef REAL NAME(quad) __attribute__((vector_size(4 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define VECTOR NAME(vector)
#define QUAD NAME(quad)
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))
#define PANEL (3 * LANES)

/* to[j][i] = from[i][j] * weights[j] for i, j < 4; rows are from_step and to_step apart. */
static inline void NAME(transpose)(const REAL *from, int64_t from_step, const REAL *weights,
                                   REAL *to, int64_t to_step) {
  QUAD a = *(const QUAD *)from, b = *(const QUAD *)(from + from_step);
  QUAD c = *(const QUAD *)(from + 2 * from_step), d = *(const QUAD *)(from + 3 * from_step);
  if (weights) {
    const QUAD scale = *(const QUAD *)weights;
    a *= scale;
    b *= scale;
    c *= scale;
    d *= scale;
  }
  const QUAD left_ab = SHUFFLE(a, b, 0, 4, 1, 5), right_ab = SHUFFLE(a, b, 2, 6, 3, 7);
  const QUAD left_cd = SHUFFLE(c, d, 0, 4, 1, 5), right_cd = SHUFFLE(c, d, 2, 6, 3, 7);
  *(QUAD *)to = SHUFFLE(left_ab, left_cd, 0, 1, 4, 5);
  *(QUAD *)(to + to_step) = SHUFFLE(left_ab, left_cd, 2, 3, 6, 7);
  *(QUAD *)(to + 2 * to_step) = SHUFFLE(right_ab, right_cd, 0, 1, 4, 5);
  *(QUAD *)(to + 3 * to_step) = SHUFFLE(right_ab, right_cd, 2, 3, 6, 7);
}

typedef struct {
  int64_t n, d;                 /* rows and channels */
  int64_t row_step, column_step; /* of the rows, in numbers */
  const REAL *rows;
  const REAL *weights;          /* of the channels, or NULL */
  REAL *product;                /* [n n] */
  REAL *packed;                 /* room for `span` channels of all panels */
  int64_t panels, span;         /* panels; channels packed at a time */
  int64_t first, last;          /* channels that are packed now */
  int64_t together;             /* panels that one unit of work covers */
  atomic_llong next;            /* unit of work that nobody has taken */
} NAME(products);

/* Copy channels from..from+depth of a panel; rows behind the last are zeros. */
static void NAME(pack)(const NAME(products) *job, int64_t panel, int64_t from, int64_t depth,
                       REAL *to) {
  const int64_t first = panel * PANEL, row_step = job->row_step, column_step = job->column_step;
  const int64_t width = job->n - first < PANEL ? job->n - first : PANEL;
  const REAL *at = job->rows + first * row_step + from * column_step;
  const REAL *weights = job->weights ? job->weights + from : NULL;
  if (width < PANEL) memset(to, 0, depth * PANEL * sizeof(REAL));
  int64_t i = 0;
  for (; column_step == 1 && i + 4 <= width; i += 4) {
    const REAL *some = at + i * row_step;
    int64_t l = 0;
    for (; l + 4 <= depth; l += 4)
      NAME(transpose)(some + l, row_step, weights ? weights + l : NULL, to + l * PANEL + i, PANEL);
    for (; l < depth; l++)
      for (int e = 0; e < 4; e++)
        to[l * PANEL + i + e] = some[e * row_step + l] * (weights ? weights[l] : 1);
  }
  for (int64_t l = 0; l < depth; l++) {
    const REAL scale = weights ? weights[l] : 1;
    for (int64_t e = i; e < width; e++)
      to[l * PANEL + e] = at[e * row_step + l * column_step] * scale;
  }
}

/* product[i][j] = or += the sum over l of some[l][i] * panel[l][j], TILE rows by PANEL. */
static inline void NAME(tile)(int64_t depth, const REAL *some, const REAL *panel, REAL *product,
                              int64_t step, int add) {
  VECTOR sum[TILE][3];
  UNROLL for (int i = 0; i < TILE; i++)
    for (int v = 0; v < 3; v++) {
      sum[i][v] = (VECTOR){0};
      __builtin_prefetch(product + i * step + v * LANES, 1);
    }
  for (int64_t l = 0; l < depth; l++) {
    const VECTOR *other = (const VECTOR *)(panel + l * PANEL);
    const VECTOR a = other[0], b = other[1], c = other[2];
    for (int v = 0; v < 3; v++) __builtin_prefetch(panel + (l + 16) * PANEL + v * LANES);
    UNROLL for (int i = 0; i < TILE; i++) {
      const REAL one = some[l * TILE + i];
      sum[i][0] += one * a;
      sum[i][1] += one * b;
      sum[i][2] += one * c;
    }
  }
  UNROLL for (int i = 0; i < TILE; i++) {
    VECTOR *to = (VECTOR *)(product + i * step);
    for (int v = 0; v < 3; v++) {
      if (add) sum[i][v] += to[v];
      to[v] = sum[i][v];
    }
  }
}

/* Add a tile that reaches over the last row or column. */
static void NAME(tile_at_the_edge)(const NAME(products) *job, int64_t i, int64_t j, int64_t depth,
                                   const REAL *some, const REAL *panel, int add) {
  REAL all[TILE * PANEL];
  NAME(tile)(depth, some, panel, all, PANEL, 0);
  for (int64_t r = i; r < job->n && r < i + TILE; r++)
    for (int64_t s = j; s < job->n && s < j + PANEL; s++) {
      REAL *to = job->product + r * job->n + s;
      const REAL value = all[(r - i) * PANEL + s - j];
      *to = add ? *to + value : value;
    }
}

/* Copy what is above the diagonal of columns from..to below it. */
static void NAME(mirror)(REAL *product, int64_t n, int64_t from, int64_t to) {
  for (int64_t j = from; j < to; j += 4)
    for (int64_t i = 0; i < j + 4 && i < to; i += 4) {
      if (i + 4 <= j && j + 4 <= to)
        NAME(transpose)(product + i * n + j, n, NULL, product + j * n + i, n);
      else
        for (int64_t s = j; s < j + 4 && s < to; s++)
          for (int64_t r = i; r < i + 4 && r < s; r++) product[s * n + r] = product[r * n + s];
    }
}

static void *NAME(pack_panels)(void *shared) {
  NAME(products) *job = shared;
  const int64_t parts = (job->last - job->first + DEPTH - 1) / DEPTH;
  for (int64_t unit; (unit = atomic_fetch_add(&job->next, 1)) < job->panels * parts;) {
    const int64_t panel = unit / parts, part = unit % parts, from = job->first + part * DEPTH;
    const int64_t depth = job->last - from < DEPTH ? job->last - from : DEPTH;
    NAME(pack)(job, panel, from, depth,
               job->packed + (part * DEPTH * job->panels + panel * depth) * PANEL);
  }
  return NULL;
}

static void *NAME(multiply_panels)(void *shared) {
  NAME(products) *job = shared;
  const int64_t n = job->n, units = (job->panels + job->together - 1) / job->together;
  REAL some[TILE * DEPTH];
  for (int64_t unit; (unit = atomic_fetch_add(&job->next, 1)) < units;) {
    /* The last columns have most rows above the diagonal: they go first. */
    const int64_t start = (units - 1 - unit) * job->together;
    const int64_t stop = start + job->together < job->panels ? start + job->together : job->panels;
    const int64_t end = stop * PANEL < n ? stop * PANEL : n;
    for (int64_t from = job->first; from < job->last; from += DEPTH) {
      const int64_t depth = job->last - from < DEPTH ? job->last - from : DEPTH;
      const REAL *packed = job->packed + (from - job->first) * job->panels * PANEL;
      for (int64_t i = 0; i < end; i += TILE) {
        const REAL *rows = packed + i / PANEL * depth * PANEL + i % PANEL;
        for (int64_t l = 0; l < depth; l++)
          memcpy(some + l * TILE, rows + l * PANEL, TILE * sizeof(REAL));
        for (int64_t q = i / PANEL > start ? i / PANEL : start; q < stop; q++) {
          const int64_t j = q * PANEL;
          const REAL *panel = packed + q * depth * PANEL;
          if (i + TILE <= n && j + PANEL <= n)
            NAME(tile)(depth, some, panel, job->product + i * n + j, n, from > 0);
          else
            NAME(tile_at_the_edge)(job, i, j, depth, some, panel, from > 0);
        }
      }
    }
    if (job->last == job->d) NAME(mirror)(job->product, n, start * PANEL, end);
  }
  return NULL;
}

/* product[i][j] = sum over l of weights[l]² * rows[i][l] * rows[j][l], exactly symmetric, equal for
   equal rows, and the same for any number of threads. weights may be NULL. packed has room for
   `room` numbers, at least those of DEPTH channels: see room_for_products. */
void NAME(all_products)(int64_t n, int64_t d, const REAL *rows, int64_t row_step,
                        int64_t column_step, const REAL *weights, REAL *product, REAL *packed,
                        int64_t room, int64_t threads) {
  NAME(products) job = {
      .n = n, .d = d, .rows = rows, .row_step = row_step, .column_step = column_step,
      .weights = weights, .product = product, .packed = packed, .panels = (n + PANEL - 1) / PANEL,
      .together = threads > 1 ? 2 : 6};
  job.span = room / (job.panels * PANEL * DEPTH) * DEPTH;
  for (; job.first < d; job.first = job.last) {
    job.last = job.first + job.span < d ? job.first + job.span : d;
    atomic_store(&job.next, 0);
    in_threads(NAME(pack_panels), &job, threads);
    atomic_store(&job.next, 0);
    in_threads(NAME(multiply_panels), &job, threads);
  }
}

typedef struct {
  int64_t n, d, row_step; /* of the rows, in numbers */
  const REAL *rows;
  REAL *energy;     /* [d] */
  atomic_llong next; /* unit of columns that nobody has taken */
} NAME(energies);

/* energy[l] += the sum over 0 <= i < count of rows[i][l]², for at most RUN rows and a few vectors. */
static inline void NAME(add_squares)(int64_t count, int64_t width, const REAL *rows,
                                     int64_t row_step, REAL *energy) {
  int64_t l = 0;
  for (; l + LANES <= width; l += LANES) {
    VECTOR sum = {0};
    for (int64_t i = 0; i < count; i++) {
      const VECTOR one = *(const VECTOR *)(rows + i * row_step + l);
      sum += one * one;
    }
    *(VECTOR *)(energy + l) += sum;
  }
  for (; l < width; l++) {
    REAL sum = 0;
    for (int64_t i = 0; i < count; i++) sum += rows[i * row_step + l] * rows[i * row_step + l];
    energy[l] += sum;
  }
}

static void *NAME(square_columns)(void *shared) {
  NAME(energies) *job = shared;
  const int64_t units = (job->d + ENERGY_COLUMNS - 1) / ENERGY_COLUMNS;
  REAL part[ENERGY_COLUMNS];
  for (int64_t unit; (unit = atomic_fetch_add(&job->next, 1)) < units;) {
    const int64_t from = unit * ENERGY_COLUMNS;
    const int64_t width = job->d - from < ENERGY_COLUMNS ? job->d - from : ENERGY_COLUMNS;
    REAL *energy = job->energy + from;
    memset(energy, 0, width * sizeof(REAL));
    for (int64_t start = 0; start < job->n; start += DEPTH) {
      const int64_t stop = start + DEPTH < job->n ? start + DEPTH : job->n;
      memset(part, 0, width * sizeof(REAL));
      for (int64_t i = start; i < stop; i += RUN) {
        const REAL *rows = job->rows + i * job->row_step + from;
        if (i + RUN <= stop)
          NAME(add_squares)(RUN, width, rows, job->row_step, part);
        else
          NAME(add_squares)(stop - i, width, rows, job->row_step, part);
      }
      for (int64_t l = 0; l < width; l++) energy[l] += part[l];
    }
  }
  return NULL;
}

/* energy[l] = sum over i of rows[i][l]², in runs of RUN and of DEPTH rows, the same for any number
   of threads. */
void NAME(column_energies)(int64_t n, int64_t d, const REAL *rows, int64_t row_step, REAL *energy,
                           int64_t threads) {
  NAME(energies) job = {.n = n, .d = d, .row_step = row_step, .rows = rows, .energy = energy};
  in_threads(NAME(square_columns), &job, threads);
}

#undef VECTOR
#undef QUAD
#undef LANES
#undef PANEL
