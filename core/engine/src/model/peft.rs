//! `adapter_config.json` of a LoRA adapter, as PEFT reads it: each field is done, known to change nothing, or refused by its name.

use super::arch::Names;
use super::soft;
use crate::fields::{Fields, Said};
use regex::Regex;
use serde_json::{Map, Value};

/// What of a LoRA's configuration decides what it does to a model.
#[derive(Debug)]
pub struct LoraConfig {
    /// The model that it was trained on, for messages.
    pub base: Option<String>,
    /// Of an adapter that is soft tokens alone (PROMPT_TUNING): so many.
    pub soft_tokens: Option<i64>,
    /// Which biases of the base were trained too; none of a base that has none.
    pub bias: Option<String>,
    rank: i64,
    alpha: f64,
    rslora: bool,
    ranks: Vec<(Regex, i64)>,
    alphas: Vec<(Regex, f64)>,
    /// None: PEFT's own choice for the family.
    targets: Option<Modules>,
    excluded: Option<Modules>,
    /// Layers that are changed; empty for all.
    layers: Vec<i64>,
    layers_pattern: Vec<Regex>,
    saved: Vec<String>,
}

/// Modules by name.
#[derive(Debug)]
enum Modules {
    /// Ends of their names, after a dot.
    Ends(Vec<String>),
    /// A pattern of the whole name.
    Whole(Regex),
    /// Every matrix but embeddings and head.
    AllLinear,
}

/// Where a module stands in its base.
pub struct Place<'a> {
    pub names: &'a Names,
    /// Whether it is a matrix of a layer.
    pub linear: bool,
}

impl Place<'_> {
    /// Whether PEFT changes the module where adapter_config.json does not say which: queries and values, or the matrix that holds them.
    fn is_usual(&self, module: &str) -> bool {
        let qkv = self.names.qkv;
        self.linear && [qkv[0], qkv[qkv.len() - 1]].iter().any(|end| module.ends_with(end))
    }
}

/// Fields that change nothing once an adapter is trained.
const HARMLESS: [&str; 23] = [
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    // PEFT itself switches it off for linear layers.
    "fan_in_fan_out",
    "inference_mode",
    "kasa_config",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "monteclora_config",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "velora_config",
    "_custom_modules",
    "base_model_class",
    "library_name",
    "parent_library",
    "trained_with",
];

/// Ways to begin that leave the base as it is. Others (PiSSA, OLoRA, CorDA, LoftQ, …) take a part out of the base's weights, again whenever
/// PEFT loads them.
const BEGINNINGS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

impl LoraConfig {
    pub fn parse(text: &str) -> Said<Self> {
        let mut f = Fields::parse(text)?;
        let kind: String = f.need("peft_type")?;
        match kind.as_str() {
            "LORA" => {}
            "PROMPT_TUNING" => return soft::parse(f),
            _ => return Err(format!("is an adapter of type {kind}; motrain knows LORA and PROMPT_TUNING")),
        }
        beginning(&mut f)?;
        let config = Self {
            base: f.take("base_model_name_or_path")?,
            soft_tokens: None,
            bias: f.take::<String>("bias")?.filter(|how| how != "none"),
            rank: f.take("r")?.unwrap_or(8),
            alpha: f.take("lora_alpha")?.unwrap_or(8.0),
            rslora: f.take("use_rslora")?.unwrap_or(false),
            ranks: patterns(&mut f, "rank_pattern")?,
            alphas: patterns(&mut f, "alpha_pattern")?,
            targets: modules(&mut f, "target_modules")?,
            excluded: modules(&mut f, "exclude_modules")?,
            layers: one_or_more(&mut f, "layers_to_transform")?,
            layers_pattern: one_or_more::<String>(&mut f, "layers_pattern")?
                .iter()
                .map(|p| regex("layers_pattern", &format!(r"^(?:|.*?\.){p}\.(\d+)\.")))
                .collect::<Said<_>>()?,
            saved: one_or_more(&mut f, "modules_to_save")?,
        };
        let ranks = config.ranks.iter().map(|(_, r)| *r);
        if let Some(r) = ranks.chain([config.rank]).find(|r| !(1..=1 << 20).contains(r)) {
            return Err(format!("says a rank of {r} (r, rank_pattern); it must be at least 1"));
        }
        let by_layer = !config.layers.is_empty() || !config.layers_pattern.is_empty();
        if by_layer && !matches!(config.targets, None | Some(Modules::Ends(_))) {
            return Err("says layers_to_transform beside a pattern in target_modules, which PEFT refuses too".into());
        }
        f.harmless(&HARMLESS);
        match f.left().first() {
            Some((_, said)) => Err(format!(
                "says {said}, which motrain does not do; merge the adapter into its base with peft's merge_and_unload() first"
            )),
            None => Ok(config),
        }
    }

    /// Of soft tokens alone.
    pub fn of_soft_tokens(base: Option<String>, tokens: i64) -> Self {
        let targets = Some(Modules::Ends(vec![]));
        Self {
            base,
            soft_tokens: Some(tokens),
            bias: None,
            rank: 1,
            alpha: 1.0,
            rslora: false,
            ranks: vec![],
            alphas: vec![],
            targets,
            excluded: None,
            layers: vec![],
            layers_pattern: vec![],
            saved: vec![],
        }
    }

    /// The rank of a module's change.
    pub fn rank(&self, module: &str) -> i64 {
        self.ranks.iter().find(|(p, _)| p.is_match(module)).map_or(self.rank, |(_, r)| *r)
    }

    /// What a module's change `B·A` is multiplied by.
    pub fn scale(&self, module: &str) -> f64 {
        let alpha = self.alphas.iter().find(|(p, _)| p.is_match(module)).map_or(self.alpha, |(_, a)| *a);
        let rank = self.rank(module) as f64;
        alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Whether the adapter changes a module of the base by factors.
    pub fn changes(&self, module: &str, place: &Place) -> bool {
        let excluded = self.excluded.as_ref().is_some_and(|e| e.contain(module, place)) || self.replaces(module);
        let targeted = self.targets.as_ref().map_or_else(|| place.is_usual(module), |t| t.contain(module, place));
        !excluded && targeted && self.in_layers(module)
    }

    /// Whether the adapter holds a module as a whole.
    pub fn replaces(&self, module: &str) -> bool {
        self.saved.iter().any(|end| module.ends_with(end.as_str()))
    }

    fn in_layers(&self, module: &str) -> bool {
        if self.layers.is_empty() {
            return true;
        }
        let index = if self.layers_pattern.is_empty() {
            let mut parts = module.split('.').skip(2);
            parts.find_map(|part| part.parse().ok())
        } else {
            self.layers_pattern.iter().find_map(|p| p.captures(module)?.get(1)?.as_str().parse().ok())
        };
        index.is_some_and(|i: i64| self.layers.contains(&i))
    }
}

impl Modules {
    fn contain(&self, module: &str, place: &Place) -> bool {
        match self {
            Modules::Ends(ends) => ends.iter().any(|end| {
                module.strip_suffix(end.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
            Modules::Whole(pattern) => pattern.is_match(module),
            Modules::AllLinear => place.linear,
        }
    }
}

/// Refuses adapters whose base is not the base: their beginning was taken out of its weights.
fn beginning(f: &mut Fields) -> Said<()> {
    match f.take::<Value>("init_lora_weights")? {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(Value::String(how)) if BEGINNINGS.contains(&how.to_lowercase().as_str()) => Ok(()),
        Some(how) => Err(format!(
            "says init_lora_weights = {how}: such an adapter changes the base's own weights, which motrain does not do; convert it to plain \
             LoRA with peft's save_pretrained(…, path_initial_model_for_weight_conversion=…), or merge it with merge_and_unload()"
        )),
    }
}

fn modules(f: &mut Fields, name: &str) -> Said<Option<Modules>> {
    match f.take::<Value>(name)? {
        None => Ok(None),
        Some(Value::String(all)) if all.eq_ignore_ascii_case("all-linear") => Ok(Some(Modules::AllLinear)),
        Some(Value::String(pattern)) => Ok(Some(Modules::Whole(regex(name, &format!("^(?:{pattern})$"))?))),
        Some(list) => {
            let ends: Vec<String> = serde_json::from_value(list).map_err(|e| format!("{name}: {e}"))?;
            Ok(Some(Modules::Ends(ends)))
        }
    }
}

fn one_or_more<T: serde::de::DeserializeOwned>(f: &mut Fields, name: &str) -> Said<Vec<T>> {
    let list = match f.take::<Value>(name)? {
        None => return Ok(vec![]),
        Some(Value::Array(list)) => list,
        Some(one) => vec![one],
    };
    list.into_iter().map(|v| serde_json::from_value(v).map_err(|e| format!("{name}: {e}"))).collect()
}

/// Values by patterns of module names' ends.
fn patterns<T: serde::de::DeserializeOwned>(f: &mut Fields, name: &str) -> Said<Vec<(Regex, T)>> {
    let map: Map<String, Value> = f.take(name)?.unwrap_or_default();
    let one = |(pattern, value): (String, Value)| {
        let value = serde_json::from_value(value).map_err(|e| format!("{name}: {e}"))?;
        Ok((regex(name, &format!(r"^(?:.*\.)?(?:{pattern})$"))?, value))
    };
    map.into_iter().map(one).collect()
}

fn regex(name: &str, pattern: &str) -> Said<Regex> {
    Regex::new(pattern).map_err(|e| {
        let why = e.to_string();
        format!("{name}: this pattern cannot be read: {}", why.lines().last().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants;
    use serde_json::json;

    const PLAIN: &str = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "bias": "none",
        "rank_pattern": {}, "init_lora_weights": true, "task_type": "CAUSAL_LM", "lora_dropout": 0.05, "use_dora": false}"#;

    fn with(name: &str, value: Value) -> Said<LoraConfig> {
        let mut map: Map<String, Value> = serde_json::from_str(PLAIN).unwrap();
        map.insert(name.into(), value);
        LoraConfig::parse(&Value::Object(map).to_string())
    }

    #[test]
    fn what_changes_the_result_is_refused_by_its_name() {
        let table = [
            ("peft_type", json!("LOHA")),
            ("r", json!(0)),
            ("r", json!(-1)),
            ("r", json!("4")),
            ("rank_pattern", json!({"q_proj": 0})),
            ("rank_pattern", json!({"(?=q)": 2})),
            ("init_lora_weights", json!("pissa")),
            ("init_lora_weights", json!("pissa_niter_16")),
            ("init_lora_weights", json!("olora")),
            ("init_lora_weights", json!("corda")),
            ("init_lora_weights", json!("loftq")),
            ("init_lora_weights", json!("lora_ga")),
            ("use_dora", json!(true)),
            ("use_qalora", json!(true)),
            ("use_bdlora", json!({"nblocks": 2})),
            ("lora_bias", json!(true)),
            ("trainable_token_indices", json!([1, 2])),
            ("target_parameters", json!(["experts.down_proj"])),
            ("layer_replication", json!([[0, 2], [1, 2]])),
            ("megatron_config", json!({"a": 1})),
            ("alora_invocation_tokens", json!([5])),
            ("arrow_config", json!({"top_k": 2})),
            ("something_new", json!(0.5)),
        ];
        let said: Vec<String> = table
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n  {}", with(name, value.clone()).unwrap_err()))
            .collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn what_changes_nothing_is_read() {
        for (name, value) in [
            ("init_lora_weights", json!("gaussian")),
            ("init_lora_weights", json!(false)),
            ("init_lora_weights", json!("eva")),
            ("fan_in_fan_out", json!(true)),
            ("base_model_name_or_path", Value::Null),
            ("target_parameters", json!([])),
        ] {
            assert!(with(name, value).is_ok(), "{name}");
        }
    }

    #[test]
    fn modules_are_found_as_peft_finds_them() {
        let changed = |config: &LoraConfig| -> Vec<String> {
            let modules = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|m| format!("self_attn.{m}"));
            let all = (0..3).flat_map(|i| modules.iter().map(move |m| format!("model.layers.{i}.{m}")));
            let found = all
                .chain(["lm_head".into(), "model.embed_tokens".into()])
                .filter(|m| config.changes(m, &Place { names: &Names::LLAMA, linear: m.ends_with("_proj") }));
            found.map(|m| m.replace("model.layers.", "").replace("self_attn.", "")).collect()
        };
        let of = |name: &str, value: Value| changed(&with(name, value).unwrap());
        let plain = of("use_dora", json!(false));
        assert_eq!(plain, ["0.q_proj", "0.v_proj", "1.q_proj", "1.v_proj", "2.q_proj", "2.v_proj"]);
        assert_eq!(of("target_modules", Value::Null), plain);
        assert_eq!(of("target_modules", json!(["proj"])), Vec::<String>::new());
        assert_eq!(of("target_modules", json!(["layers.1.self_attn.k_proj", "lm_head"])), ["1.k_proj", "lm_head"]);
        assert_eq!(of("target_modules", json!(r".*\.(0|2)\..*k_proj")), ["0.k_proj", "2.k_proj"]);
        assert_eq!(of("target_modules", json!("all-linear")).len(), 12);
        assert_eq!(of("exclude_modules", json!(["v_proj"])), ["0.q_proj", "1.q_proj", "2.q_proj"]);
        assert_eq!(of("exclude_modules", json!(r".*\.[12]\..*")), ["0.q_proj", "0.v_proj"]);
        assert_eq!(of("layers_to_transform", json!(1)), ["1.q_proj", "1.v_proj"]);
        assert_eq!(of("layers_to_transform", json!([0, 2])), ["0.q_proj", "0.v_proj", "2.q_proj", "2.v_proj"]);
        assert_eq!(of("modules_to_save", json!(["q_proj"])), ["0.v_proj", "1.v_proj", "2.v_proj"]);
    }

    #[test]
    fn ranks_and_scales_by_module() {
        let q = "model.layers.0.self_attn.q_proj";
        assert_eq!(with("use_rslora", json!(true)).unwrap().scale(q), 4.0);
        let ranks = with("rank_pattern", json!({"q_proj": 16})).unwrap();
        assert_eq!((ranks.rank(q), ranks.scale(q)), (16, 0.5));
        assert_eq!(ranks.rank("model.layers.0.self_attn.v_proj"), 4);
        let alphas = with("alpha_pattern", json!({r"layers\.0\..*": 2.0})).unwrap();
        assert_eq!((alphas.scale(q), alphas.scale("model.layers.1.self_attn.q_proj")), (0.5, 2.0));
    }

    #[test]
    fn mutants_are_read_or_refused() {
        let refused = mutants::of_json(PLAIN, 4000).filter(|text| LoraConfig::parse(text).is_err()).count();
        assert!(refused > 1000 && refused < 3900, "{refused}");
    }
}
