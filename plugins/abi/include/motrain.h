// The interface between motrain and its plugins, version 1.
// Made from plugins/abi/src by `cargo xtask codegen`; docs/plugins.md says how to use it.

#ifndef MOTRAIN_H
#define MOTRAIN_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define MOTRAIN_EXPORT __declspec(dllexport)
#else
#define MOTRAIN_EXPORT __attribute__((visibility("default")))
#endif

// The version that breaks: a plugin of another one is refused.
#define MOTRAIN_VERSION_MAJOR 1

// Raised when fields or kinds are added.
#define MOTRAIN_VERSION_MINOR 3

// Draws weights: `SamplerFns`.
#define MOTRAIN_KIND_SAMPLER 1

// Writes weights into prompts: `ConditionerFns`.
#define MOTRAIN_KIND_CONDITIONER 2

// Scores completions: `RewardFns`.
#define MOTRAIN_KIND_REWARD 3

// Says which of two completions is better: `LabelFns`.
#define MOTRAIN_KIND_LABEL 4

// A loss of pairs of completions: `LossFns`.
#define MOTRAIN_KIND_LOSS 5

// Says which of two answers is better: `JudgeFns`. Since 1.3.
#define MOTRAIN_KIND_JUDGE 6

// An instance may be called from several threads at once.
#define MOTRAIN_FLAG_THREAD_SAFE 1

// A reward reads the data row (`Sample::row`), which is left empty otherwise.
#define MOTRAIN_FLAG_NEEDS_ROW 2

// A loss reads the completions' log-probs under other weights (`Pairs::other_policy_first`), which take another pass; since 1.2.
#define MOTRAIN_FLAG_NEEDS_OTHER 4

// How a call ended: one of `STATUS_…`.
typedef int32_t MotrainStatus;

// What a judge says of a duel: one of `VERDICT_…`.
typedef int32_t MotrainVerdict;

// UTF-8 text, borrowed for the call. `data` may be null if `length` is 0.
typedef struct MotrainStr {
  // The first byte.
  const uint8_t *data;
  // In bytes.
  size_t length;
} MotrainStr;

// Where the plugin writes why a call failed. The caller owns `data`.
typedef struct MotrainErrorText {
  // Bytes of this struct, as the caller knows it.
  size_t struct_size;
  // The caller's buffer, `capacity` bytes of UTF-8.
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

// Frees an instance that `Create` made; it is not called again.
typedef MotrainStatus (*MotrainDestroy)(void *instance, struct MotrainErrorText *error);

// A component of one of the six kinds.
typedef struct MotrainComponent {
  // Bytes of this struct, as the plugin knows it.
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
  // Makes an instance.
  MotrainCreate create;
  // Frees an instance; may be null if there is nothing to free.
  MotrainDestroy destroy;
  // `SamplerFns`, `ConditionerFns`, `RewardFns`, `LabelFns`, `LossFns` or `JudgeFns`, by `kind`.
  const void *functions;
} MotrainComponent;

// What a library offers.
typedef struct MotrainPlugin {
  // Bytes of this struct, as the plugin knows it.
  size_t struct_size;
  // The versions of this interface that the plugin was built against.
  uint32_t version_major;
  // As `version_major`; what a later minor version adds is not asked for.
  uint32_t version_minor;
  // The plugin's name, for messages.
  struct MotrainStr name;
  // The plugin's own version.
  struct MotrainStr version;
  // `component_count` pointers.
  const struct MotrainComponent *const *components;
  // How many components there are.
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

// What a weight sampler does.
typedef struct MotrainSamplerFns {
  // Bytes of this struct, as the plugin knows it.
  size_t struct_size;
  // Draws the weights of a prompt.
  MotrainSampleWeights sample;
  // May be null: then the front is not told.
  MotrainFeedback feedback;
} MotrainSamplerFns;

// One turn of a conversation; `role` is "system", "user" or "assistant".
typedef struct MotrainMessage {
  // "system", "user" or "assistant".
  struct MotrainStr role;
  // What was said.
  struct MotrainStr content;
} MotrainMessage;

// A prompt and the objectives that it is conditioned on.
typedef struct MotrainConditioning {
  // Bytes of this struct, as motrain knows it.
  size_t struct_size;
  // `message_count` turns.
  const struct MotrainMessage *messages;
  // How many turns there are.
  size_t message_count;
  // The names of the objectives, `objective_count` of them.
  const struct MotrainStr *objectives;
  // How many objectives there are.
  size_t objective_count;
} MotrainConditioning;

// Takes the turns of a prompt one by one.
typedef struct MotrainMessageSink {
  // Bytes of this struct, as motrain knows it.
  size_t struct_size;
  // Handed back to `push`.
  void *context;
  // Takes one turn; text is copied before it returns.
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

// What a conditioner does.
typedef struct MotrainConditionerFns {
  // Bytes of this struct, as the plugin knows it.
  size_t struct_size;
  // Writes weights into a prompt.
  MotrainRender render;
  // May be null: then prompts cannot be read back.
  MotrainParse parse;
} MotrainConditionerFns;

// A completion of a plain prompt (never the conditioned one).
typedef struct MotrainSample {
  // Bytes of this struct, as motrain knows it.
  size_t struct_size;
  // `prompt_count` turns.
  const struct MotrainMessage *prompt;
  // How many turns there are.
  size_t prompt_count;
  // The policy's answer.
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

// As `Score`, of those samples that the reward can score. `skipped` holds `count` zeros: 1 leaves a sample out, whose score is not read.
// `written` must become `count` all the same.
typedef MotrainStatus (*MotrainScoreSome)(void *instance,
                                          const struct MotrainSample *const *samples,
                                          size_t count,
                                          double *scores,
                                          uint8_t *skipped,
                                          size_t *written,
                                          struct MotrainErrorText *error);

// What a reward does.
typedef struct MotrainRewardFns {
  // Bytes of this struct, as the plugin knows it.
  size_t struct_size;
  // Scores completions. A motrain before 1.3 calls no other.
  MotrainScore score;
  // May be null: then every sample has a score. It is called instead of `score` otherwise. Since 1.3.
  MotrainScoreSome score_some;
} MotrainRewardFns;

// The probability that the first of two completions is better, from `objectives` scaled scores each; `STATUS_NONE` is a tie.
typedef MotrainStatus (*MotrainLabelPair)(void *instance,
                                          size_t objectives,
                                          const double *weights,
                                          const double *first,
                                          const double *second,
                                          double *label,
                                          struct MotrainErrorText *error);

// What a label rule does.
typedef struct MotrainLabelFns {
  // Bytes of this struct, as the plugin knows it.
  size_t struct_size;
  // Labels a pair.
  MotrainLabelPair label;
} MotrainLabelFns;

// Pairs of completions; every array has `count` numbers, `weights` and `margins` have `count × objectives`.
typedef struct MotrainPairs {
  // Bytes of this struct, as motrain knows it.
  size_t struct_size;
  // How many pairs there are.
  size_t count;
  // How many objectives there are.
  size_t objectives;
  // Log-prob sums in nats.
  const double *policy_first;
  // As `policy_first`.
  const double *policy_second;
  // As `policy_first`, under the reference.
  const double *reference_first;
  // As `policy_first`, under the reference.
  const double *reference_second;
  // Tokens of the completions, the end of sequence included.
  const uint32_t *tokens_first;
  // As `tokens_first`.
  const uint32_t *tokens_second;
  // The probability that the first completion is better.
  const double *label;
  // The weights that a pair was made under.
  const double *weights;
  // Scaled score differences, first minus second.
  const double *margins;
  // The completions' log-prob sums under the weights of another pair, since 1.2. This field and those below are null where the component
  // has not `FLAG_NEEDS_OTHER`, and where all pairs of the batch have the same weights.
  const double *other_policy_first;
  // As `other_policy_first`.
  const double *other_policy_second;
  // As `other_policy_first`, under the reference.
  const double *other_reference_first;
  // As `other_policy_first`, under the reference.
  const double *other_reference_second;
  // Room for the derivatives of the loss in `other_policy_first`.
  double *d_other_first;
  // Room for the derivatives of the loss in `other_policy_second`.
  double *d_other_second;
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

// What a pairwise loss does.
typedef struct MotrainLossFns {
  // Bytes of this struct, as the plugin knows it.
  size_t struct_size;
  // Evaluates the loss of pairs.
  MotrainEvaluateLoss evaluate;
  // May be null: then implicit rewards are reported with β = 1.
  MotrainBeta beta;
} MotrainLossFns;

// Two answers to a plain prompt (never the conditioned one).
typedef struct MotrainDuel {
  // Bytes of this struct, as motrain knows it.
  size_t struct_size;
  // `prompt_count` turns.
  const struct MotrainMessage *prompt;
  // How many turns there are.
  size_t prompt_count;
  // The answer that is shown first.
  struct MotrainStr first;
  // The answer that is shown second.
  struct MotrainStr second;
} MotrainDuel;

// Compares the answers of `count` duels. `written` must become `count`. Every duel is asked in both orders, in calls of their own, and a
// judge that names a place rather than an answer yields ties.
typedef MotrainStatus (*MotrainJudgeDuels)(void *instance,
                                           const struct MotrainDuel *const *duels,
                                           size_t count,
                                           MotrainVerdict *verdicts,
                                           size_t *written,
                                           struct MotrainErrorText *error);

// What a judge does.
typedef struct MotrainJudgeFns {
  // Bytes of this struct, as the plugin knows it.
  size_t struct_size;
  // Compares answers.
  MotrainJudgeDuels judge;
} MotrainJudgeFns;

// The call did what it was asked.
#define MOTRAIN_STATUS_OK 0

// The call failed; the error text says why.
#define MOTRAIN_STATUS_ERROR 1

// There is no result, which is no error: a tie, or a prompt without weights.
#define MOTRAIN_STATUS_NONE 2

// Neither answer is better.
#define MOTRAIN_VERDICT_TIE 0

// The first is better.
#define MOTRAIN_VERDICT_FIRST 1

// The second is better.
#define MOTRAIN_VERDICT_SECOND 2

// The judge cannot say: the duel is left out and counted.
#define MOTRAIN_VERDICT_SKIPPED 3

#endif  /* MOTRAIN_H */

// What a plugin exports: its description, which must outlive the process.
#ifdef __cplusplus
extern "C"
#endif
MOTRAIN_EXPORT const MotrainPlugin *motrain_plugin_v1(void);
