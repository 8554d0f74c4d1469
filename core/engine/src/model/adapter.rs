//! LoRA adapters as PEFT saves them: adapter_config.json and adapter_model.safetensors.

use super::llama::{Llama, slots};
use super::load::read_file;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor, no_grad};

const PREFIX: &str = "base_model.model.";

/// What of adapter_config.json matters; what would change the result and is not supported is refused.
#[derive(Deserialize)]
struct Raw {
    peft_type: String,
    r: i64,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    modules_to_save: Option<Value>,
    #[serde(default)]
    rank_pattern: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, Value>>,
}

/// Low-rank changes `scale·B·A` of a model's matrices.
pub struct Adapter {
    name: String,
    scale: f64,
    /// (A `[r, in]`, B `[out, r]`) by the checkpoint's name of the matrix.
    factors: BTreeMap<String, (Tensor, Tensor)>,
}

impl Adapter {
    pub fn is_one(folder: &Path) -> bool {
        folder.join("adapter_config.json").is_file()
    }

    pub fn load(folder: &Path, device: Device) -> Result<Self> {
        let path = folder.join("adapter_config.json");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let raw: Raw = serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))?;
        if let Some(what) = raw.unsupported() {
            return Err(Error::file(
                &path,
                format!("{what}, which motrain does not mix; merge it into its base first"),
            ));
        }
        let scale = raw.lora_alpha / if raw.use_rslora { (raw.r as f64).sqrt() } else { raw.r as f64 };
        let file = folder.join("adapter_model.safetensors");
        let mut tensors = BTreeMap::new();
        read_file(&file, &mut tensors)?;
        let mut factors = BTreeMap::new();
        let modules: Vec<String> =
            tensors.keys().filter_map(|k| k.strip_suffix(".lora_A.weight")).map(str::to_owned).collect();
        for module in modules {
            let mut take = |part: &str| {
                let key = format!("{module}.{part}.weight");
                tensors.remove(&key).ok_or_else(|| Error::file(&file, format!("has no {key}")))
            };
            let pair = (take("lora_A")?.f_to_device(device)?, take("lora_B")?.f_to_device(device)?);
            factors.insert(format!("{}.weight", module.strip_prefix(PREFIX).unwrap_or(&module)), pair);
        }
        if let Some(odd) = tensors.keys().next() {
            return Err(Error::file(&file, format!("holds {odd}, which is no LoRA factor of a matrix")));
        }
        if factors.is_empty() {
            return Err(Error::file(&file, "holds no LoRA factors"));
        }
        Ok(Self { name: folder.display().to_string(), scale, factors })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn same_shape(&self, other: &Self) -> bool {
        let shapes = |a: &Self| a.factors.iter().map(|(k, (a, b))| (k.clone(), a.size(), b.size())).collect::<Vec<_>>();
        self.scale == other.scale && shapes(self) == shapes(other)
    }

    /// An adapter whose factors are the weighted sums of these adapters' factors, which have the same shapes.
    pub fn mixed(adapters: &[Self], weights: &[f64]) -> Result<Self> {
        let mut factors = BTreeMap::new();
        for module in adapters[0].factors.keys() {
            let sum = |pick: fn(&(Tensor, Tensor)) -> &Tensor| -> Result<Tensor> {
                let mut sum = pick(&adapters[0].factors[module]).f_zeros_like()?;
                for (adapter, &w) in adapters.iter().zip(weights) {
                    sum = sum.f_add(&pick(&adapter.factors[module]).f_mul_scalar(w)?)?;
                }
                Ok(sum)
            };
            factors.insert(module.clone(), (sum(|f| &f.0)?, sum(|f| &f.1)?));
        }
        Ok(Self { name: "mixed".into(), scale: adapters[0].scale, factors })
    }

    /// A copy of `base` with the changes added.
    pub fn applied_to(&self, base: &Llama) -> Result<Llama> {
        no_grad(|| {
            let mut model = base.frozen_copy()?;
            let mut left: Vec<&String> = self.factors.keys().collect();
            for (slot, (_, param)) in slots(&base.config).into_iter().zip(&mut model.params) {
                let mut row = 0;
                for (name, rows) in &slot.parts {
                    if let Some((a, b)) = self.factors.get(name) {
                        let delta = b.f_matmul(a)?.f_mul_scalar(self.scale)?;
                        let mut target = param.f_narrow(0, row, *rows)?;
                        if target.size() != delta.size() {
                            let (got, wanted) = (delta.size(), target.size());
                            let what =
                                format!("{}: its change of {name} is {got:?}, the base's is {wanted:?}", self.name);
                            return Err(Error::invalid(what));
                        }
                        let _ = target.f_add_(&delta)?;
                        left.retain(|l| *l != name);
                    }
                    row += rows;
                }
            }
            match left.first() {
                Some(odd) => Err(Error::invalid(format!("{}: the base has no {odd}", self.name))),
                None => Ok(model),
            }
        })
    }
}

impl Raw {
    fn unsupported(&self) -> Option<String> {
        let some = |x: &Option<BTreeMap<String, Value>>| x.as_ref().is_some_and(|x| !x.is_empty());
        let saved = self.modules_to_save.as_ref().is_some_and(|m| !m.is_null() && m.as_array() != Some(&vec![]));
        match self {
            _ if self.peft_type != "LORA" => Some(format!("is of type {}", self.peft_type)),
            _ if self.use_dora => Some("uses DoRA".into()),
            _ if self.fan_in_fan_out => Some("has fan_in_fan_out".into()),
            _ if self.bias.as_deref().is_some_and(|b| b != "none") => Some("trains biases".into()),
            _ if saved => Some("saves whole modules".into()),
            _ if some(&self.rank_pattern) || some(&self.alpha_pattern) => Some("has ranks or scales by module".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mix::{Mix, tests::base};
    use super::*;
    use crate::model::write_tensors;

    /// A PEFT folder with rank-1 factors of one value in every entry.
    fn folder(value: f32, config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("adapter_config.json"), config).unwrap();
        let module = "base_model.model.model.layers.1.self_attn.k_proj";
        let width = base().config.hidden_size as usize;
        let rows = base().config.kv_heads * base().config.head_dim;
        let tensors = vec![
            (format!("{module}.lora_A.weight"), Tensor::from_slice(&vec![value; width]).view([1, width as i64])),
            (format!("{module}.lora_B.weight"), Tensor::from_slice(&vec![value; rows as usize]).view([rows, 1])),
        ];
        write_tensors(&folder.path().join("adapter_model.safetensors"), &tensors).unwrap();
        folder
    }

    const PLAIN: &str = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "bias": "none", "rank_pattern": {}}"#;

    fn adapter(value: f32) -> Adapter {
        Adapter::load(folder(value, PLAIN).path(), Device::Cpu).unwrap()
    }

    /// How far a model's second layer's keys, and nothing else, lie from the base's.
    fn change(model: &Llama) -> f64 {
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

    #[test]
    fn what_is_not_supported_is_named() {
        let dora = folder(1.0, r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "use_dora": true}"#);
        let message = Adapter::load(dora.path(), Device::Cpu).err().unwrap().to_string();
        assert!(message.contains("uses DoRA, which motrain does not mix"), "{message}");
    }
}
