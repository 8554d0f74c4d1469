//! From a checkpoint's tensors to the fused layout.

use super::config::Config;
use super::head::{self, Head};
use super::slots::{Part, Slot, slots};
use super::weights::{Tensors, read_folder};
use super::{Adapter, Model};
use crate::Result;
use motrain_core::stop;
use std::path::Path;
use tch::{Device, Kind, Tensor};

impl Model {
    /// A model folder, or a PEFT adapter in its base, with weights of this type.
    pub fn open(folder: &Path, device: Device, dtype: Kind) -> Result<Self> {
        if !Adapter::is_one(folder) || folder.join("config.json").is_file() {
            return Self::load_as(folder, device, dtype);
        }
        let base = Adapter::base_in(folder)?;
        Adapter::load(folder, device)?.merged_into(Self::load_as(&base, device, dtype)?)
    }

    /// Loads `config.json` and the weights as f32 masters. Missing, unexpected and misshapen tensors are all listed.
    pub fn load(folder: &Path, device: Device) -> Result<Self> {
        Self::load_as(folder, device, Kind::Float)
    }

    /// The same with weights of another type, for models that stand still. What a reward model computes with in f32 stays so.
    pub fn load_as(folder: &Path, device: Device, dtype: Kind) -> Result<Self> {
        let config = Config::load(folder)?;
        let kind = |name: &str| if head::is_wide(name) { Kind::Float } else { dtype };
        let tensors = read_folder(folder, &kind, &|name| says_nothing(name, &config))?;
        Self::assemble(config, tensors, device).map_err(|what| stop::or(motrain_core::Error::file(folder, what)).into())
    }

    /// Stacks the checkpoint's tensors into the fused layout.
    pub fn assemble(mut config: Config, mut tensors: Tensors, device: Device) -> std::result::Result<Self, String> {
        // Each layer has tensors of its own: a number beyond theirs would only fill the memory with complaints.
        let layers = config.shape.layers.len();
        if layers > tensors.len() {
            return Err(format!(
                "holds {} tensors, too few for the {layers} layers ({}) of its configuration",
                tensors.len(),
                config.arch.names().layer_count
            ));
        }
        prefix(&config, &mut tensors);
        tie(&mut config, &mut tensors).map_err(|e| e.to_string())?;
        head::settle(&mut config, &mut tensors).map_err(|e| e.to_string())?;
        let mut problems = Vec::new();
        let mut params = Vec::new();
        for slot in slots(&config) {
            stop::obey().map_err(|e| e.to_string())?;
            let mut parts = Vec::new();
            for part in &slot.parts {
                let shape = shape_of(&slot, part);
                match tensors.remove(&part.name) {
                    None => problems.push(format!("missing    {} {shape:?}", part.name)),
                    Some(t) if t.size() != shape => {
                        problems.push(format!("misshapen  {} {:?}, expected {shape:?}", part.name, t.size()));
                    }
                    Some(t) => parts.push(part.order.read(&t).map_err(|e| e.to_string())?),
                }
            }
            if parts.len() == slot.parts.len() {
                let stacked = if parts.len() == 1 { Ok(parts.remove(0)) } else { Tensor::f_cat(&parts, 0) };
                let stacked = stacked.and_then(|t| t.f_to_device(device)).map_err(|e| e.to_string())?;
                params.push((slot.name, stacked));
            }
        }
        problems.extend(tensors.keys().filter(|n| !harmless(n, &config)).map(|n| format!("unexpected {n}")));
        if problems.is_empty() {
            return Ok(Self { config, params, lora: None });
        }
        let total = problems.len();
        problems.truncate(20);
        Err(format!("{total} tensors do not fit config.json:\n  {}", problems.join("\n  ")))
    }
}

/// The checkpoint's shape of a part.
fn shape_of(slot: &Slot, part: &Part) -> Vec<i64> {
    let mut shape = slot.shape.clone();
    shape[0] = part.rows;
    part.order.shape(&shape)
}

/// Files of the bare model leave out what its tensors' names begin with; transformers puts it in front.
fn prefix(config: &Config, tensors: &mut Tensors) {
    let names = config.arch.names();
    if tensors.keys().any(|name| name.starts_with(names.prefix)) {
        return;
    }
    let heads = Head::modules(config.arch);
    let own = |name: String| match heads.contains(&name.split('.').next().unwrap_or_default()) {
        true => name,
        false => format!("{}{name}", names.prefix),
    };
    *tensors = std::mem::take(tensors).into_iter().map(|(name, t)| (own(name), t)).collect();
}

/// As transformers ties: one matrix serves as both where the checkpoint has only one of them; two that are equal become one, and two that
/// differ stay two, whatever tie_word_embeddings says.
fn tie(config: &mut Config, tensors: &mut Tensors) -> Result<()> {
    if config.head != Head::TiedLm {
        return Ok(());
    }
    let names = config.arch.names();
    let (own, embed) = (format!("{}.weight", names.head), format!("{}.weight", names.embed));
    let Some(head) = tensors.remove(&own) else { return Ok(()) };
    match tensors.get(&embed) {
        None => drop(tensors.insert(embed, head)),
        Some(embedding) if embedding.size() == head.size() && embedding.f_equal(&head)? => {}
        Some(_) => {
            tracing::warn!("{own} differs from {embed}: both are used, although tie_word_embeddings is true");
            config.head = Head::Lm;
            tensors.insert(own, head);
        }
    }
    Ok(())
}

/// Buffers that older versions saved beside the weights.
fn says_nothing(name: &str, config: &Config) -> bool {
    config.arch.names().buffers.iter().any(|end| format!(".{name}").ends_with(end))
}

/// Tensors that the model can do without: buffers, the output head below a reward model's, a value head beside a policy's (TRL saves one
/// with it).
fn harmless(name: &str, config: &Config) -> bool {
    says_nothing(name, config)
        || (config.head.scores() && name == format!("{}.weight", config.arch.names().head))
        || (!config.head.scores() && name.starts_with("v_head."))
}

#[cfg(test)]
mod tests {
    use super::super::mix::tests::base;
    use super::*;

    const EMBEDDING: &str = "model.embed_tokens.weight";
    const HEAD: &str = "lm_head.weight";

    /// The checkpoint's tensors of the small model.
    fn tensors() -> Tensors {
        let model = base();
        let mut out = Tensors::new();
        for (slot, (_, param)) in slots(&model.config).iter().zip(&model.params) {
            let mut row = 0;
            for part in &slot.parts {
                out.insert(part.name.clone(), param.narrow(0, row, part.rows).copy());
                row += part.rows;
            }
        }
        out
    }

    fn assemble(config: Config, tensors: Tensors) -> std::result::Result<Model, String> {
        Model::assemble(config, tensors, Device::Cpu)
    }

    #[test]
    fn a_head_that_differs_from_the_embedding_is_used() {
        let config = base().config;
        let head = |change: f64| {
            let mut all = tensors();
            all.insert(HEAD.into(), all[EMBEDDING].copy() + change);
            assemble(config.clone(), all).unwrap()
        };
        let same = head(0.0);
        assert_eq!((same.config.head, same.params.len()), (Head::TiedLm, base().params.len()));
        let other = head(1.0);
        let (name, own) = other.params.last().unwrap();
        assert_eq!((other.config.head, name.as_str()), (Head::Lm, HEAD));
        assert_eq!(*own, tensors()[EMBEDDING].copy() + 1.0);
        // And so it is saved and loaded.
        assert_eq!(other.config.to_json()["tie_word_embeddings"], false);
        let mut alone = tensors();
        let embedding = alone.remove(EMBEDDING).unwrap();
        alone.insert(HEAD.into(), embedding);
        assert_eq!(assemble(config, alone).unwrap().config.head, Head::TiedLm);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let config = base().config;
        let small = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let with = |name: &str| {
            let mut all = tensors();
            all.insert(name.into(), small.shallow_clone());
            assemble(config.clone(), all).err().unwrap_or_default()
        };
        for harmless in ["model.layers.0.self_attn.rotary_emb.inv_freq", "v_head.summary.weight"] {
            assert_eq!(with(harmless), "");
        }
        let mut said: Vec<String> = [
            "model.layers.0.self_attn.q_proj.bias",
            "score.weight",
            "lm_head.bias",
            "model.layers.7.mlp.up_proj.weight",
            "model.norm.weight",
        ]
        .map(with)
        .into();
        let mut missing = tensors();
        missing.remove("model.layers.1.mlp.up_proj.weight");
        said.push(assemble(config.clone(), missing).err().unwrap());
        said.push(assemble(Config { head: Head::Lm, ..config.clone() }, tensors()).err().unwrap());
        let mut deep = config;
        deep.shape.layers = vec![deep.shape.layers[0].clone(); 1000];
        said.push(assemble(deep, tensors()).err().unwrap());
        insta::assert_snapshot!(said.join("\n"));
    }
}
