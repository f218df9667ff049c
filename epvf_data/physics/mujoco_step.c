/* MuJoCo C as two custom calls of XLA on the CPU: put worlds at a start, and step a block of worlds.
 *
 * Plain C11, no header but the standard library's: MuJoCo's functions come in as a table (native.py fills it), and of
 * XLA's foreign function interface (xla/ffi/api/c_api.h, version 0.3) the few records that are used are declared below.
 * MuJoCo's own batch steps the worlds: it keeps an error of one world from ending the process.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

#define EXPORT __attribute__((visibility("default")))

/* ---- XLA's records ------------------------------------------------------------------------------------------- */

typedef struct Extension {
  size_t struct_size;
  int type; /* 1: metadata */
  struct Extension* next;
} Extension;

typedef struct {
  size_t struct_size;
  Extension* extensions;
  int major, minor;
} Version;

typedef struct {
  size_t struct_size;
  Version version;
  uint32_t traits;
} Metadata;

typedef struct {
  Extension base;
  Metadata* metadata;
} MetadataExtension;

typedef struct {
  size_t struct_size;
  Extension* extensions;
  const char* message;
  int code;
} ErrorArguments;

typedef struct {
  size_t struct_size;
  Extension* extensions;
  Version version;
  const void* internal;
  void* (*create_error)(ErrorArguments*);
} Api;

typedef struct {
  size_t struct_size;
  Extension* extensions;
  int dtype;
  void* data;
  int64_t rank;
  int64_t* dims;
} Buffer;

typedef struct {
  int dtype;
  void* value;
} Scalar;

typedef struct {
  const char* text;
  size_t length;
} Span;

typedef struct {
  size_t struct_size;
  Extension* extensions;
  int64_t size;
  int* types;
  void** items;
} List;

typedef struct {
  size_t struct_size;
  Extension* extensions;
  int64_t size;
  int* types;
  Span** names;
  void** items;
} Attributes;

typedef struct {
  size_t struct_size;
  Extension* extensions;
  const Api* api;
  void* context;
  int stage; /* 3: execute */
  List arguments, results;
  Attributes attributes;
} Call;

enum { INVALID_ARGUMENT = 3, INTERNAL = 13, EXECUTE = 3, METADATA = 1 };

/* ---- models -------------------------------------------------------------------------------------------------- */

typedef struct { /* native.py holds the same table */
  int64_t key;
  const void* model;
  void* (*make_batch)(const void* model, int worlds, const void* config, char* error, int length);
  double* (*rows)(void* batch);
  int (*row_size)(const void* batch);
  int (*step)(void* batch, const int* ids, int count, int steps, int stage);
  const int* (*status)(const void* batch);
  const char* (*error)(const void* batch, int world);
  int* (*warnings)(void* batch); /* pairs: last information, number */
  int32_t nq, nv, nu, qvel, warm, size, kinds; /* where things lie in a row; controls follow the state at `size` */
  double timestep;
} Model;

enum { ROWS = 64 }; /* worlds of a batch; a larger block is stepped in parts */

typedef struct Batch {
  void* batch;
  double* rows;
  int width;
  struct Batch* next;
} Batch;

typedef struct Entry {
  Model model;
  Batch* idle; /* one batch for each call that was ever under way at once */
  struct Entry* next;
} Entry;

static _Atomic(Entry*) entries;          /* only ever grows at its head: readers need no lock */
static atomic_flag held = ATOMIC_FLAG_INIT; /* of the lists of idle batches: held for a few instructions */

EXPORT int epvf_interface(void) { return 1; } /* raised when native.py and this file must change together */

EXPORT int epvf_register(const Model* model) {
  Entry* entry = calloc(1, sizeof *entry);
  if (!entry) return -1;
  entry->model = *model;
  entry->next = atomic_load(&entries);
  while (!atomic_compare_exchange_weak(&entries, &entry->next, entry)) {
  }
  return 0;
}

static void lock(void) {
  while (atomic_flag_test_and_set_explicit(&held, memory_order_acquire)) {
  }
}

static void unlock(void) { atomic_flag_clear_explicit(&held, memory_order_release); }

static Batch* take(Entry* entry, char* error, int length) {
  lock();
  Batch* found = entry->idle;
  if (found) entry->idle = found->next;
  unlock();
  if (found) return found;
  const struct {
    int threads;
    unsigned char persistent[4];
  } config = {1, {0}};
  found = calloc(1, sizeof *found);
  if (!found) return NULL;
  found->batch = entry->model.make_batch(entry->model.model, ROWS, &config, error, length);
  if (!found->batch) {
    free(found);
    return NULL;
  }
  found->rows = entry->model.rows(found->batch);
  found->width = entry->model.row_size(found->batch);
  return found;
}

static void give(Entry* entry, Batch* batch) {
  lock();
  batch->next = entry->idle;
  entry->idle = batch;
  unlock();
}

/* ---- the calls ----------------------------------------------------------------------------------------------- */

static void* fail(Call* call, int code, const char* message) {
  ErrorArguments arguments = {sizeof arguments, NULL, message, code};
  return call->api->create_error(&arguments);
}

/* XLA asks each handler once which version of the interface it was written for. */
static int describes(Call* call) {
  Extension* extension = call->extensions;
  if (!extension || extension->type != METADATA) return 0;
  Metadata* metadata = ((MetadataExtension*)extension)->metadata;
  metadata->version.major = 0;
  metadata->version.minor = 3;
  metadata->traits = 0;
  return 1;
}

static int64_t attribute(const Call* call, const char* name) {
  for (int64_t i = 0; i < call->attributes.size; i++) {
    const Span* span = call->attributes.names[i];
    if (span->length == strlen(name) && !memcmp(span->text, name, span->length))
      return *(int64_t*)((Scalar*)call->attributes.items[i])->value;
  }
  return -1;
}

static Entry* entry_of(const Call* call) {
  const int64_t key = attribute(call, "key");
  Entry* entry = atomic_load(&entries);
  while (entry && entry->model.key != key) entry = entry->next;
  return entry;
}

static Buffer* argument(const Call* call, int i) { return call->arguments.items[i]; }
static Buffer* result(const Call* call, int i) { return call->results.items[i]; }

static int64_t worlds_of(const Buffer* buffer) {
  int64_t worlds = 1;
  for (int64_t i = 0; i + 1 < buffer->rank; i++) worlds *= buffer->dims[i];
  return worlds;
}

static int64_t width(const Buffer* buffer) { return buffer->dims[buffer->rank - 1]; }

/* (qpos f32[..., nq], qvel f32[..., nv]) -> state u32[..., 2 size]: float64 bits of time, positions, velocities, 0 */
EXPORT void* epvf_start(Call* call) {
  if (describes(call) || call->stage != EXECUTE) return NULL;
  const Entry* entry = entry_of(call);
  if (!entry) return fail(call, INVALID_ARGUMENT, "this MuJoCo model is not registered in this process");
  const Model* m = &entry->model;
  if (width(argument(call, 0)) != m->nq || width(argument(call, 1)) != m->nv || width(result(call, 0)) != 2 * m->size)
    return fail(call, INVALID_ARGUMENT, "a start state has another size than the MuJoCo model");
  const float *qpos = argument(call, 0)->data, *qvel = argument(call, 1)->data;
  double* state = result(call, 0)->data;
  for (int64_t w = worlds_of(argument(call, 0)); w > 0; w--, state += m->size, qpos += m->nq, qvel += m->nv) {
    memset(state, 0, m->size * sizeof *state);
    for (int i = 0; i < m->nq; i++) state[1 + i] = qpos[i];
    for (int i = 0; i < m->nv; i++) state[m->qvel + i] = qvel[i];
  }
  return NULL;
}

/* Steps worlds [0, count) of the block under their controls; those that do not run stay as they are.
 *
 * The solver's warm start of the next control step is the last acceleration as (change of velocity) / timestep of the
 * last physics step, which is exact for explicit Euler up to rounding. Rows stored since the first version hang on that
 * rounding. A world that raised a warning (it diverged) stops before its next physics step. */
static int step_rows(const Model* m, Batch* b, double* state, const float* control, const uint8_t* running, int count,
                     int64_t substeps) {
  int ids[ROWS], live = 0, failed = 0;
  for (int w = 0; w < count; w++) {
    if (!running[w]) continue;
    double* row = b->rows + (int64_t)w * b->width;
    memcpy(row, state + (int64_t)w * m->size, m->size * sizeof *row);
    for (int i = 0; i < m->nu; i++) row[m->size + i] = control[w * m->nu + i];
    ids[live++] = w;
  }
  int* warnings = m->warnings(b->batch);
  for (int64_t s = 0; s < substeps && live && !failed; s++) {
    for (int i = 0; i < live; i++) { /* `state` keeps the velocities from before the last step */
      memcpy(state + (int64_t)ids[i] * m->size + m->qvel, b->rows + (int64_t)ids[i] * b->width + m->qvel,
             m->nv * sizeof(double));
    }
    if (s == 0) {
      memset(warnings, 0, (size_t)count * m->kinds * 2 * sizeof *warnings);
    } else { /* as mujoco.rollout: a world with a warning goes no further */
      int kept = 0;
      for (int i = 0; i < live; i++) {
        int warned = 0;
        for (int k = 0; k < m->kinds; k++) warned |= warnings[2 * (ids[i] * m->kinds + k) + 1];
        if (!warned) ids[kept++] = ids[i];
      }
      live = kept;
    }
    if (live) failed = m->step(b->batch, ids, live, 1, 0);
  }
  for (int w = 0; w < count && !failed; w++) {
    if (!running[w]) continue;
    double *row = b->rows + (int64_t)w * b->width, *old = state + (int64_t)w * m->size;
    for (int i = 0; i < m->nv; i++) row[m->warm + i] = (row[m->qvel + i] - old[m->qvel + i]) / m->timestep;
  }
  return failed;
}

/* (state u32[B, 2 size], action f32[B, A], control f32[B, nu], running pred[B]) ->
 * (state and action, the same memory; qpos f32[B, nq]; qvel f32[B, nv]; moved f32[B, nq], the change of qpos before
 * rounding) */
EXPORT void* epvf_step(Call* call) {
  if (describes(call) || call->stage != EXECUTE) return NULL;
  Entry* entry = entry_of(call);
  if (!entry) return fail(call, INVALID_ARGUMENT, "this MuJoCo model is not registered in this process");
  const Model* m = &entry->model;
  const int64_t substeps = attribute(call, "substeps");
  const Buffer* in = argument(call, 0);
  const int64_t worlds = worlds_of(in);
  if (width(in) != 2 * m->size || width(argument(call, 2)) != m->nu || substeps < 1)
    return fail(call, INVALID_ARGUMENT, "a state or a control has another size than the MuJoCo model");
  char message[512] = "out of memory";
  Batch* b = take(entry, message, sizeof message);
  if (!b) return fail(call, INTERNAL, message);

  double* state = result(call, 0)->data;
  if (state != in->data) memcpy(state, in->data, worlds * m->size * sizeof *state);
  if (result(call, 1)->data != argument(call, 1)->data)
    memcpy(result(call, 1)->data, argument(call, 1)->data, worlds * width(argument(call, 1)) * sizeof(float));
  const float* control = argument(call, 2)->data;
  const uint8_t* running = argument(call, 3)->data;
  float *qpos = result(call, 2)->data, *qvel = result(call, 3)->data, *moved = result(call, 4)->data;

  /* XLA flushes denormal numbers to zero; MuJoCo's results shall not depend on who calls it. */
#if defined(__SSE__) || defined(_M_X64)
  const unsigned flags = _mm_getcsr();
  _mm_setcsr(0x1f80);
#elif defined(__aarch64__)
  uint64_t flags;
  __asm__ volatile("mrs %0, fpcr" : "=r"(flags));
  __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
#endif
  int failed = 0;
  for (int64_t first = 0; first < worlds && !failed; first += ROWS) {
    const int count = worlds - first < ROWS ? (int)(worlds - first) : ROWS;
    double* part = state + first * m->size;
    failed = step_rows(m, b, part, control + first * m->nu, running + first, count, substeps);
    if (failed) {
      const int* status = m->status(b->batch);
      int w = 0;
      while (w + 1 < count && !(running[first + w] && status[w])) w++;
      snprintf(message, sizeof message, "MuJoCo: %s", m->error(b->batch, w));
      break;
    }
    for (int w = 0; w < count; w++) {
      double* old = part + (int64_t)w * m->size;
      const double* row = b->rows + (int64_t)w * b->width;
      const int64_t at = first + w;
      if (running[at]) {
        for (int i = 0; i < m->nq; i++) moved[at * m->nq + i] = (float)(row[1 + i] - old[1 + i]);
        memcpy(old, row, m->size * sizeof *old);
      } else {
        memset(moved + at * m->nq, 0, m->nq * sizeof *moved);
      }
      for (int i = 0; i < m->nq; i++) qpos[at * m->nq + i] = (float)old[1 + i];
      for (int i = 0; i < m->nv; i++) qvel[at * m->nv + i] = (float)old[m->qvel + i];
    }
  }
#if defined(__SSE__) || defined(_M_X64)
  _mm_setcsr(flags);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"(flags));
#endif
  give(entry, b);
  return failed ? fail(call, INTERNAL, message) : NULL;
}
