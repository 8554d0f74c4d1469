//! A new model: a byte-level BPE tokenizer trained on a corpus, a plain chat template, random weights.

use super::{Makes, Ref, Work};
use crate::memory::{F32, Footprint, Known, Part, Parts, Shaped};
use crate::model::{Head, LlamaSizes, Model};
use crate::session::Cx;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use motrain_core::data::json_lines;
use motrain_core::options::{Checked, Options};
use motrain_core::stop;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, models::TrainerWrapper};

/// A new model with random weights and a byte-level BPE tokenizer trained on a corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InitModel {
    /// JSONL files whose text the tokenizer is trained on.
    #[schemars(length(min = 1, max = 10_000), inner(length(min = 1, max = 4096)))]
    pub corpus: Vec<String>,
    /// At least the 256 bytes and 4 special tokens.
    #[schemars(range(min = 260, max = 10_000_000))]
    pub vocab_size: usize,
    #[schemars(range(min = 2, max = 100_000))]
    pub hidden_size: i64,
    #[schemars(range(min = 1, max = 1_000_000))]
    pub intermediate_size: i64,
    #[schemars(range(min = 1, max = 10_000))]
    pub layers: i64,
    #[schemars(range(min = 1, max = 10_000))]
    pub heads: i64,
    #[schemars(range(min = 1, max = 10_000))]
    pub kv_heads: i64,
    #[schemars(range(min = 1, max = 10_000_000))]
    pub context: i64,
}

impl Options for InitModel {
    fn check(&self) -> Checked {
        let Self { hidden_size, heads, kv_heads, .. } = self;
        if hidden_size % (2 * heads) != 0 {
            let what =
                format!("is {heads}, but hidden_size {hidden_size} must give each head an even number of dimensions");
            return Err(("heads", what));
        }
        if heads % kv_heads != 0 {
            return Err(("kv_heads", format!("is {kv_heads}, which does not divide the {heads} heads")));
        }
        Ok(())
    }
}

impl Work for InitModel {
    const KIND: &'static str = "init_model";
    const REVISION: u32 = 1;
    const MAKES: &'static [Makes] = &[Makes::Policy];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        self.corpus.iter_mut().map(Ref::File).collect()
    }

    fn footprint(&self, _known: &Known) -> Result<Footprint> {
        let config = self.sizes(self.vocab_size as i64).config().map_err(Error::Invalid)?;
        let made = Shaped::made(config, None, None);
        let mut out = Footprint::default();
        out.moment("saving", Parts::default().with(Part::Masters, F32 * made.numbers));
        out.makes = Some(made);
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

impl InitModel {
    fn sizes(&self, vocab_size: i64) -> LlamaSizes {
        LlamaSizes {
            vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.hidden_size / self.heads,
            context: self.context,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            bos: None,
            eos: vec![0],
            pad: None,
            head: Head::TiedLm,
        }
    }
}

const SPECIAL: [&str; 4] = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"];
const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}\
                        {% if add_generation_prompt %}<|assistant|>{% endif %}";

fn run(stage: Cx, options: &InitModel) -> Result<()> {
    let mut lines = Vec::new();
    for path in &options.corpus {
        for (_, row) in json_lines(Path::new(path))? {
            lines.extend(texts(&row));
        }
    }
    let size = options.vocab_size;
    let tokenizer = stop::unless_asked(move || train_tokenizer(lines, size))??;
    let id = |token: &str| tokenizer.token_to_id(token).map(i64::from);
    let sizes = LlamaSizes {
        eos: id("<|end|>").into_iter().collect(),
        pad: id("<|pad|>"),
        ..options.sizes(tokenizer.get_vocab_size(true) as i64)
    };
    let config = sizes.config().map_err(Error::Invalid)?;
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "model_max_length": options.context,
    });
    let eos = config.eos.iter().map(|&id| id as u32).collect();
    let tokenizer =
        Tokenizer::new(tokenizer, tokenizer_config, Some(TEMPLATE.into()), eos, &config).map_err(Error::Invalid)?;
    let model = Model::init(config, stage.seed("weights", 0), stage.session.device)?;
    tracing::info!("{} parameters, {} tokens", model.parameter_count(), model.config.shape.vocab_size);
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&stage.folder(), e))?;
    stage.save_model(&model, &tokenizer, None)
}

/// All texts of a row, those in messages too.
fn texts(row: &Value) -> Vec<String> {
    match row {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().flat_map(texts).collect(),
        Value::Object(map) => map.values().flat_map(texts).collect(),
        _ => vec![],
    }
}

fn train_tokenizer(lines: Vec<String>, vocab_size: usize) -> Result<tokenizers::Tokenizer> {
    let failed = |e: tokenizers::Error| Error::invalid(format!("training the tokenizer: {e}"));
    let special: Vec<AddedToken> = SPECIAL.iter().map(|t| AddedToken::from(*t, true)).collect();
    let trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocab_size)
        .special_tokens(special)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
    let mut trainer = TrainerWrapper::BpeTrainer(trainer);
    tokenizer.train(&mut trainer, lines.into_iter()).map_err(failed)?;
    Ok(tokenizer)
}
