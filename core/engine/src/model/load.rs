//! From a checkpoint's tensors to the fused layout.

use super::config::{Config, Head};
use super::llama::{Llama, slots};
use super::weights::{Tensors, read_folder};
use crate::Result;
use motrain_core::stop;
use std::path::Path;
use tch::{Device, Tensor};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

impl Llama {
    /// Loads `config.json` and the weights as f32 masters. Missing, unexpected and misshapen tensors are all listed.
    pub fn load(folder: &Path, device: Device) -> Result<Self> {
        let config = Config::load(folder)?;
        let tensors = read_folder(folder)?;
        Self::assemble(config, tensors, device).map_err(|what| stop::or(motrain_core::Error::file(folder, what)).into())
    }

    /// Stacks the checkpoint's tensors into the fused layout.
    pub fn assemble(mut config: Config, mut tensors: Tensors, device: Device) -> std::result::Result<Self, String> {
        // Each layer has tensors of its own: a number beyond theirs would only fill the memory with complaints.
        if config.layers > tensors.len() as i64 {
            return Err(format!(
                "holds {} tensors, too few for the {} layers (num_hidden_layers) of its configuration",
                tensors.len(),
                config.layers
            ));
        }
        tie(&mut config, &mut tensors).map_err(|e| e.to_string())?;
        let mut problems = Vec::new();
        let mut params = Vec::new();
        for slot in slots(&config) {
            stop::obey().map_err(|e| e.to_string())?;
            let mut parts = Vec::new();
            for (name, rows) in &slot.parts {
                let mut shape = slot.shape.clone();
                shape[0] = *rows;
                match tensors.remove(name) {
                    None => problems.push(format!("missing    {name} {shape:?}")),
                    Some(t) if t.size() != shape => {
                        problems.push(format!("misshapen  {name} {:?}, expected {shape:?}", t.size()));
                    }
                    Some(t) => parts.push(t),
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
            return Ok(Self { config, params });
        }
        let total = problems.len();
        problems.truncate(20);
        Err(format!("{total} tensors do not fit config.json:\n  {}", problems.join("\n  ")))
    }
}

/// As transformers ties: one matrix serves as both where the checkpoint has only one of them; two that are equal become one, and two that
/// differ stay two, whatever tie_word_embeddings says.
fn tie(config: &mut Config, tensors: &mut Tensors) -> Result<()> {
    if config.head != Head::TiedLm {
        return Ok(());
    }
    let Some(head) = tensors.remove(HEAD) else { return Ok(()) };
    match tensors.get(EMBEDDING) {
        None => drop(tensors.insert(EMBEDDING.into(), head)),
        Some(embedding) if embedding.size() == head.size() && embedding.f_equal(&head)? => {}
        Some(_) => {
            tracing::warn!("{HEAD} differs from {EMBEDDING}: both are used, although tie_word_embeddings is true");
            config.head = Head::Lm;
            tensors.insert(HEAD.into(), head);
        }
    }
    Ok(())
}

/// Tensors that the model can do without: a buffer of old versions, the output head below a reward model's, a value head beside a policy's
/// (TRL saves one with it).
fn harmless(name: &str, config: &Config) -> bool {
    name.ends_with("rotary_emb.inv_freq")
        || (config.head == Head::Score && name == HEAD)
        || (config.head != Head::Score && name.starts_with("v_head."))
}

#[cfg(test)]
mod tests {
    use super::super::mix::tests::base;
    use super::*;
    use tch::Kind;

    /// The checkpoint's tensors of the small model.
    fn tensors() -> Tensors {
        let model = base();
        let mut out = Tensors::new();
        for (slot, (_, param)) in slots(&model.config).iter().zip(&model.params) {
            let mut row = 0;
            for (name, rows) in &slot.parts {
                out.insert(name.clone(), param.narrow(0, row, *rows).copy());
                row += rows;
            }
        }
        out
    }

    fn assemble(config: Config, tensors: Tensors) -> std::result::Result<Llama, String> {
        Llama::assemble(config, tensors, Device::Cpu)
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
        said.push(assemble(Config { layers: 1 << 30, ..config }, tensors()).err().unwrap());
        insta::assert_snapshot!(said.join("\n"));
    }
}
