//! LoRA adapters as PEFT saves them: adapter_config.json (`peft.rs` reads it) and adapter_model.safetensors.

use super::Model;
use super::config::{Config, Head};
use super::peft::{LoraConfig, Place};
use super::slots::{Order, Slot, slots};
use super::weights::{Tensors, read_weights};
use crate::finite::not_finite;
use crate::session::obey;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor, no_grad};

const PREFIX: &str = "base_model.model.";
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Changes of a model's matrices, by the checkpoint's names of them.
pub struct Adapter {
    name: String,
    config: LoraConfig,
    factors: BTreeMap<String, Factors>,
    /// Matrices and norms that take the place of the base's.
    whole: Tensors,
}

/// A low-rank change `scale·B·A`: A is `[r, in]`, B `[out, r]`.
struct Factors {
    a: Tensor,
    b: Tensor,
    scale: f64,
}

impl Adapter {
    pub fn is_one(folder: &Path) -> bool {
        folder.join(CONFIG).is_file()
    }

    pub fn load(folder: &Path, device: Device) -> Result<Self> {
        let path = folder.join(CONFIG);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let config = LoraConfig::parse(&text).map_err(|what| Error::file(&path, what))?;
        let file = folder.join(WEIGHTS);
        if !file.is_file() && folder.join("adapter_model.bin").is_file() {
            let what = format!(
                "has its weights as adapter_model.bin, and motrain reads {WEIGHTS}; load and save it with a newer peft"
            );
            return Err(Error::file(folder, what));
        }
        let mut tensors = Tensors::new();
        read_weights(&file, &mut tensors)?;
        let tensors = tensors.into_iter().map(|(name, t)| Ok((name, t.f_to_device(device)?))).collect::<Result<_>>()?;
        Self::of(folder.display().to_string(), config, tensors).map_err(|what| Error::file(&file, what))
    }

    /// Sorts the tensors of an adapter's file by what they do.
    fn of(name: String, config: LoraConfig, tensors: Tensors) -> std::result::Result<Self, String> {
        let (mut a, mut b, mut whole) = (Tensors::new(), Tensors::new(), Tensors::new());
        for (name, tensor) in tensors {
            let odd = || {
                format!(
                    "holds {name}, which is neither a LoRA factor of a matrix nor a module that modules_to_save names"
                )
            };
            let inner = name.strip_prefix(PREFIX).ok_or_else(odd)?;
            let part = |end: &str| inner.strip_suffix(end).map(str::to_owned);
            let turned = || tensor.f_transpose(0, 1).map_err(|_| odd());
            if let Some(module) = part(".lora_A.weight") {
                a.insert(module, tensor);
            } else if let Some(module) = part(".lora_B.weight") {
                b.insert(module, tensor);
            } else if let Some(module) = part(".lora_embedding_A") {
                // Of the embedding's transpose.
                b.insert(module, turned()?);
            } else if let Some(module) = part(".lora_embedding_B") {
                a.insert(module, turned()?);
            } else {
                let module = part(".base_layer.weight").or(part(".weight")).ok_or_else(odd)?;
                let layer_of_own_head = module == "model.embed_tokens" || module == "lm_head";
                if !config.replaces(&module) && !layer_of_own_head {
                    return Err(odd());
                }
                whole.insert(format!("{module}.weight"), tensor);
            }
        }
        let mut factors = BTreeMap::new();
        for (module, a) in a {
            let b = b.remove(&module).ok_or_else(|| format!("has no lora_B of {module}"))?;
            let rank = config.rank(&module);
            if a.dim() != 2 || b.dim() != 2 || a.size()[0] != rank || b.size()[1] != rank {
                let what = format!("holds factors {:?} and {:?} of {module}", b.size(), a.size());
                return Err(format!("{what}, where {CONFIG} says a rank of {rank} (r, rank_pattern)"));
            }
            factors.insert(format!("{module}.weight"), Factors { a, b, scale: config.scale(&module) });
        }
        match b.keys().next() {
            Some(module) => Err(format!("has no lora_A of {module}")),
            None if factors.is_empty() && whole.is_empty() => Err("holds no LoRA factors".into()),
            None => Ok(Self { name, config, factors, whole }),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the factors of both can be added up. Whole matrices have none.
    pub fn same_shape(&self, other: &Self) -> bool {
        let shapes =
            |a: &Self| a.factors.iter().map(|(k, f)| (k.clone(), f.a.size(), f.b.size(), f.scale)).collect::<Vec<_>>();
        self.whole.is_empty() && other.whole.is_empty() && shapes(self) == shapes(other)
    }

    /// A copy of `base` with the changes of an adapter whose factors are the weighted sums of these adapters' factors, which have the
    /// same shapes.
    pub fn mixed_onto(base: &Model, adapters: &[Self], weights: &[f64]) -> Result<Model> {
        let mut factors = BTreeMap::new();
        for (module, first) in &adapters[0].factors {
            let sum = |pick: fn(&Factors) -> &Tensor| -> Result<Tensor> {
                let mut sum = pick(first).f_zeros_like()?;
                for (adapter, &w) in adapters.iter().zip(weights) {
                    sum = sum.f_add(&pick(&adapter.factors[module]).f_mul_scalar(w)?)?;
                }
                Ok(sum)
            };
            factors.insert(module.clone(), Factors { a: sum(|f| &f.a)?, b: sum(|f| &f.b)?, scale: first.scale });
        }
        changed(base, "the mixed adapter", &factors, &Tensors::new())
    }

    /// A copy of `base` with the changes added.
    pub fn applied_to(&self, base: &Model) -> Result<Model> {
        self.fits(base).map_err(|what| Error::invalid(format!("{}: {what}", self.name)))?;
        changed(base, &self.name, &self.factors, &self.whole)
    }

    /// Whether the adapter's file holds what its configuration says it changes of this base, and nothing else.
    fn fits(&self, base: &Model) -> std::result::Result<(), String> {
        let made_for = self.config.base.as_ref().map_or(String::new(), |b| format!("; it was made for \"{b}\""));
        let all = slots(&base.config);
        let own = self.factors.keys().chain(self.whole.keys());
        let names = base.config.arch.names();
        let ends = [names.embed, names.head].map(|name| format!("{name}.weight"));
        if let Some(name) = own.clone().find(|name| base.config.head == Head::TiedLm && ends.contains(name)) {
            return Err(format!(
                "changes {name}, and the base has one matrix as embedding and as head: with PEFT only one of them changes; save the base \
                 with tie_word_embeddings = false and a {} of its own",
                ends[1]
            ));
        }
        let parts = || all.iter().flat_map(|slot| slot.parts.iter().map(move |part| (slot, part)));
        if let Some(odd) = own.clone().find(|name| !parts().any(|(_, part)| part.name == **name)) {
            return Err(format!("the base has no {odd}{made_for}"));
        }
        for (slot, part) in parts().filter(|(_, part)| part.name.ends_with(".weight")) {
            let name = &part.name;
            let module = name.strip_suffix(".weight").unwrap_or(name);
            let place = Place { names, linear: is_linear(slot, &base.config) };
            let (said, there) = (self.config.changes(module, &place), self.factors.contains_key(name));
            if said != there {
                let (has, says) = if there { ("holds", "does not name") } else { ("lacks", "names") };
                return Err(format!(
                    "{WEIGHTS} {has} factors of {module}, which {CONFIG} {says} (target_modules, exclude_modules, layers_to_transform){made_for}"
                ));
            }
            if self.config.replaces(module) && !self.whole.contains_key(name) {
                return Err(format!("{WEIGHTS} lacks {name}, which {CONFIG} names (modules_to_save)"));
            }
        }
        Ok(())
    }
}

/// Whether a parameter is a matrix of a layer.
fn is_linear(slot: &Slot, config: &Config) -> bool {
    slot.shape.len() == 2 && slot.name.starts_with(config.arch.names().layers)
}

fn changed(base: &Model, who: &str, factors: &BTreeMap<String, Factors>, whole: &Tensors) -> Result<Model> {
    no_grad(|| {
        let mut model = base.frozen_copy()?;
        for (slot, (_, param)) in slots(&base.config).into_iter().zip(&mut model.params) {
            obey()?;
            let mut row = 0;
            for part in &slot.parts {
                let name = &part.name;
                let mut target = param.f_narrow(0, row, part.rows)?;
                let wanted = target.size();
                let fits = |size: Vec<i64>| match size == wanted {
                    true => Ok(()),
                    false => Err(Error::invalid(format!("{who}: its {name} is {size:?}, the base's is {wanted:?}"))),
                };
                if let Some(own) = whole.get(name) {
                    fits(part.order.shape(&own.size()))?;
                    target.f_copy_(&part.order.read(own)?)?;
                }
                if let Some(Factors { a, b, scale }) = factors.get(name) {
                    fits([b.size()[0], a.size()[1]].into())?;
                    // PEFT's factors lie as a linear layer's, however the matrix is stored.
                    let rows = if part.order == Order::Transposed { Order::AsIs } else { part.order };
                    let _ = target.f_add_(&rows.read(&b.f_matmul(a)?.f_mul_scalar(*scale)?)?)?;
                    if let Some(what) = not_finite(&target)? {
                        return Err(Error::invalid(format!("{who}: with its change, of {name} {what}")));
                    }
                }
                row += part.rows;
            }
        }
        Ok(model)
    })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::super::mix::{Mix, tests::base};
    use super::*;
    use crate::model::write_tensors;

    /// A PEFT folder with rank-1 factors of one value in every entry.
    fn folder(value: f32, config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
        let module = "base_model.model.model.layers.1.self_attn.k_proj";
        let width = base().config.shape.hidden_size as usize;
        let rows = base().config.shape.kv_heads * base().config.shape.head_dim;
        let tensors = vec![
            (format!("{module}.lora_A.weight"), Tensor::from_slice(&vec![value; width]).view([1, width as i64])),
            (format!("{module}.lora_B.weight"), Tensor::from_slice(&vec![value; rows as usize]).view([rows, 1])),
        ];
        write_tensors(&folder.path().join("adapter_model.safetensors"), &tensors).unwrap();
        folder
    }

    const PLAIN: &str = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "bias": "none", "rank_pattern": {},
        "target_modules": ["layers.1.self_attn.k_proj"]}"#;

    fn adapter(value: f32) -> Adapter {
        Adapter::load(folder(value, PLAIN).path(), Device::Cpu).unwrap()
    }

    /// How far a model's second layer's keys, and nothing else, lie from the base's.
    fn change(model: &Model) -> f64 {
        let mut change = None;
        for ((name, a), (_, b)) in model.params.iter().zip(&base().params) {
            let gap = a - b;
            if name == "model.layers.1.self_attn.qkv_proj.weight" {
                let (q, k) = (8, 4);
                assert!(f64::try_from(gap.narrow(0, 0, q).abs().max()).unwrap() == 0.0);
                let own = gap.narrow(0, q, k);
                assert!(f64::try_from(own.max() - own.min()).unwrap() < 1e-6);
                change = Some(f64::try_from(own.mean(tch::Kind::Float)).unwrap());
            } else {
                assert!(f64::try_from(gap.abs().max()).unwrap() == 0.0, "{name}");
            }
        }
        change.unwrap()
    }

    #[test]
    fn golden_delta_and_factor_mixes_differ() {
        let whole = [1.0, -1.0].map(|x| adapter(x).applied_to(&base()).unwrap());
        assert!((change(&whole[0]) - 1.0).abs() < 1e-6);
        // By difference the two rank-1 changes, both 1, average to 1; by factor they cancel.
        let names = ["one".to_owned(), "two".to_owned()];
        let delta = Mix::of_adapters(base(), vec![adapter(1.0), adapter(-1.0)], &names).unwrap();
        assert!((change(&delta.at(&[0.5, 0.5]).unwrap()) - 1.0).abs() < 1e-6);
        let factor = Mix::of_factors(base(), vec![adapter(1.0), adapter(-1.0)]).unwrap();
        assert!(change(&factor.at(&[0.5, 0.5]).unwrap()).abs() < 1e-6);
    }

    /// What is wrong with an adapter of these tensors, one of 1 in each entry, under this configuration.
    fn refused(tensors: &[(&str, &[i64])], config: &str) -> String {
        let folder = folder(1.0, config);
        let prefixed = |name: &str| name.strip_prefix('!').map_or(format!("{PREFIX}{name}"), str::to_owned);
        let ones = |shape: &[i64]| Tensor::ones(shape, (tch::Kind::Float, Device::Cpu));
        let tensors: Vec<_> = tensors.iter().map(|(name, shape)| (prefixed(name), ones(shape))).collect();
        if !tensors.is_empty() {
            write_tensors(&folder.path().join(WEIGHTS), &tensors).unwrap();
        }
        let result = Adapter::load(folder.path(), Device::Cpu).and_then(|a| a.applied_to(&base()));
        result.err().unwrap().to_string().replace(&folder.path().display().to_string(), "[adapter]")
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let config = |targets: &str| PLAIN.replace("layers.1.self_attn.k_proj", targets);
        let (a, b) = ("model.layers.1.self_attn.k_proj.lora_A.weight", "model.layers.1.self_attn.k_proj.lora_B.weight");
        let said = [
            refused(&[], &PLAIN.replace("\"r\": 1", "\"r\": 2")),
            refused(&[], &config("k_proj")),
            refused(&[], &config("v_proj")),
            refused(&[(a, &[1, 8])], PLAIN),
            refused(&[(b, &[4, 1])], PLAIN),
            refused(&[(a, &[1, 9]), (b, &[4, 1])], PLAIN),
            refused(&[(a, &[8]), (b, &[4, 1])], PLAIN),
            refused(
                &[(a, &[1, 8]), (b, &[4, 1]), ("model.layers.1.self_attn.k_proj.lora_magnitude_vector", &[4])],
                PLAIN,
            ),
            refused(&[(a, &[1, 8]), (b, &[4, 1]), ("model.norm.weight", &[8])], PLAIN),
            refused(&[(a, &[1, 8]), (b, &[4, 1]), ("model.layers.1.self_attn.k_proj.bias", &[4])], PLAIN),
            refused(&[("!model.layers.1.self_attn.k_proj.lora_A.weight", &[1, 8])], PLAIN),
            refused(
                &[
                    ("model.layers.9.self_attn.k_proj.lora_A.weight", &[1, 8]),
                    ("model.layers.9.self_attn.k_proj.lora_B.weight", &[4, 1]),
                ],
                PLAIN,
            ),
            refused(&[("lm_head.lora_A.weight", &[1, 8]), ("lm_head.lora_B.weight", &[11, 1])], &config("lm_head")),
            refused(
                &[],
                r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1e38, "target_modules": ["layers.1.self_attn.k_proj"], "use_dora": true}"#,
            ),
        ];
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn a_change_that_overflows_is_named() {
        let folder = folder(1e30, PLAIN);
        let adapter = Adapter::load(folder.path(), Device::Cpu).unwrap();
        let message = adapter.applied_to(&base()).err().unwrap().to_string();
        assert!(
            message
                .contains("with its change, of model.layers.1.self_attn.k_proj.weight 32 of 32 values are not finite"),
            "{message}"
        );
    }

    #[test]
    fn whole_modules_take_the_place_of_the_bases() {
        let folder = folder(1.0, &PLAIN.replace("\"r\"", "\"modules_to_save\": [\"model.norm\"], \"r\""));
        let file = folder.path().join(WEIGHTS);
        let mut tensors = Tensors::new();
        read_weights(&file, &mut tensors).unwrap();
        tensors.insert(format!("{PREFIX}model.norm.weight"), Tensor::from_slice(&[3f32; 8]));
        write_tensors(&file, &tensors.into_iter().collect::<Vec<_>>()).unwrap();
        let adapter = Adapter::load(folder.path(), Device::Cpu).unwrap();
        let model = adapter.applied_to(&base()).unwrap();
        assert_eq!(model.params.last().unwrap().1, Tensor::from_slice(&[3f32; 8]));
        assert!(!adapter.same_shape(&adapter), "whole modules have no factors");
    }
}
