//! Weights and what stands beside them.

use crate::{bundle, folder, text};
use motrain_core::plan::Optimizer;
use motrain_engine::files::read_fields;
use motrain_engine::model::{Adapter, Config, LoraConfig, Model, check_safetensors};
use motrain_engine::optim;
use motrain_engine::tokenizer::Tokenizer;
use motrain_engine::train::checkpoint as checkpoints;
use motrain_engine::{device, generation, gguf as ggufs, import};
use std::path::Path;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// The smallest model that the project's tests know.
const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/weights/base");

/// A model's configuration that fits small texts.
pub fn small_config() -> Config {
    let text = include_str!("../../fixtures/weights/base/config.json");
    let mut config = Config::parse(text).unwrap_or_else(|e| panic!("{e}")).0;
    config.shape.vocab_size = 600;
    config
}

/// Weights of a model, in one file or several, and of an adapter.
pub fn safetensors(data: &[u8]) {
    let _ = check_safetensors(data);
    let names = [
        WEIGHTS,
        CONFIG,
        "model.safetensors.index.json",
        "1.safetensors",
        "2.safetensors",
        "adapter_config.json",
        "adapter_model.safetensors",
    ];
    let files = bundle::files(data, &names);
    let folder = folder::with(&[(CONFIG, include_bytes!("../../fixtures/weights/base/config.json"))]);
    files.iter().for_each(|(name, content)| folder::write(&folder.path().join(name), content));
    let Ok(cpu) = device::device("cpu") else { return };
    let _ = Model::load(folder.path(), cpu);
    if Adapter::is_one(folder.path())
        && let (Ok(adapter), Ok(base)) = (Adapter::load(folder.path(), cpu), Model::load(Path::new(SMALL), cpu))
    {
        let _ = adapter.applied_to(&base);
    }
}

/// A GGUF file, imported. What an import has written is a model.
pub fn gguf(data: &[u8]) {
    let _ = ggufs::parse(data);
    let folder = folder::with(&[("model.gguf", data)]);
    let made = folder.path().join("made");
    if import::import(&folder.path().join("model.gguf"), &made).is_err() {
        return;
    }
    let Ok(cpu) = device::device("cpu") else { return };
    let model = Model::load(&made, cpu).unwrap_or_else(|e| panic!("an imported model cannot be loaded: {e}"));
    let text =
        Tokenizer::load(&made, &model.config).unwrap_or_else(|e| panic!("an imported tokenizer cannot be loaded: {e}"));
    text::used(&text);
}

/// The small files beside weights, and an adapter's.
pub fn config(data: &[u8]) {
    const ADAPTER: &str = "adapter_config.json";
    let (adapters, files): (Vec<_>, Vec<_>) =
        bundle::files(data, &[CONFIG, generation::FILE, ADAPTER]).into_iter().partition(|(name, _)| *name == ADAPTER);
    for (_, content) in adapters {
        let _ = std::str::from_utf8(content).map(LoraConfig::parse);
    }
    let folder = folder::with(&files);
    if let Ok(config) = Config::load(folder.path()) {
        let again = Config::parse(&config.to_json().to_string()).map(|(config, _)| config);
        assert_eq!(again, Ok(config), "a configuration that was saved is read as another");
    }
    let _ = generation::sampling(folder.path());
    let _ = read_fields(&folder.path().join(generation::FILE)).map(|said| generation::stops(&said));
}

/// A stage's folder with one checkpoint, as training goes on from it.
pub fn checkpoint(data: &[u8]) {
    let stage = folder::new();
    let newest = stage.path().join("checkpoint-7");
    for name in [CONFIG, WEIGHTS] {
        let small = std::fs::read(Path::new(SMALL).join(name)).unwrap_or_default();
        folder::write(&newest.join(name), &small);
    }
    for (name, content) in bundle::files(data, &["state.json", "optimizer.safetensors", CONFIG, WEIGHTS]) {
        folder::write(&newest.join(name), content);
    }
    let Ok(cpu) = device::device("cpu") else { return };
    let Ok(mut model) = Model::load(Path::new(SMALL), cpu) else { return };
    if let Ok(Some((saved, _))) = checkpoints::load(stage.path(), &mut model)
        && let Ok(mut optimizer) = optim::build(&Optimizer::default(), &model.params)
    {
        let _ = optimizer.restore(saved);
    }
}
