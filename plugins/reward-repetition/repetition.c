// How little a completion repeats itself, as a motrain plugin in C: the share of its word n-grams that are distinct.
// cc -shared -fPIC -O2 -I <motrain>/plugins/abi/include repetition.c -o librepetition.so

#include "motrain.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  size_t n;
} Repetition;

static MotrainStr str(const char *text) {
  return (MotrainStr){(const uint8_t *)text, strlen(text)};
}

static MotrainStatus fail(MotrainErrorText *error, const char *text) {
  size_t length = strlen(text);
  if (length > error->capacity) length = error->capacity;
  memcpy(error->data, text, length);
  error->length = length;
  return MOTRAIN_STATUS_ERROR;
}

// The schema has one option, so the config is {} or {"n":3}; motrain has checked its type and range.
static MotrainStatus create(MotrainStr config, uint64_t seed, void **instance, MotrainErrorText *error) {
  (void)seed;
  Repetition *made = malloc(sizeof *made);
  if (!made) return fail(error, "out of memory");
  made->n = 2;
  for (size_t i = 0; i < config.length; i++) {
    if (isdigit(config.data[i])) {
      made->n = config.data[i] - '0';
      break;
    }
  }
  *instance = made;
  return MOTRAIN_STATUS_OK;
}

static MotrainStatus destroy(void *instance, MotrainErrorText *error) {
  (void)error;
  free(instance);
  return MOTRAIN_STATUS_OK;
}

static bool is_word(uint8_t c) { return isalnum(c) || c == '\'' || c >= 0x80; }

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

// FNV-1a hashes of the words, then of each run of n of them; sorted, so that equal ones are neighbours.
static double distinct_share(MotrainStr text, size_t n, uint64_t *hashes) {
  size_t words = 0;
  for (size_t i = 0; i < text.length;) {
    if (!is_word(text.data[i])) {
      i++;
      continue;
    }
    uint64_t hash = 0xcbf29ce484222325u;
    for (; i < text.length && is_word(text.data[i]); i++) {
      hash = (hash ^ (uint64_t)tolower(text.data[i])) * 0x100000001b3u;
    }
    hashes[words++] = hash;
  }
  if (words < n) return 1.0;
  size_t grams = words - n + 1;
  for (size_t i = 0; i < grams; i++) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t j = 0; j < n; j++) hash = (hash ^ hashes[i + j]) * 0x100000001b3u;
    hashes[i] = hash;
  }
  qsort(hashes, grams, sizeof *hashes, compare);
  size_t distinct = 1;
  for (size_t i = 1; i < grams; i++) distinct += hashes[i] != hashes[i - 1];
  return (double)distinct / (double)grams;
}

static MotrainStatus score(void *instance, const MotrainSample *const *samples, size_t count, double *scores,
                           size_t *written, MotrainErrorText *error) {
  const Repetition *self = instance;
  for (size_t i = 0; i < count; i++) {
    MotrainStr text = samples[i]->completion;
    uint64_t *hashes = malloc((text.length / 2 + 1) * sizeof *hashes);
    if (!hashes) return fail(error, "out of memory");
    scores[i] = distinct_share(text, self->n, hashes);
    free(hashes);
  }
  *written = count;
  return MOTRAIN_STATUS_OK;
}

const MotrainPlugin *motrain_plugin_v1(void) {
  static const MotrainRewardFns functions = {.struct_size = sizeof functions, .score = score};
  static MotrainComponent repetition;
  static const MotrainComponent *components[] = {&repetition};
  static MotrainPlugin plugin;
  repetition = (MotrainComponent){
      .struct_size = sizeof repetition,
      .kind = MOTRAIN_KIND_REWARD,
      .flags = MOTRAIN_FLAG_THREAD_SAFE,
      .name = str("motrain.repetition"),
      .summary = str("the share of word n-grams that are distinct, in C"),
      .schema = str("{\"properties\": {\"n\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 9, \"default\": 2,"
                    " \"description\": \"words in an n-gram\"}}}"),
      .create = create,
      .destroy = destroy,
      .functions = &functions,
  };
  plugin = (MotrainPlugin){
      .struct_size = sizeof plugin,
      .version_major = MOTRAIN_VERSION_MAJOR,
      .version_minor = MOTRAIN_VERSION_MINOR,
      .name = str("reward-repetition"),
      .version = str("0.1.0"),
      .components = components,
      .component_count = 1,
  };
  return &plugin;
}
