// The interface between motrain and its plugins, version 1.
// Made from plugins/abi/src/lib.rs by `cargo xtask codegen`; docs/plugins.md says how to use it.

#ifndef MOTRAIN_H
#define MOTRAIN_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define MOTRAIN_EXPORT __declspec(dllexport)
#else
#define MOTRAIN_EXPORT __attribute__((visibility("default")))
#endif

#define MOTRAIN_VERSION_MAJOR 1

// Raised when fields or kinds are added.
#define MOTRAIN_VERSION_MINOR 1

#define MOTRAIN_KIND_SAMPLER 1

#define MOTRAIN_KIND_CONDITIONER 2

#define MOTRAIN_KIND_REWARD 3

#define MOTRAIN_KIND_LABEL 4

#define MOTRAIN_KIND_LOSS 5

// An instance may be called from several threads at once.
#define MOTRAIN_FLAG_THREAD_SAFE 1

// A reward reads the data row (`Sample::row`), which is left empty otherwise.
#define MOTRAIN_FLAG_NEEDS_ROW 2

typedef int32_t MotrainStatus;

// UTF-8 text, borrowed for the call. `data` may be null if `length` is 0.
typedef struct MotrainStr {
  const uint8_t *data;
  // In bytes.
  size_t length;
} MotrainStr;

// Where the plugin writes why a call failed. The caller owns `data`.
typedef struct MotrainErrorText {
  size_t struct_size;
  uint8_t *data;
  // Bytes that fit; longer text is cut.
  size_t capacity;
  // Bytes written.
  size_t length;
} MotrainErrorText;

// Makes an instance. `config` is a JSON object that fits the component's schema; `seed` is the run's.
typedef MotrainStatus (*MotrainCreate)(struct MotrainStr config,
                                       uint64_t seed,
                                       void **instance,
                                       struct MotrainErrorText *error);

typedef MotrainStatus (*MotrainDestroy)(void *instance, struct MotrainErrorText *error);

// A component of one of the five kinds.
typedef struct MotrainComponent {
  size_t struct_size;
  // `KIND_…`
  uint32_t kind;
  // `FLAG_…`, added up.
  uint32_t flags;
  // By convention `vendor.name`.
  struct MotrainStr name;
  // One line for `motrain list`.
  struct MotrainStr summary;
  // JSON Schema of the options: an object with `properties`.
  struct MotrainStr schema;
  MotrainCreate create;
  MotrainDestroy destroy;
  // `SamplerFns`, `ConditionerFns`, `RewardFns`, `LabelFns` or `LossFns`, by `kind`.
  const void *functions;
} MotrainComponent;

// What a library offers.
typedef struct MotrainPlugin {
  size_t struct_size;
  // The versions of this interface that the plugin was built against.
  uint32_t version_major;
  uint32_t version_minor;
  struct MotrainStr name;
  // The plugin's own version.
  struct MotrainStr version;
  const struct MotrainComponent *const *components;
  size_t component_count;
} MotrainPlugin;

// Draws `objectives` weights (at least 0, adding up to 1) for the `index`-th prompt of the run; the same `index` and
// `seed` must give the same weights.
typedef MotrainStatus (*MotrainSampleWeights)(void *instance,
                                              size_t objectives,
                                              uint64_t index,
                                              uint64_t seed,
                                              double *weights,
                                              struct MotrainErrorText *error);

// Tells a sampler the front so far: `points` rows of `objectives` weights and of mean rewards.
typedef MotrainStatus (*MotrainFeedback)(void *instance,
                                         size_t objectives,
                                         size_t points,
                                         const double *weights,
                                         const double *rewards,
                                         struct MotrainErrorText *error);

typedef struct MotrainSamplerFns {
  size_t struct_size;
  MotrainSampleWeights sample;
  // May be null.
  MotrainFeedback feedback;
} MotrainSamplerFns;

// One turn of a conversation; `role` is "system", "user" or "assistant".
typedef struct MotrainMessage {
  struct MotrainStr role;
  struct MotrainStr content;
} MotrainMessage;

// A prompt and the objectives that it is conditioned on.
typedef struct MotrainConditioning {
  size_t struct_size;
  const struct MotrainMessage *messages;
  size_t message_count;
  const struct MotrainStr *objectives;
  size_t objective_count;
} MotrainConditioning;

// Takes the turns of a prompt one by one.
typedef struct MotrainMessageSink {
  size_t struct_size;
  void *context;
  void (*push)(void *context, struct MotrainStr role, struct MotrainStr content);
} MotrainMessageSink;

// Writes weights into a prompt, turn by turn, into `out`.
typedef MotrainStatus (*MotrainRender)(void *instance,
                                       const struct MotrainConditioning *prompt,
                                       const double *weights,
                                       const struct MotrainMessageSink *out,
                                       struct MotrainErrorText *error);

// The inverse: the weights and the plain prompt, or `STATUS_NONE`.
typedef MotrainStatus (*MotrainParse)(void *instance,
                                      const struct MotrainConditioning *conditioned,
                                      double *weights,
                                      const struct MotrainMessageSink *out,
                                      struct MotrainErrorText *error);

typedef struct MotrainConditionerFns {
  size_t struct_size;
  MotrainRender render;
  // May be null: then prompts cannot be read back.
  MotrainParse parse;
} MotrainConditionerFns;

// A completion of a plain prompt (never the conditioned one).
typedef struct MotrainSample {
  size_t struct_size;
  const struct MotrainMessage *prompt;
  size_t prompt_count;
  struct MotrainStr completion;
  // The prompt's row of the data file as JSON, if the component has `FLAG_NEEDS_ROW`.
  struct MotrainStr row;
  // 1 if the policy ended the completion, 0 if it was cut at the length limit. Since 1.1.
  uint32_t finished;
} MotrainSample;

// Scores `count` samples; higher is better. `written` must become `count`.
typedef MotrainStatus (*MotrainScore)(void *instance,
                                      const struct MotrainSample *const *samples,
                                      size_t count,
                                      double *scores,
                                      size_t *written,
                                      struct MotrainErrorText *error);

typedef struct MotrainRewardFns {
  size_t struct_size;
  MotrainScore score;
} MotrainRewardFns;

// The probability that the first of two completions is better, from `objectives` scaled scores each; `STATUS_NONE` is a tie.
typedef MotrainStatus (*MotrainLabelPair)(void *instance,
                                          size_t objectives,
                                          const double *weights,
                                          const double *first,
                                          const double *second,
                                          double *label,
                                          struct MotrainErrorText *error);

typedef struct MotrainLabelFns {
  size_t struct_size;
  MotrainLabelPair label;
} MotrainLabelFns;

// Pairs of completions; every array has `count` numbers, `weights` and `margins` have `count × objectives`.
typedef struct MotrainPairs {
  size_t struct_size;
  size_t count;
  size_t objectives;
  // Log-prob sums in nats.
  const double *policy_first;
  const double *policy_second;
  const double *reference_first;
  const double *reference_second;
  // Tokens of the completions, the end of sequence included.
  const uint32_t *tokens_first;
  const uint32_t *tokens_second;
  // The probability that the first completion is better.
  const double *label;
  const double *weights;
  // Scaled score differences, first minus second.
  const double *margins;
} MotrainPairs;

// The loss of each pair and its derivatives in `policy_first` and `policy_second`, `count` numbers each.
typedef MotrainStatus (*MotrainEvaluateLoss)(void *instance,
                                             const struct MotrainPairs *pairs,
                                             double *loss,
                                             double *d_first,
                                             double *d_second,
                                             struct MotrainErrorText *error);

// β: what log-ratios are multiplied by to give implicit rewards.
typedef double (*MotrainBeta)(void *instance);

typedef struct MotrainLossFns {
  size_t struct_size;
  MotrainEvaluateLoss evaluate;
  // May be null: then implicit rewards are reported with β = 1.
  MotrainBeta beta;
} MotrainLossFns;

#define MOTRAIN_STATUS_OK 0

// The call failed; the error text says why.
#define MOTRAIN_STATUS_ERROR 1

// There is no result, which is no error: a tie, or a prompt without weights.
#define MOTRAIN_STATUS_NONE 2

#endif  /* MOTRAIN_H */

// What a plugin exports: its description, which must outlive the process.
#ifdef __cplusplus
extern "C"
#endif
MOTRAIN_EXPORT const MotrainPlugin *motrain_plugin_v1(void);
