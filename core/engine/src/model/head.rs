//! What a model ends in, as `architectures` in config.json says it. A reward model's head has parameters of its own, and its
//! way from a hidden state to numbers (`output.rs`).

use super::arch::Arch;
use super::config::Config;
use super::labels::Labels;
use super::slots::{Order, Slot, linear, plain};
use super::weights::Tensors;
use crate::Result;
use crate::fields::{Fields, Said};
use serde_json::{Map, Value};
use tch::Tensor;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Head {
    /// Next-token logits through the transposed embedding.
    TiedLm,
    /// Next-token logits through a matrix of its own.
    Lm,
    /// A number for each label: a reward model, or another classifier of sequences.
    Score,
    /// safe-rlhf's (Beaver): scores with a bias, which are normalised.
    Normalised(Normalised),
    /// ArmoRM's: ratings, and their sum under weights that a gate finds in the prompt.
    Gated(Gated),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalised {
    pub(super) bias: Option<bool>,
    pub(super) norm: Norm,
    /// Scores are better when lower.
    cost: bool,
    /// Of the scores that the normaliser has seen in training. It changes nothing here, but is written as it was read.
    pub(super) count: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Norm {
    None,
    /// `(s − mean) / (√var + ε)`.
    Affine,
    /// `s / (√var + ε)`.
    Scale,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gated {
    pub(super) temperature: f64,
    pub(super) hidden: i64,
    /// Layers of the gate before its last.
    pub(super) layers: i64,
}

/// The class of a reward model that transformers does not have: what config.json says of it, and its labels if the file names them.
type Read = fn(&mut Fields, Option<Vec<String>>) -> Said<(Head, Vec<String>)>;

const OWN: [(&str, &str, Read); 3] = [
    ("llama", "LlamaForScore", normalised),
    ("llama", "LlamaModelForScore", normalised),
    ("llama", "LlamaForRewardModelWithGating", gated),
];

/// Their fields of config.json.
const OWN_FIELDS: [&str; 13] = [
    "bias",
    "do_normalize",
    "gating_hidden_dim",
    "gating_n_hidden",
    "gating_temperature",
    "mean",
    "momentum",
    "normalizer_type",
    "num_objectives",
    "score_bias",
    "score_dim",
    "score_type",
    "var",
];

/// Their modules.
const OWN_MODULES: [&str; 5] = ["score_head", "normalizer", "regression_layer", "reward_transform_matrix", "gating"];

pub const SCORE: &str = "score";
pub const COUNT: &str = "normalizer.count";
pub const MEAN: &str = "normalizer.mean";
pub const VAR: &str = "normalizer.var";
/// And of a gated one.
pub const SCALE: &str = "gating.logit_scale";
pub const TRANSFORM: &str = "reward_transform_matrix";

/// No head that exists has more labels, and no gate more layers.
const MAX_LABELS: usize = 100_000;
const MAX_GATE: i64 = 1000;

/// The head of a reward model, with the names of its labels; none of a language model.
pub fn read(arch: &dyn Arch, f: &mut Fields) -> Said<Option<(Head, Vec<String>)>> {
    let architectures: Vec<String> = f.take("architectures")?.unwrap_or_default();
    let named = labels(f)?;
    let [lm, classifier] = arch.classes();
    let is = |class: &str| architectures.iter().any(|a| a.eq_ignore_ascii_case(class));
    let own: Vec<_> = OWN.iter().filter(|(family, ..)| *family == arch.model_type()).collect();
    let rewards: Vec<&str> =
        std::iter::once(classifier.as_str()).chain(own.iter().map(|(_, class, _)| *class)).collect();
    let known = |a: &String| a.eq_ignore_ascii_case(&lm) || rewards.iter().any(|class| a.eq_ignore_ascii_case(class));
    if let Some(odd) = architectures.iter().find(|a| !known(a)) {
        let rewards = rewards.join(", ");
        return Err(format!("says architectures = \"{odd}\"; motrain knows {lm} and, for reward models, {rewards}"));
    }
    if let Some((.., read)) = own.iter().find(|(_, class, _)| is(class)) {
        return read(f, named).map(Some);
    }
    Ok(is(&classifier).then(|| (Head::Score, named.unwrap_or_else(|| numbered("LABEL", 2)))))
}

/// Names of labels by their ids, if the file says any.
pub fn labels(f: &mut Fields) -> Said<Option<Vec<String>>> {
    let count: Option<usize> = f.take("num_labels")?;
    let Some(named) = f.take::<Map<String, Value>>("id2label")? else {
        return count.map(|count| right_count("num_labels", count).map(|count| numbered("LABEL", count))).transpose();
    };
    if let Some(other) = count.filter(|count| *count != named.len()) {
        return Err(format!("says num_labels = {other}, and {} labels in id2label", named.len()));
    }
    let name = |i: usize| named.get(&i.to_string()).and_then(Value::as_str).map(str::to_owned);
    let names: Option<Vec<String>> = (0..named.len()).map(name).collect();
    let wrong = "says id2label, which does not name the labels 0, 1, … in turn";
    names.filter(|n| !n.is_empty()).map(Some).ok_or_else(|| wrong.into())
}

fn right_count(field: &str, count: usize) -> Said<usize> {
    let right = (1..=MAX_LABELS).contains(&count);
    right.then_some(count).ok_or_else(|| format!("says {field} = {count}; there are 1 to {MAX_LABELS}"))
}

pub fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{name}_{i}")).collect()
}

fn normalised(f: &mut Fields, named: Option<Vec<String>>) -> Said<(Head, Vec<String>)> {
    let count = right_count("score_dim", f.take("score_dim")?.unwrap_or(1))?;
    let kind: String = f.take("score_type")?.unwrap_or_else(|| "reward".into());
    let normalises = f.take("do_normalize")?.unwrap_or(false);
    let norm = match (normalises, kind.as_str()) {
        (true, "reward") => Norm::Affine,
        (true, "cost") => Norm::Scale,
        (false, "reward" | "cost") | (_, "critic") => Norm::None,
        _ => return Err(format!("says score_type = \"{kind}\"; motrain knows \"reward\", \"cost\" and \"critic\"")),
    };
    let bias = match (f.take("bias")?, f.take("score_bias")?) {
        (Some(old), Some(new)) if old != new => return Err(format!("says bias = {old}, but score_bias = {new}")),
        (old, new) => new.or(old),
    };
    // They say how training moves mean and var.
    f.harmless(&["normalizer_type", "momentum"]);
    for name in ["mean", "var"] {
        let numbers: Option<Vec<f64>> = f.take(name)?;
        if let Some(odd) = numbers.filter(|numbers| numbers.len() != count) {
            return Err(format!("says {} numbers as {name}, but score_dim = {count}", odd.len()));
        }
    }
    let cost = kind == "cost";
    let names = named.filter(|names| names.len() == count);
    let names = names.unwrap_or_else(|| if count == 1 { vec![kind] } else { numbered("LABEL", count) });
    Ok((Head::Normalised(Normalised { bias, norm, cost, count: 0 }), names))
}

fn gated(f: &mut Fields, named: Option<Vec<String>>) -> Said<(Head, Vec<String>)> {
    let count = right_count("num_objectives", f.take("num_objectives")?.unwrap_or(19))?;
    let gate = Gated {
        temperature: f.take("gating_temperature")?.unwrap_or(10.0),
        hidden: f.take("gating_hidden_dim")?.unwrap_or(1024),
        layers: f.take("gating_n_hidden")?.unwrap_or(3),
    };
    if !(gate.temperature.is_finite() && gate.temperature > 0.0) {
        return Err(format!("says gating_temperature = {}; it must be above 0", gate.temperature));
    }
    for (name, size, range) in
        [("gating_hidden_dim", gate.hidden, 1..=1 << 30), ("gating_n_hidden", gate.layers, 0..=MAX_GATE)]
    {
        if !range.contains(&size) {
            return Err(format!("says {name} = {size}; it must be {} to {}", range.start(), range.end()));
        }
    }
    let names = named.filter(|names| names.len() == count).unwrap_or_else(|| numbered("objective", count));
    Ok((Head::Gated(gate), names))
}

impl Head {
    /// Whether it gives scores, and not next tokens.
    pub fn scores(&self) -> bool {
        !matches!(self, Self::TiedLm | Self::Lm)
    }

    /// Whether its class is none of transformers'.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Normalised(_) | Self::Gated(_))
    }

    /// Whether its score is better when lower.
    pub fn is_cost(&self) -> bool {
        matches!(self, Self::Normalised(head) if head.cost)
    }

    /// Whether the class of the model reads the score before padding tokens, wherever they come from.
    pub fn skips_padding(&self) -> bool {
        !matches!(self, Self::Normalised(_))
    }

    /// Names of modules that stand beside the backbone.
    pub fn modules(arch: &dyn Arch) -> Vec<&'static str> {
        [&[arch.names().head, SCORE], OWN_MODULES.as_slice()].concat()
    }
}

impl Config {
    /// What `Model::into_reward_model` makes of it.
    pub fn into_reward_model(&mut self, layers: i64, labels: Labels) {
        if layers > 0 {
            self.shape.layers.truncate(layers as usize);
        }
        self.end_in_scores(labels);
    }

    /// Gives the model the head of a classifier with these labels, and forgets what config.json said of another.
    pub(super) fn end_in_scores(&mut self, labels: Labels) {
        for name in OWN_FIELDS.iter().chain(&["problem_type", "num_labels"]) {
            self.said.shift_remove(*name);
        }
        self.said.extend(labels.problem.map(|problem| ("problem_type".into(), problem.into())));
        self.head = Head::Score;
        self.labels = labels.names;
    }

    /// What transformers trains the labels of a classifier for.
    pub fn problem_type(&self) -> Option<&str> {
        self.said.get("problem_type").and_then(Value::as_str)
    }
}

/// The head's parameters.
pub fn slots(config: &Config, out: &mut Vec<Slot>) {
    let (d, labels) = (config.shape.hidden_size, config.labels.len() as i64);
    let module = |name: &str, rows: i64, columns: i64, bias: bool, out: &mut Vec<Slot>| {
        linear(name.into(), columns, &[(name.into(), rows)], Order::AsIs, bias, out);
    };
    match config.head {
        Head::TiedLm => {}
        Head::Lm => module(config.arch.names().head, config.shape.vocab_size, d, false, out),
        Head::Score => module(SCORE, labels, d, false, out),
        Head::Normalised(head) => {
            module("score_head", labels, d, head.bias.unwrap_or(false), out);
            out.extend([MEAN, VAR].map(|name| plain(name.into(), &[labels])));
        }
        Head::Gated(gate) => {
            module("regression_layer", labels, d, false, out);
            out.push(plain(TRANSFORM.into(), &[labels; 2]));
            out.push(plain(SCALE.into(), &[1]));
            for i in 0..=gate.layers {
                let rows = if i == gate.layers { labels } else { gate.hidden };
                module(&format!("gating.layers.{i}"), rows, if i == 0 { d } else { gate.hidden }, true, out);
            }
        }
    }
}

/// What only the tensors tell of a head: whether there is a bias where config.json does not say, and what normalisers of older files hold.
pub fn settle(config: &mut Config, tensors: &mut Tensors) -> Result<()> {
    let Head::Normalised(head) = &mut config.head else { return Ok(()) };
    head.bias.get_or_insert(tensors.contains_key("score_head.bias"));
    if let Some(count) = tensors.remove(COUNT) {
        head.count = count.f_reshape([-1])?.f_int64_value(&[0])?;
    }
    for (name, field, usual) in [(MEAN, "mean", 0.0), (VAR, "var", 1.0)] {
        let said: Option<Vec<f32>> = config.said.get(field).and_then(|v| serde_json::from_value(v.clone()).ok());
        let numbers = said.unwrap_or_else(|| vec![usual; config.labels.len()]);
        tensors.entry(name.into()).or_insert(Tensor::f_from_slice(&numbers)?);
    }
    Ok(())
}

/// Whether a head computes with this tensor in f32.
pub fn is_wide(name: &str) -> bool {
    [MEAN, VAR, SCALE, TRANSFORM].contains(&name)
}

/// Tensors that are no parameters, but written beside them.
pub fn beside(config: &Config) -> Result<Vec<(String, Tensor)>> {
    match config.head {
        Head::Normalised(head) => Ok(vec![(COUNT.into(), Tensor::f_from_slice(&[head.count])?)]),
        _ => Ok(vec![]),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::model::Model;
    use serde_json::json;
    use tch::{Device, Kind};

    const PLAIN: &str = r#"{"hidden_size": 4, "intermediate_size": 4, "max_position_embeddings": 16, "model_type": "llama",
        "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": 5}"#;

    fn config(class: &str, changes: Value) -> Said<Config> {
        let mut said: Map<String, Value> = serde_json::from_str(PLAIN).unwrap();
        said.insert("architectures".into(), json!([class]));
        said.extend(changes.as_object().unwrap().clone());
        Config::parse(&Value::Object(said).to_string()).map(|(config, _)| config)
    }

    #[test]
    fn what_config_json_says_of_a_head_makes_sense_or_is_refused() {
        let table = [
            ("LlamaForScore", json!({ "score_type": "value" })),
            ("LlamaForScore", json!({ "score_type": "value", "do_normalize": true })),
            ("LlamaForScore", json!({ "score_dim": 0 })),
            ("LlamaForScore", json!({ "bias": true, "score_bias": false })),
            ("LlamaForScore", json!({ "mean": [0.0, 1.0] })),
            ("LlamaForScore", json!({ "var": "large" })),
            ("LlamaForRewardModelWithGating", json!({ "gating_temperature": 0 })),
            ("LlamaForRewardModelWithGating", json!({ "gating_n_hidden": 1_000_000_000 })),
            ("LlamaForRewardModelWithGating", json!({ "gating_hidden_dim": -1 })),
            ("LlamaForRewardModelWithGating", json!({ "num_objectives": -1 })),
            ("LlamaForScore", json!({ "model_type": "mistral" })),
            ("LlamaForCausalLM", json!({ "bias": true })),
        ];
        let one = |(class, changes): &(&str, Value)| {
            let said = config(class, changes.clone()).map(|c| format!("{:?}", c.head)).unwrap_or_else(|e| e);
            format!("{class} {changes}\n  {said}")
        };
        insta::assert_snapshot!(table.iter().map(one).collect::<Vec<_>>().join("\n"));
    }

    /// The tensors of a file of this configuration, all ones.
    fn tensors(config: &Config) -> Tensors {
        let parts = super::super::slots::slots(config).into_iter().flat_map(|slot| {
            let shape = slot.shape.clone();
            slot.parts.into_iter().map(move |part| (part.name, [&[part.rows], &shape[1..]].concat()))
        });
        parts.map(|(name, shape)| (name, Tensor::ones(shape, (Kind::Float, Device::Cpu)))).collect()
    }

    /// Older files hold no normaliser: config.json's lists count, or none; and neither field needs to say whether there is a bias.
    #[test]
    fn tensors_tell_what_config_json_leaves_open() {
        let head = |changes: Value, without: &[&str], bias: bool| -> Said<(f64, f64, Option<f64>)> {
            let config = config("LlamaForScore", changes).unwrap();
            let mut all = tensors(&config);
            without.iter().for_each(|name| drop(all.remove(*name)));
            if bias {
                all.insert("score_head.bias".into(), Tensor::from_slice(&[3f32]));
            }
            let model = Model::assemble(config, all, Device::Cpu)?;
            let value = |name: &str| model.params.iter().find(|(n, _)| n == name).map(|(_, p)| p.double_value(&[0]));
            Ok((value(MEAN).unwrap(), value(VAR).unwrap(), value("score_head.bias")))
        };
        let lists = json!({ "mean": [0.5], "var": [4.0] });
        assert_eq!(head(json!({}), &[], true), Ok((1.0, 1.0, Some(3.0))));
        assert_eq!(head(lists.clone(), &[], false), Ok((1.0, 1.0, None)));
        assert_eq!(head(lists, &[MEAN, VAR], false), Ok((0.5, 4.0, None)));
        assert_eq!(head(json!({}), &[MEAN, VAR], false), Ok((0.0, 1.0, None)));
        let unexpected = head(json!({ "bias": false }), &[], true).unwrap_err();
        assert!(unexpected.contains("unexpected score_head.bias"), "{unexpected}");
        let missing = head(json!({ "score_bias": true }), &["score_head.bias"], false).unwrap_err();
        assert!(missing.contains("missing    score_head.bias"), "{missing}");
    }

    /// A model with a head of its own class can be trained to end in a new one, and forgets the fields of the old.
    #[test]
    fn a_new_head_leaves_nothing_of_the_old() {
        let config = config("LlamaForScore", json!({ "bias": true, "score_type": "cost", "mean": [1.0] })).unwrap();
        let all = tensors(&config);
        let model = Model::assemble(config, all, Device::Cpu).unwrap();
        let labels = ["helpful", "verbose"].map(String::from);
        let folder = tempfile::tempdir().unwrap();
        model.into_reward_model(0, Labels::ratings(&labels), 1).unwrap().save_weights(folder.path()).unwrap();
        let again = Model::load(folder.path(), Device::Cpu).unwrap();
        assert_eq!((again.config.head, again.config.labels.as_slice()), (Head::Score, labels.as_slice()));
        assert_eq!(again.config.problem_type(), Some("regression"));
        assert_eq!(again.params.last().unwrap().1.size(), [2, 4]);
    }
}
